# Can an MLP stand in the place of the datastore?

MLP = {
    "seed": config["lm_seeds"],
    "index": BASELINE["indexes"],
    "corpus": config["corpus"],
    "head": config["mlp_augmentation"]["heads"],
    "control": config["mlp_augmentation"]["controls"],
    "split": ["validation", "test"],
}


rule mlp_augmentation:
    """Can an MLP stand in the place of the datastore?

    Exhibits: Chiang et al. (2024), Table 2 and the storage claim of Section 5.
    """
    input:
        "<results>/tables/mlp_augmentation.csv",
        "<results>/figures/mlp_augmentation.svg",
        "<results>/figures/mlp_augmentation.png",
    localrule: True


rule train_mlp_replacement:
    """Train an MLP on the pairs of a datastore, streamed from its shards."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        model=model_of_datastore,
    output:
        replacement=directory("<results>/replacements/{datastore}/seed{seed}/{head}"),
    log:
        "<logs>/train_mlp_replacement/{datastore}/seed{seed}/{head}.log",
    benchmark:
        "<benchmarks>/train_mlp_replacement/{datastore}/seed{seed}/{head}.tsv"
    wildcard_constraints:
        head="|".join(config["mlp_augmentation"]["heads"]),
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_mlp_replacement.py",
            threads="fine_tune",
            training=lambda wildcards: config["mlp_augmentation"]["training"],
        ),
        threads=config["threads"]["fine_tune"],
        settings=config["mlp_augmentation"]["training"],
    script:
        "../../../scripts/train_mlp_replacement.py"


rule continue_language_model:
    """Train the finished LM on by as much as a replacement is trained: the control."""
    input:
        model=f"<results>/models/{BASE_MODEL}/seed{{seed}}",
        tokens=tokens_for(BASE_MODEL, config["datastores"][BASE_STORE]["corpus"]),
    output:
        control=directory("<results>/continued/{control}/seed{seed}"),
    log:
        "<logs>/continue_language_model/{control}/seed{seed}.log",
    benchmark:
        "<benchmarks>/continue_language_model/{control}/seed{seed}.tsv"
    wildcard_constraints:
        control="|".join(config["mlp_augmentation"]["controls"]),
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/continue_language_model.py",
            threads="fine_tune",
            training=lambda wildcards: config["mlp_augmentation"]["training"],
        ),
        threads=config["threads"]["fine_tune"],
        settings=config["mlp_augmentation"]["training"],
    script:
        "../../../scripts/continue_language_model.py"


rule score_continued:
    """Score the same positions with an LM that was trained on."""
    input:
        model="<results>/continued/{control}/seed{seed}",
        tokens=f"<results>/corpora/{{corpus}}/tokens/{BASE_TOKENIZER}",
    output:
        queries=directory("<results>/continued_queries/{control}/seed{seed}/{corpus}/{split}"),
    log:
        "<logs>/score_continued/{control}/seed{seed}/{corpus}/{split}.log",
    benchmark:
        "<benchmarks>/score_continued/{control}/seed{seed}/{corpus}/{split}.tsv"
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/score_queries.py", threads="encode", queries=True),
        threads=config["threads"]["encode"],
        queries=config["queries"],
        sites=list(STANDING_SITES),
    script:
        "../../../scripts/score_queries.py"


rule evaluate_mlp_augmentation:
    """Perplexity, bytes and FLOPs of LM, kNN-LM, MLP and controls on the same tokens."""
    input:
        **knn_lms([BASE_STORE], indexes=BASELINE["indexes"], splits=["validation", "test"]),
        macondo_table="<results>/tables/overspecification.csv",
        models=expand(f"<results>/models/{BASE_MODEL}/seed{{seed}}", **MLP),
        datastores=expand(f"<results>/datastores/{BASE_STORE}/seed{{seed}}", **MLP),
        indexes=expand(f"<results>/indexes/{BASE_STORE}/seed{{seed}}/{{index}}", **MLP),
        replacements=expand(f"<results>/replacements/{BASE_STORE}/seed{{seed}}/{{head}}", **MLP),
        controls=expand("<results>/continued/{control}/seed{seed}", **MLP),
        control_queries=expand(
            "<results>/continued_queries/{control}/seed{seed}/{corpus}/{split}", **MLP
        ),
    output:
        table="<results>/tables/mlp_augmentation.csv",
    log:
        "<logs>/evaluate_mlp_augmentation.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("mlp_augmentation", stores=[], indexes=BASE_INDEXES),
    script:
        "../../../scripts/evaluate.py"
