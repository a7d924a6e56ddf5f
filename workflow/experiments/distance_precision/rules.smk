PRECISE_INDEXES = [BASELINE["index"], config["distance_precision"]["index"]]


rule distance_precision:
    """How much does it matter that distances are those of full keys, and which neighbors are found?

    Exhibits: Khandelwal et al. (2020), Section 5, precision of the similarity function.
    """
    input:
        multiext("<results>/figures/distance_precision", ".svg", ".png"),
        "<results>/tables/distance_precision.csv",
    localrule: True


rule evaluate_distance_precision:
    """Perplexity with the same neighbors by codes and by full keys, and with the true neighbors."""
    input:
        **knn_lms([BASE_STORE], indexes=PRECISE_INDEXES, splits=["validation", "test"]),
    output:
        table="<results>/tables/distance_precision.csv",
    log:
        "<logs>/evaluate_distance_precision.log",
    benchmark:
        "<benchmarks>/evaluate_distance_precision.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("distance_precision", stores=[BASE_STORE]),
    script:
        "../../../scripts/evaluate.py"
