rule continuous_cache:
    """Does a cache of the recent past of a document add to kNN?

    Exhibits: Khandelwal et al. (2020), Table 1, rows 3 and 5.
    """
    input:
        multiext("<results>/figures/continuous_cache", ".svg", ".png"),
        "<results>/tables/continuous_cache.csv",
        "<results>/tables/continuous_cache_grid.csv",
    localrule: True


rule encode_documents:
    """Store hidden states of whole documents, and score the queries with more left context.

    4 bytes x width for each token of validation and test, so that no setting of a cache reruns
    the LM.
    """
    input:
        model="<results>/models/{model}/seed{seed}",
        tokens=tokens_of_queries,
    output:
        documents=directory("<results>/documents/{model}/seed{seed}/{corpus}"),
    log:
        "<logs>/encode_documents/{model}/seed{seed}/{corpus}.log",
    benchmark:
        "<benchmarks>/encode_documents/{model}/seed{seed}/{corpus}.tsv"
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/encode_documents.py",
            threads="encode",
            queries=True,
            cache=lambda wildcards: {
                name: config["continuous_cache"][name] for name in ("sizes", "more_context_stride")
            },
        ),
        threads=config["threads"]["encode"],
        queries=config["queries"],
        sizes=config["continuous_cache"]["sizes"],
        more_context_stride=config["continuous_cache"]["more_context_stride"],
    script:
        "../../../scripts/encode_documents.py"


rule evaluate_continuous_cache:
    """Perplexity of LM and kNN-LM with a cache; theta, size and weights tuned on validation."""
    input:
        **knn_lms([BASE_STORE], splits=["validation", "test"]),
        documents=expand(
            f"<results>/documents/{BASE_MODEL}/seed{{seed}}/{config['corpus']}",
            seed=config["lm_seeds"],
        ),
    output:
        table="<results>/tables/continuous_cache.csv",
        grid="<results>/tables/continuous_cache_grid.csv",
    log:
        "<logs>/evaluate_continuous_cache.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("continuous_cache", stores=[]),
    script:
        "../../../scripts/evaluate.py"
