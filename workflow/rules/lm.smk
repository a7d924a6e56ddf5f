# Token streams -> trained language models -> scored queries.


rule train_language_model:
    """Train an LM from scratch; a longer training of the same LM continues from its trunk."""
    input:
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
        tokenizer=f"<results>/corpora/{config['corpus']}/tokenizer",
        trunk=trunk,
    output:
        model=directory("<results>/models/{model}/seed{seed}"),
    log:
        "<logs>/train_language_model/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_language_model/{model}/seed{seed}.tsv"
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


rule score_queries:
    """Score sampled positions of a split with an LM; keep the hidden states that search needs."""
    input:
        model="<results>/models/{model}/seed{seed}",
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
    output:
        queries=directory("<results>/log_probs/{model}/seed{seed}/{split}"),
    log:
        "<logs>/score_queries/{model}/seed{seed}/{split}.log",
    benchmark:
        "<benchmarks>/score_queries/{model}/seed{seed}/{split}.tsv"
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/score_queries.py", threads="encode", queries=True),
        threads=config["threads"]["encode"],
        queries=config["queries"],
    script:
        "../../scripts/score_queries.py"


use rule score_queries as score_control with:
    input:
        model="<results>/controls/seed{seed}/{control}",
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
    output:
        queries=directory("<results>/log_probs/controls/seed{seed}/{control}/{split}"),
    log:
        "<logs>/score_control/seed{seed}/{control}/{split}.log",
    benchmark:
        "<benchmarks>/score_control/seed{seed}/{control}/{split}.tsv"
