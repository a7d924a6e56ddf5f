rule ngram_interpolation:
    """Would an n-gram LM of the same text do in the place of retrieval?

    Exhibits: Khandelwal et al. (2020), Figure 7.
    """
    input:
        multiext("<results>/figures/ngram_interpolation", ".svg", ".png"),
        "<results>/tables/ngram_interpolation.csv",
    localrule: True


rule score_ngrams:
    """Count the n-grams of the train split, and score validation and test with every order."""
    input:
        train=tokens_for(BASE_MODEL, config["datastores"][BASE_STORE]["corpus"]),
        tokens=f"<results>/corpora/{{corpus}}/tokens/{BASE_TOKENIZER}",
    output:
        ngrams=directory("<results>/ngrams/{corpus}"),
    log:
        "<logs>/score_ngrams/{corpus}.log",
    benchmark:
        "<benchmarks>/score_ngrams/{corpus}.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/score_ngrams.py", ngram_interpolation=True),
        threads=1,
        orders=config["ngram_interpolation"]["orders"],
    script:
        "../../../scripts/score_ngrams.py"


rule evaluate_ngram_interpolation:
    """Perplexity of LM and kNN-LM with n-grams of every order, weights tuned on validation."""
    input:
        **knn_lms([BASE_STORE], splits=["validation", "test"]),
        ngrams=f"<results>/ngrams/{config['corpus']}",
    output:
        table="<results>/tables/ngram_interpolation.csv",
    log:
        "<logs>/evaluate_ngram_interpolation.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("ngram_interpolation", stores=[]),
    script:
        "../../../scripts/evaluate.py"
