# Which explanations do not explain why kNN lowers the LM's perplexity?

SECOND_METRIC = config["ruled_out"]["two_metrics"]["index"]
RULED_OUT = evaluation(
    "ruled_out",
    stores=[config["ruled_out"]["trained"]["control"]],
    second_metric_seeds=[LM_SEED],
    indexes={name: config["indexes"][name] for name in (BASELINE["index"], SECOND_METRIC)},
)
BOTH_SPLITS = {"splits": ["validation", "test"]}
EXPLAINED = {
    **knn_lms([BASE_STORE], **BOTH_SPLITS),
    "models": expand(f"<results>/models/{BASE_MODEL}/seed{{seed}}", seed=config["lm_seeds"]),
    "datastores": expand(
        f"<results>/datastores/{BASE_STORE}/seed{{seed}}", seed=config["lm_seeds"]
    ),
}
BY_SECOND_METRIC = knn_lms(
    [BASE_STORE],
    indexes=[SECOND_METRIC],
    seeds=RULED_OUT["settings"]["second_metric_seeds"],
    **BOTH_SPLITS,
)

TRAINED = config["ruled_out"]["trained"]
BY_ANOTHER_TRAINING = together(  # of the first LM seed; the control has neighbors of its own
    knn_lms([TRAINED["control"]], seeds=[LM_SEED], **BOTH_SPLITS),
    {
        name: expand(
            f"<results>/{place}", model=TRAINED["lms"].values(), split=BOTH_SPLITS["splits"]
        )
        for name, place in {
            "models": f"models/{{model}}/seed{LM_SEED}",
            "queries": f"queries/{{model}}/seed{LM_SEED}/{config['corpus']}/{{split}}",
        }.items()
    },
    {"models": [f"<results>/models/{TRAINED['control']}/seed{LM_SEED}"]},
)


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
        "<logs>/score_alternatives/every_seed.log",
    benchmark:
        "<benchmarks>/score_alternatives/every_seed.tsv"
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
        "<logs>/certify_output_vectors/every_seed.log",
    benchmark:
        "<benchmarks>/certify_output_vectors/every_seed.tsv"
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
        **together(
            EXPLAINED,
            {name: BY_SECOND_METRIC[name] for name in ("neighbors", "tuned")},
            BY_ANOTHER_TRAINING,
        ),
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
