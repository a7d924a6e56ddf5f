# Which hidden state and which distance are best for retrieval?

KEY_STORES = [BASE_STORE, config["key_and_distance"]["ffn"]]


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
            KEY_STORES,
            indexes=config["key_and_distance"]["indexes"].values(),
            splits=["validation", "test"],
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
        **evaluation("key_and_distance", stores=KEY_STORES),
    script:
        "../../../scripts/evaluate.py"
