# Does retrieval from its own training data help the LM?

KNN_PERPLEXITY = config["knn_perplexity"]
KNN_PERPLEXITY_BASE = config["datastores"][KNN_PERPLEXITY["datastore"]]["model"]


rule knn_perplexity:
    """Does retrieval from its own training data help the LM?

    Exhibits: Chiang et al. (2024), Table 1; Khandelwal et al. (2020), Table 1.
    """
    input:
        "<results>/tables/knn_perplexity.csv",
        "<results>/tables/knn_perplexity_grid.csv",
        "<results>/figures/knn_perplexity.svg",
        "<results>/figures/knn_perplexity.png",
    localrule: True


rule evaluate_knn_perplexity:
    """Perplexity of LM, kNN-LM and a longer-trained LM, with intervals over documents."""
    input:
        text=f"<results>/corpora/{config['corpus']}/text",
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
        queries=expand(
            f"<results>/log_probs/{KNN_PERPLEXITY_BASE}/seed{{seed}}/{{split}}",
            seed=config["lm_seeds"],
            split=["validation", "test"],
        ),
        control_queries=expand(
            f"<results>/log_probs/{KNN_PERPLEXITY['control']}/seed{{seed}}/{{split}}",
            seed=config["lm_seeds"],
            split=["validation", "test"],
        ),
        neighbors=expand(
            f"<results>/neighbors/{KNN_PERPLEXITY['datastore']}/seed{{seed}}/{{index}}/{{split}}",
            seed=config["lm_seeds"],
            index=KNN_PERPLEXITY["indexes"],
            split=["validation", "test"],
        ),
    output:
        table="<results>/tables/knn_perplexity.csv",
        grid="<results>/tables/knn_perplexity_grid.csv",
    log:
        "<logs>/evaluate_knn_perplexity.log",
    benchmark:
        "<benchmarks>/evaluate_knn_perplexity.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/evaluate_knn_perplexity.py", knn_perplexity=True, lm_seeds=True
        ),
        threads=1,
        corpus=config["corpus"],
        model=KNN_PERPLEXITY_BASE,
        seeds=config["lm_seeds"],
        settings=KNN_PERPLEXITY,
    script:
        "../../scripts/evaluate_knn_perplexity.py"


rule plot_knn_perplexity:
    """Draw perplexity over lmbda, temperature and k from the table alone."""
    input:
        grid="<results>/tables/knn_perplexity_grid.csv",
    output:
        svg=report(
            "<results>/figures/knn_perplexity.svg",
            caption="../report/knn_perplexity.rst",
            category="knn_perplexity",
            labels={"shown": "figure"},
        ),
        png="<results>/figures/knn_perplexity.png",
    log:
        "<logs>/plot_knn_perplexity.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/plot_knn_perplexity.py"),
        threads=1,
    script:
        "../../scripts/plot_knn_perplexity.py"
