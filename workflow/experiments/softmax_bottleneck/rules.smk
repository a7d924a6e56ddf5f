# Can the last layers of the LM express the kNN-LM's distributions?

PROJECTED = {
    "seed": config["lm_seeds"],
    "last_layers": config["softmax_bottleneck"]["last_layers"],
}
PROJECTED_FROM = {
    "model": f"<results>/models/{BASE_MODEL}/seed{{seed}}",
    "queries": f"<results>/queries/{BASE_MODEL}/seed{{seed}}/{config['corpus']}/test",
    "neighbors": (
        f"<results>/neighbors/{BASE_STORE}/seed{{seed}}/{BASELINE['index']}/{config['corpus']}/test"
    ),
    "point": f"<results>/tuned/{BASE_STORE}/seed{{seed}}/{BASELINE['index']}/{config['corpus']}.json",
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
    """Project kNN-LMs' distributions onto last layers, by the paper's optimizer."""
    input:
        **PROJECTED_FROM,
    output:
        projections=directory("<results>/projections/seed{seed}/{last_layers}"),
    log:
        "<logs>/project_distributions/seed{seed}/{last_layers}.log",
    benchmark:
        "<benchmarks>/project_distributions/seed{seed}/{last_layers}.tsv"
    wildcard_constraints:
        last_layers="|".join(config["softmax_bottleneck"]["last_layers"]),
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/project_distributions.py",
            threads="fine_tune",
            softmax_bottleneck=True,
            published=lambda wildcards: BASELINE["published"],
        ),
        threads=config["threads"]["fine_tune"],
        site=BASE_SITE,
        published=BASELINE["published"],
        settings=config["softmax_bottleneck"],
    script:
        "../../../scripts/project_distributions.py"


rule project_on_heads:
    """Solve the projection onto linear heads, also cut and foreign ones, to the optimum."""
    input:
        **PROJECTED_FROM,
        others=lambda wildcards: (
            expand(
                f"{RESULTS}/models/{{model}}/seed{LM_SEED}",
                model=config["softmax_bottleneck"]["heads"],
            )
            if int(wildcards.seed) == LM_SEED
            else []
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
            "scripts/project_on_heads.py",
            threads="fine_tune",
            softmax_bottleneck=True,
            published=lambda wildcards: BASELINE["published"],
        ),
        threads=config["threads"]["fine_tune"],
        site=BASE_SITE,
        published=BASELINE["published"],
        settings=config["softmax_bottleneck"],
    script:
        "../../../scripts/project_on_heads.py"


rule evaluate_softmax_bottleneck:
    """Perplexity, share of the gap and both KLs of every projection, with intervals."""
    input:
        **knn_lms([BASE_STORE]),
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
        **evaluation("softmax_bottleneck", stores=[]),
    script:
        "../../../scripts/evaluate.py"
