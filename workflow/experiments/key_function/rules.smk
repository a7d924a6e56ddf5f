rule key_function:
    """Which hidden state of the LM is the best key?

    Exhibits: Khandelwal et al. (2020), Table 5.
    """
    input:
        multiext("<results>/figures/key_function", ".svg", ".png"),
        "<results>/tables/key_function.csv",
    localrule: True


rule evaluate_key_function:
    """Perplexity of the kNN-LM with keys of every site, each tuned on validation."""
    input:
        **knn_lms(config["key_function"]["datastores"]),
    output:
        table="<results>/tables/key_function.csv",
    log:
        "<logs>/evaluate_key_function.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("key_function", stores=config["key_function"]["datastores"]),
    script:
        "../../../scripts/evaluate.py"
