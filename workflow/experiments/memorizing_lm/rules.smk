# Would an LM that has memorized its training data do what retrieval does?

MEMORIZING = config["memorizing_lm"]["model"]
LOSSES_OF = [BASE_MODEL, MEMORIZING, config["models"][MEMORIZING].get("starts_from", BASE_MODEL)]
if LM_SEED in CONTROL["seeds"]:
    LOSSES_OF.append(config["datastores"][CONTROL["datastore"]]["model"])


rule memorizing_lm:
    """Would an LM that has memorized its training data do what retrieval does?

    Exhibits: Khandelwal et al. (2020), Figure 8; Xu et al. (2023), the overfitted LM (Appendix E.6.1).
    """
    input:
        "<results>/tables/memorizing_lm.csv",
        "<results>/tables/memorizing_lm_epochs.csv",
        "<results>/figures/memorizing_lm.svg",
        "<results>/figures/memorizing_lm.png",
    localrule: True


rule evaluate_memorizing_lm:
    """Perplexity of an LM without dropout, alone and mixed in, beside kNN; losses by epoch."""
    input:
        **together(
            knn_lms([BASE_STORE], splits=["validation", "test"], seeds=[LM_SEED]),
            {
                "queries": expand(
                    f"<results>/queries/{MEMORIZING}/seed{LM_SEED}/{config['corpus']}/{{split}}",
                    split=["validation", "test"],
                )
            },
        ),
        models=expand(f"<results>/models/{{model}}/seed{LM_SEED}", model=sorted(set(LOSSES_OF))),
        tokens=tokens_for(BASE_MODEL, config["models"][BASE_MODEL]["corpus"]),
    output:
        table="<results>/tables/memorizing_lm.csv",
        epochs="<results>/tables/memorizing_lm_epochs.csv",
    log:
        "<logs>/evaluate_memorizing_lm.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("memorizing_lm", stores=[CONTROL["datastore"]]),
    script:
        "../../../scripts/evaluate.py"
