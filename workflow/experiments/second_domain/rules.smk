# Does retrieval help in another domain?

SECOND = config["second_domain"]["datastore"]


rule second_domain:
    """Does retrieval from its own training data help an LM of another domain?

    Exhibits: Khandelwal et al. (2020), Table 2.
    """
    input:
        multiext("<results>/figures/second_domain", ".svg", ".png"),
        "<results>/tables/second_domain.csv",
    localrule: True


rule evaluate_second_domain:
    """Perplexity of an LM trained on the second corpus, and of its kNN-LM, on that corpus."""
    input:
        **knn_lms(
            [SECOND],
            splits=["validation", "test"],
            seeds=[LM_SEED],
            corpus=config["datastores"][SECOND]["corpus"],
        ),
    output:
        table="<results>/tables/second_domain.csv",
    log:
        "<logs>/evaluate_second_domain.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("second_domain", stores=[SECOND]),
    script:
        "../../../scripts/evaluate.py"
