# Does an LM generalize from over-specified facts, and does kNN help?

OVERSPECIFICATION = config["overspecification"]
SCORED_BY = ("points", "early", "site", "k", "lmbda", "temperature", "oracle")
OVERSPECIFICATION_SCORES = {key: OVERSPECIFICATION[key] for key in SCORED_BY}
OVERSPECIFICATION_RUNS = expand(
    "{fine_tuning}/seed{seed}",
    fine_tuning=OVERSPECIFICATION["compare"],
    seed=config["experiment_seeds"],
)
OVERSPECIFICATION_TUNINGS = {
    name: config["fine_tunings"][name] for name in OVERSPECIFICATION["compare"]
}
OVERSPECIFICATION_TOWNS = expand(
    "<results>/macondo/{town}/seed{seed}",
    town={one["town"]: None for one in OVERSPECIFICATION_TUNINGS.values()},
    seed=config["experiment_seeds"],
)


rule overspecification:
    """Does an LM generalize from over-specified facts, and does kNN help?

    Exhibits: Chiang et al. (2024), Figures 1 and 3, Tables 5 and 6.
    """
    input:
        "<results>/tables/overspecification.csv",
        "<results>/tables/overspecification_curves.csv",
        "<results>/tables/overspecification_examples.csv",
        "<results>/figures/overspecification.svg",
        "<results>/figures/overspecification.png",
    localrule: True


rule finetune_macondo:
    """Fine-tune a model on over-specified sentences; score the children's names as it goes."""
    input:
        macondo=town_to_fine_tune,
        model=model_to_fine_tune,
        tokenizer=tokenizer_to_fine_tune,
    output:
        fine_tuned=directory("<results>/overspecification/{fine_tuning}/seed{seed}"),
    log:
        "<logs>/finetune_macondo/{fine_tuning}/seed{seed}.log",
    benchmark:
        "<benchmarks>/finetune_macondo/{fine_tuning}/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/finetune_macondo.py",
            threads="fine_tune",
            fine_tuning=fine_tuning_of,
            shape=shape_to_fine_tune,
            scores=lambda wildcards: OVERSPECIFICATION_SCORES,
        ),
        threads=config["threads"]["fine_tune"],
        fine_tuning=fine_tuning_of,
        shape=shape_to_fine_tune,
        scores=OVERSPECIFICATION_SCORES,
    script:
        "../../../scripts/finetune_macondo.py"


rule train_macondo_mlp:
    """Train an MLP, of one of its settings, in the datastore's place at three points."""
    input:
        fine_tuned="<results>/overspecification/{fine_tuning}/seed{seed}",
    output:
        mlp=directory("<results>/overspecification_mlp/{fine_tuning}/{mlp}/seed{seed}"),
    log:
        "<logs>/train_macondo_mlp/{fine_tuning}/{mlp}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_macondo_mlp/{fine_tuning}/{mlp}/seed{seed}.tsv"
    wildcard_constraints:
        mlp="|".join(OVERSPECIFICATION["mlps"]),
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_macondo_mlp.py",
            threads="fine_tune",
            mlp=lambda wildcards: OVERSPECIFICATION["mlps"][wildcards.mlp],
        ),
        threads=config["threads"]["fine_tune"],
        mlp=lookup(dpath="mlps/{mlp}", within=OVERSPECIFICATION),
    script:
        "../../../scripts/train_macondo_mlp.py"


rule evaluate_overspecification:
    """Collect the likelihoods of the children's names, with theory, intervals and paired gains."""
    input:
        macondo=OVERSPECIFICATION_TOWNS,
        fine_tuned=expand("<results>/overspecification/{one}", one=OVERSPECIFICATION_RUNS),
        mlp=expand(
            "<results>/overspecification_mlp/{fine_tuning}/{mlp}/seed{seed}",
            fine_tuning=OVERSPECIFICATION["compare"],
            mlp=OVERSPECIFICATION["mlps"],
            seed=config["experiment_seeds"],
        ),
    output:
        table="<results>/tables/overspecification.csv",
        curves="<results>/tables/overspecification_curves.csv",
        examples="<results>/tables/overspecification_examples.csv",
    log:
        "<logs>/evaluate_overspecification.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation(
            "overspecification", "experiment_seeds", fine_tunings=OVERSPECIFICATION_TUNINGS
        ),
    script:
        "../../../scripts/evaluate.py"
