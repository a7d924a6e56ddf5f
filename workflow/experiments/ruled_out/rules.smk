# Which explanations do not explain why kNN lowers the LM's perplexity?

RULED_OUT = evaluation(
    "ruled_out",
    stores=[],
    indexes={BASELINE["index"]: config["indexes"][BASELINE["index"]]},
)
EXPLAINED = {
    **knn_lms([BASE_STORE], splits=["validation", "test"]),
    "models": expand(f"<results>/models/{BASE_MODEL}/seed{{seed}}", seed=config["lm_seeds"]),
    "datastores": expand(
        f"<results>/datastores/{BASE_STORE}/seed{{seed}}", seed=config["lm_seeds"]
    ),
}


rule ruled_out:
    """Which explanations do not explain why kNN lowers perplexity?

    Exhibits: Xu et al. (2023), the hypotheses that are ruled out, and their appendices.
    """
    input:
        "<results>/tables/ruled_out.csv",
        "<results>/figures/ruled_out.svg",
        "<results>/figures/ruled_out.png",
    localrule: True


rule score_alternatives:
    """Score the targets by what might stand in kNN's place: a sparse softmax, clusters, distances."""
    input:
        **EXPLAINED,
    output:
        alternatives=directory("<results>/ruled_out/alternatives"),
    log:
        "<logs>/score_alternatives.log",
    benchmark:
        "<benchmarks>/score_alternatives.tsv"
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/score_alternatives.py",
            threads="search",
            settings=lambda wildcards: RULED_OUT["settings"],
        ),
        threads=config["threads"]["search"],
        settings=RULED_OUT["settings"],
    script:
        "../../../scripts/score_alternatives.py"


rule certify_output_vectors:
    """Certify for each output vector whether it lies in the convex hull of the others."""
    input:
        models=EXPLAINED["models"],
    output:
        certificates=directory("<results>/ruled_out/certificates"),
    log:
        "<logs>/certify_output_vectors.log",
    benchmark:
        "<benchmarks>/certify_output_vectors.tsv"
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/certify_output_vectors.py",
            threads="search",
            settings=lambda wildcards: config["ruled_out"]["stolen_probabilities"],
        ),
        threads=config["threads"]["search"],
        settings=config["ruled_out"]["stolen_probabilities"],
    script:
        "../../../scripts/certify_output_vectors.py"


rule evaluate_ruled_out:
    """Mix each alternative with the LM in the place of kNN: perplexity, share of the gain, cost."""
    input:
        **EXPLAINED,
        alternatives="<results>/ruled_out/alternatives",
        certificates="<results>/ruled_out/certificates",
    output:
        table="<results>/tables/ruled_out.csv",
    log:
        "<logs>/evaluate_ruled_out.log",
    benchmark:
        "<benchmarks>/evaluate_ruled_out.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **RULED_OUT,
    script:
        "../../../scripts/evaluate.py"
