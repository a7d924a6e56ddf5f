# Does it depend on the temperature of the kNN softmax which mask and score are best?


rule temperature:
    """Does it depend on the temperature of the kNN softmax which mask and score are best?

    Exhibits: Xu et al. (2023), Figures 4a and 4b.
    """
    input:
        multiext("<results>/figures/temperature", ".svg", ".png"),
        multiext("<results>/tables/temperature", ".csv", "_grid.csv"),
    localrule: True


rule evaluate_temperature:
    """Perplexity at every temperature of the grid, by mask and score, from stored neighbors."""
    input:
        **knn_lms(
            [BASE_STORE],
            indexes=[config["approximate_search"][role] for role in ("exact", "index")],
            splits=["validation", "test"],
            seeds=[LM_SEED],
        ),
        shares=f"<results>/shares/seed{LM_SEED}",
    output:
        table="<results>/tables/temperature.csv",
        grid="<results>/tables/temperature_grid.csv",
    log:
        "<logs>/evaluate_temperature.log",
    benchmark:
        "<benchmarks>/evaluate_temperature.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("temperature", "approximate_search", stores=[]),
    script:
        "../../../scripts/evaluate.py"
