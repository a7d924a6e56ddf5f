rule key_and_distance:
    """Which hidden state and which distance are best for retrieval?

    Exhibits: Xu et al. (2023), Table 1.
    """
    input:
        multiext("<results>/figures/key_and_distance", ".svg", ".png"),
        "<results>/tables/key_and_distance.csv",
    localrule: True


rule evaluate_key_and_distance:
    """Perplexity of kNN alone, mixed and as an oracle, for two keys and two distances."""
    input:
        **knn_lms(
            config["key_and_distance"]["keys"].values(),
            indexes=config["key_and_distance"]["indexes"].values(),
            seeds=[LM_SEED],
        ),
    output:
        table="<results>/tables/key_and_distance.csv",
    log:
        "<logs>/evaluate_key_and_distance.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("key_and_distance", stores=config["key_and_distance"]["keys"].values()),
    script:
        "../../../scripts/evaluate.py"
