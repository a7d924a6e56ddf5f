from knnlm.plan.sizes import model_size

MORE_DATA = config["more_data"]
PART_MODEL = config["datastores"][MORE_DATA["datastore"]]["model"]


rule more_data:
    """Does retrieval from more text replace training on it?

    Exhibits: Khandelwal et al. (2020), Table 3 and Figure 2.
    """
    input:
        multiext("<results>/figures/more_data", ".svg", ".png"),
        "<results>/tables/more_data.csv",
    localrule: True


rule evaluate_more_data:
    """Perplexity and weight of the kNN-LM by size of the datastore, each tuned on validation."""
    input:
        queries=expand(
            f"<results>/queries/{{model}}/seed{LM_SEED}/{config['corpus']}/test",
            model=[PART_MODEL, MORE_DATA["whole"], MORE_DATA["further"]],
        )
        + [f"<results>/queries/{PART_MODEL}/seed{LM_SEED}/{config['corpus']}/validation"],
        shares=expand(
            f"<results>/share_neighbors/{{datastore}}/seed{LM_SEED}/{{index}}/{{corpus}}/{{split}}",
            datastore=MORE_DATA["datastore"],
            index=MORE_DATA["index"],
            corpus=config["corpus"],
            split=["validation", "test"],
        ),
    output:
        table="<results>/tables/more_data.csv",
    log:
        "<logs>/evaluate_more_data.log",
    benchmark:
        "<benchmarks>/evaluate_more_data.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation(
            "more_data",
            stores=[MORE_DATA["datastore"]],
            size=model_size(config, PART_MODEL)._asdict(),
            model=config["models"][PART_MODEL],
            further=config["models"][MORE_DATA["further"]],
        ),
    script:
        "../../../scripts/evaluate.py"
