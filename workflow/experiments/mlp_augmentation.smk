# Can an MLP stand in the place of the datastore?

MLP_STORE = config["knn_perplexity"]["datastore"]
MLP_BASE = config["datastores"][MLP_STORE]["model"]
MLP = {
    "seed": config["lm_seeds"],
    "index": config["knn_perplexity"]["indexes"],
    "head": config["mlp_augmentation"]["heads"],
    "control": config["mlp_augmentation"]["controls"],
    "split": ["validation", "test"],
}


rule mlp_augmentation:
    """Can an MLP stand in the place of the datastore?

    Exhibits: Chiang et al. (2024), Table 2 and the storage claim.
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
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_mlp_replacement.py", threads="fine_tune", mlp_replacement=True
        ),
        threads=config["threads"]["fine_tune"],
        settings=config["mlp_replacement"],
    script:
        "../../scripts/train_mlp_replacement.py"


rule continue_language_model:
    """Train the finished LM on by as much as a replacement is trained: the control."""
    input:
        model=f"<results>/models/{MLP_BASE}/seed{{seed}}",
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
    output:
        control=directory("<results>/controls/seed{seed}/{control}"),
    log:
        "<logs>/continue_language_model/seed{seed}/{control}.log",
    benchmark:
        "<benchmarks>/continue_language_model/seed{seed}/{control}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/continue_language_model.py", threads="fine_tune", mlp_replacement=True
        ),
        threads=config["threads"]["fine_tune"],
        settings=config["mlp_replacement"],
    script:
        "../../scripts/continue_language_model.py"


rule evaluate_mlp_augmentation:
    """Perplexity, bytes and FLOPs of LM, kNN-LM, MLP and controls on the same tokens."""
    input:
        knn_table="<results>/tables/knn_perplexity.csv",
        macondo_table="<results>/tables/overspecification.csv",
        models=expand(f"<results>/models/{MLP_BASE}/seed{{seed}}", **MLP),
        datastores=expand(f"<results>/datastores/{MLP_STORE}/seed{{seed}}", **MLP),
        index_folders=expand(f"<results>/indexes/{MLP_STORE}/seed{{seed}}/{{index}}", **MLP),
        queries=expand(f"<results>/log_probs/{MLP_BASE}/seed{{seed}}/{{split}}", **MLP),
        neighbors=expand(f"<results>/neighbors/{MLP_STORE}/seed{{seed}}/{{index}}/test", **MLP),
        replacements=expand(f"<results>/replacements/{MLP_STORE}/seed{{seed}}/{{head}}", **MLP),
        controls=expand("<results>/controls/seed{seed}/{control}", **MLP),
        control_queries=expand("<results>/log_probs/controls/seed{seed}/{control}/{split}", **MLP),
    output:
        table="<results>/tables/mlp_augmentation.csv",
    log:
        "<logs>/evaluate_mlp_augmentation.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/evaluate_mlp_augmentation.py",
            mlp_augmentation=True,
            mlp_replacement=True,
            knn_perplexity=True,
            indexes=True,
            lm_seeds=True,
        ),
        threads=1,
        corpus=config["corpus"],
        model=MLP_BASE,
        seeds=config["lm_seeds"],
        settings=config["mlp_augmentation"],
        training=config["mlp_replacement"],
        knn=config["knn_perplexity"],
        indexes={name: config["indexes"][name] for name in MLP["index"]},
    script:
        "../../scripts/evaluate_mlp_augmentation.py"


rule plot_mlp_augmentation:
    """Draw perplexity, bytes and FLOPs of every method from the table alone."""
    input:
        table="<results>/tables/mlp_augmentation.csv",
    output:
        svg=report(
            "<results>/figures/mlp_augmentation.svg",
            caption="../report/mlp_augmentation.rst",
            category="mlp_augmentation",
            labels={"shown": "figure"},
        ),
        png="<results>/figures/mlp_augmentation.png",
    log:
        "<logs>/plot_mlp_augmentation.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/plot_mlp_augmentation.py"),
        threads=1,
    script:
        "../../scripts/plot_mlp_augmentation.py"
