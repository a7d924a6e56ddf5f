# Where does retrieval help, and what do its neighbors look like?

STORED_CORPUS = config["datastores"][BASE_STORE]["corpus"]


rule rare_patterns:
    """Where does retrieval help, and what do its neighbors look like?

    Exhibits: Khandelwal et al. (2020), Figure 6 and Tables 6-9.
    """
    input:
        "<results>/tables/rare_patterns.csv",
        "<results>/tables/rare_patterns_examples.csv",
        "<results>/figures/rare_patterns.svg",
        "<results>/figures/rare_patterns.png",
    localrule: True


rule evaluate_rare_patterns:
    """Gains of kNN, and of an LM trained longer, by how often train has the context; examples."""
    input:
        **together(
            knn_lms([BASE_STORE]),
            {
                "queries": expand(
                    f"<results>/queries/{{model}}/seed{{seed}}/{config['corpus']}/test",
                    model=config["datastores"][CONTROL["datastore"]]["model"],
                    seed=CONTROL["seeds"],
                )
            },
        ),
        text=f"<results>/corpora/{config['corpus']}/text",
        tokens=tokens_for(BASE_MODEL, config["corpus"]),
        stored_text=f"<results>/corpora/{STORED_CORPUS}/text",
        stored_tokens=tokens_for(BASE_MODEL, STORED_CORPUS),
        tokenizer=f"<results>/tokenizers/{BASE_TOKENIZER}",
    output:
        table="<results>/tables/rare_patterns.csv",
        examples="<results>/tables/rare_patterns_examples.csv",
    log:
        "<logs>/evaluate_rare_patterns.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("rare_patterns", stores=[CONTROL["datastore"]]),
    script:
        "../../../scripts/evaluate.py"
