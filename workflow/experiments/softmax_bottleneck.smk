# Can the last layers of the LM express the kNN-LM's distributions?

PROJECTED_STORE = config["knn_perplexity"]["datastore"]
PROJECTED_INDEX = config["knn_perplexity"]["index"]
PROJECTED_BASE = config["datastores"][PROJECTED_STORE]["model"]
PROJECTED = {
    "seed": config["lm_seeds"],
    "last_layers": config["softmax_bottleneck"]["last_layers"],
}
PROJECTED_FROM = {
    "model": f"<results>/models/{PROJECTED_BASE}/seed{{seed}}",
    "queries": f"<results>/log_probs/{PROJECTED_BASE}/seed{{seed}}/test",
    "neighbors": f"<results>/neighbors/{PROJECTED_STORE}/seed{{seed}}/{PROJECTED_INDEX}/test",
}


rule softmax_bottleneck:
    """Can the last layers of the LM express the kNN-LM's distributions?

    Exhibits: Chiang et al. (2024), Table 1 (projections), Tables 3 and 4.
    """
    input:
        "<results>/tables/softmax_bottleneck.csv",
        "<results>/figures/softmax_bottleneck.svg",
        "<results>/figures/softmax_bottleneck.png",
    localrule: True


rule project_distributions:
    """Project the kNN-LM's distributions onto last layers, by the paper's optimizer."""
    input:
        **PROJECTED_FROM,
        knn_table="<results>/tables/knn_perplexity.csv",
    output:
        projections=directory("<results>/projections/seed{seed}/{last_layers}"),
    log:
        "<logs>/project_distributions/seed{seed}/{last_layers}.log",
    benchmark:
        "<benchmarks>/project_distributions/seed{seed}/{last_layers}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/project_distributions.py", threads="fine_tune", softmax_bottleneck=True
        ),
        threads=config["threads"]["fine_tune"],
        index=PROJECTED_INDEX,
        site=config["datastores"][PROJECTED_STORE]["site"],
        settings=config["softmax_bottleneck"],
    script:
        "../../scripts/project_distributions.py"


rule project_on_heads:
    """Solve the projection onto linear heads, also cut and foreign ones, to the optimum."""
    input:
        **PROJECTED_FROM,
        knn_table="<results>/tables/knn_perplexity.csv",
        others=expand(
            "<results>/models/{model}/seed{{seed}}", model=config["softmax_bottleneck"]["heads"]
        ),
    output:
        optima=directory("<results>/projections/seed{seed}/optima"),
    log:
        "<logs>/project_on_heads/seed{seed}.log",
    benchmark:
        "<benchmarks>/project_on_heads/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/project_on_heads.py", threads="fine_tune", softmax_bottleneck=True
        ),
        threads=config["threads"]["fine_tune"],
        index=PROJECTED_INDEX,
        published=config["knn_perplexity"]["published"],
        site=config["datastores"][PROJECTED_STORE]["site"],
        settings=config["softmax_bottleneck"],
    script:
        "../../scripts/project_on_heads.py"


rule evaluate_softmax_bottleneck:
    """Perplexity, share of the gap and both KLs of every projection, with intervals."""
    input:
        knn_table="<results>/tables/knn_perplexity.csv",
        queries=expand(PROJECTED_FROM["queries"], **PROJECTED),
        neighbors=expand(PROJECTED_FROM["neighbors"], **PROJECTED),
        projections=expand("<results>/projections/seed{seed}/{last_layers}", **PROJECTED),
        optima=expand("<results>/projections/seed{seed}/optima", **PROJECTED),
    output:
        table="<results>/tables/softmax_bottleneck.csv",
    log:
        "<logs>/evaluate_softmax_bottleneck.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/evaluate_softmax_bottleneck.py",
            softmax_bottleneck=True,
            knn_perplexity=True,
            lm_seeds=True,
        ),
        threads=1,
        corpus=config["corpus"],
        model=PROJECTED_BASE,
        seeds=config["lm_seeds"],
        settings=config["softmax_bottleneck"],
        knn=config["knn_perplexity"],
    script:
        "../../scripts/evaluate_softmax_bottleneck.py"


rule plot_softmax_bottleneck:
    """Draw the share of the gap by method and by rank from the table alone."""
    input:
        table="<results>/tables/softmax_bottleneck.csv",
    output:
        svg=report(
            "<results>/figures/softmax_bottleneck.svg",
            caption="../report/softmax_bottleneck.rst",
            category="softmax_bottleneck",
            labels={"shown": "figure"},
        ),
        png="<results>/figures/softmax_bottleneck.png",
    log:
        "<logs>/plot_softmax_bottleneck.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/plot_softmax_bottleneck.py"),
        threads=1,
    script:
        "../../scripts/plot_softmax_bottleneck.py"
