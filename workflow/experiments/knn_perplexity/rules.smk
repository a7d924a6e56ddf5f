# Does retrieval from its own training data help the LM?

SPLITS = ["validation", "test"]


rule knn_perplexity:
    """Does retrieval from its own training data help the LM?

    Exhibits: Chiang et al. (2024), Table 1; Khandelwal et al. (2020), Table 1, Figures 4 and 5.
    """
    input:
        "<results>/tables/knn_perplexity.csv",
        "<results>/tables/knn_perplexity_grid.csv",
        "<results>/figures/knn_perplexity.svg",
        "<results>/figures/knn_perplexity.png",
    localrule: True


rule evaluate_knn_perplexity:
    """Perplexity of LM, kNN-LM and a longer-trained LM, with intervals over documents."""
    input:
        **together(
            knn_lms([BASE_STORE], indexes=BASELINE["indexes"], splits=SPLITS),
            knn_lms([CONTROL["datastore"]], splits=SPLITS, seeds=CONTROL["seeds"]),
        ),
        text=f"<results>/corpora/{config['corpus']}/text",
        tokens=tokens_for(BASE_MODEL, config["corpus"]),
    output:
        table="<results>/tables/knn_perplexity.csv",
        grid="<results>/tables/knn_perplexity_grid.csv",
    log:
        "<logs>/evaluate_knn_perplexity.log",
    benchmark:
        "<benchmarks>/evaluate_knn_perplexity.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("knn_perplexity", stores=[CONTROL["datastore"]]),
    script:
        "../../../scripts/evaluate.py"
