# Does approximate search make kNN-LMs better, and how large must a datastore be?


rule approximate_search:
    """Does approximate search make kNN-LMs better than exact search, in how large a datastore?

    Exhibits: Xu et al. (2023), Table 3 and Figure 3.
    """
    input:
        multiext("<results>/figures/approximate_search", ".svg", ".png"),
        "<results>/tables/approximate_search.csv",
    localrule: True


rule search_shares:
    """Find neighbors in every share of the datastore, really and by an index built for it."""
    input:
        datastore=f"<results>/datastores/{BASE_STORE}/seed{{seed}}",
        validation=f"<results>/queries/{BASE_MODEL}/seed{{seed}}/{config['corpus']}/validation",
        test=f"<results>/queries/{BASE_MODEL}/seed{{seed}}/{config['corpus']}/test",
    output:
        shares=directory("<results>/shares/seed{seed}"),
    log:
        "<logs>/search_shares/seed{seed}.log",
    benchmark:
        "<benchmarks>/search_shares/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/search_shares.py",
            threads="search",
            search=True,
            approximate_search=True,
            index=lambda wildcards: config["indexes"][config["approximate_search"]["index"]],
        ),
        threads=config["threads"]["search"],
        index=config["indexes"][config["approximate_search"]["index"]],
        search=config["search"],
        settings=config["approximate_search"],
    script:
        "../../../scripts/search_shares.py"


rule evaluate_approximate_search:
    """Perplexity by share of the datastore, mask and score, at three choices of temperature."""
    input:
        **knn_lms(
            [BASE_STORE],
            indexes=[config["approximate_search"][role] for role in ("exact", "index")],
            splits=["validation", "test"],
            seeds=[LM_SEED],
        ),
        shares=f"<results>/shares/seed{LM_SEED}",
    output:
        table="<results>/tables/approximate_search.csv",
    log:
        "<logs>/evaluate_approximate_search.log",
    benchmark:
        "<benchmarks>/evaluate_approximate_search.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("approximate_search", stores=[]),
    script:
        "../../../scripts/evaluate.py"
