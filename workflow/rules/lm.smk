# Token streams -> language models, trained or pretrained -> scored queries.


rule train_language_model:
    """Train an LM from random weights or another LM's; a longer training continues a trunk.

    With an objective of its own it learns from another LM, or from the kNN-LM of a datastore.
    """
    input:
        tokens=tokens_of_model,
        tokenizer=tokenizer_of_model,
        trunk=trunk,
        start=start_of_model,
        teacher=teacher_of_model,
        distributions=distributions_of_model,
    output:
        model=directory("<results>/models/{model}/seed{seed}"),
    log:
        "<logs>/train_language_model/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_language_model/{model}/seed{seed}.tsv"
    wildcard_constraints:
        model=names_in("models", source=["trained"]),
    cache: SHARED
    priority: LONGEST_PATH
    conda:
        CONDA
    threads: config["threads"]["train"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/train_language_model.py", threads="train", models="model"),
        threads=config["threads"]["train"],
        model=lookup(dpath="models/{model}", within=config),
    script:
        "../../scripts/train_language_model.py"


rule fetch_language_model:
    """Take a pretrained LM from the hub or a folder, in the place of a trained one."""
    input:
        files_of_model,
        tokenizer=tokenizer_of_model,
    output:
        model=directory("<results>/models/{model}/seed{seed}"),
    log:
        "<logs>/fetch_language_model/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/fetch_language_model/{model}/seed{seed}.tsv"
    wildcard_constraints:
        model=names_in("models", source=["pretrained"]),
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/fetch_language_model.py", models="model"),
        threads=1,
        model=lookup(dpath="models/{model}", within=config),
    script:
        "../../scripts/fetch_language_model.py"


rule score_queries:
    """Score sampled positions of a split with an LM; keep the hidden states that search needs."""
    input:
        model="<results>/models/{model}/seed{seed}",
        tokens=tokens_of_queries,
    output:
        queries=directory("<results>/queries/{model}/seed{seed}/{corpus}/{split}"),
    log:
        "<logs>/score_queries/{model}/seed{seed}/{corpus}/{split}.log",
    benchmark:
        "<benchmarks>/score_queries/{model}/seed{seed}/{corpus}/{split}.tsv"
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/score_queries.py", threads="encode", queries=True, sites=sites_of_model
        ),
        threads=config["threads"]["encode"],
        queries=config["queries"],
        sites=sites_of_model,
    script:
        "../../scripts/score_queries.py"
