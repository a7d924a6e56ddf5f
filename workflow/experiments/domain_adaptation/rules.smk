# Does a datastore adapt an LM to a domain that it was not trained on?

HOME, ADAPTING = (config["domain_adaptation"][name] for name in ("home", "datastore"))
FINE_TUNED = config["domain_adaptation"]["fine_tuned"]
ADAPTED = {
    "model": [config["domain_adaptation"]["trained_there"], *FINE_TUNED],
    "seed": LM_SEED,
    "corpus": config["datastores"][ADAPTING]["corpus"],
    "split": ["validation", "test"],
}
AT_HOME = knn_lms(
    [HOME],
    splits=["validation"],
    seeds=[LM_SEED],
    corpus=config["datastores"][HOME]["corpus"],
)


rule domain_adaptation:
    """Does a datastore adapt an LM to a domain that it was not trained on?

    Exhibits: Khandelwal et al. (2020), Table 4 and Figure 5 (right).
    """
    input:
        multiext("<results>/figures/domain_adaptation", ".svg", ".png"),
        "<results>/tables/domain_adaptation.csv",
        "<results>/tables/domain_adaptation_grid.csv",
    localrule: True


rule evaluate_domain_adaptation:
    """An LM on a second corpus: alone, with its datastore, beside LMs that were trained there."""
    input:
        **together(
            knn_lms(
                [ADAPTING],
                splits=ADAPTED["split"],
                seeds=[LM_SEED],
                corpus=ADAPTED["corpus"],
            ),
            {
                "queries": expand(
                    "<results>/queries/{model}/seed{seed}/{corpus}/{split}", **ADAPTED
                )
            },
        ),
        home_queries=AT_HOME["queries"],
        home_neighbors=AT_HOME["neighbors"],
        home_tuned=AT_HOME["tuned"],
        models=expand(
            "<results>/models/{model}/seed{seed}",
            model=[config["datastores"][HOME]["model"], *FINE_TUNED],
            seed=LM_SEED,
        ),
        datastore=f"<results>/datastores/{ADAPTING}/seed{LM_SEED}",
    output:
        table="<results>/tables/domain_adaptation.csv",
        grid="<results>/tables/domain_adaptation_grid.csv",
    log:
        "<logs>/evaluate_domain_adaptation.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation(
            "domain_adaptation",
            stores=[HOME, ADAPTING],
            indexes={BASELINE["index"]: config["indexes"][BASELINE["index"]]},
        ),
    script:
        "../../../scripts/evaluate.py"
