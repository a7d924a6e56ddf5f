# Does an LM generalize from over-specified facts, and does kNN help?

OVERSPECIFICATION = config["overspecification"]
OVERSPECIFICATION_RUNS = expand(
    "{fine_tuning}/seed{seed}",
    fine_tuning=OVERSPECIFICATION["compare"],
    seed=config["experiment_seeds"],
)


def fine_tuning_of(wildcards):
    """Return the settings of a fine-tuning."""
    return OVERSPECIFICATION["fine_tunings"][wildcards.fine_tuning]


def model_to_fine_tune(wildcards):
    """Return the folder of the trained LM from which a fine-tuning starts, if it is ours."""
    init = fine_tuning_of(wildcards)["init"]
    if init not in config["models"]:
        return []
    return f"results/{config['run']}/models/{init}/seed{config['lm_seeds'][0]}"


def tokenizer_to_fine_tune(wildcards):
    """Return the folder of the corpus's tokenizer, if the model uses it."""
    fine_tuning = fine_tuning_of(wildcards)
    if not {fine_tuning["init"], fine_tuning["shape"]} & set(config["models"]):
        return []
    return f"results/{config['run']}/corpora/{config['corpus']}/tokenizer"


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
        macondo="<results>/macondo/seed{seed}",
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
        gpu=int(config["scale"] != "cpu"),
    params:
        fingerprint=fingerprint(
            "scripts/finetune_macondo.py", threads="fine_tune", overspecification=True, models=True
        ),
        threads=config["threads"]["fine_tune"],
        fine_tuning=fine_tuning_of,
        models=config["models"],
        settings=OVERSPECIFICATION,
    script:
        "../../scripts/finetune_macondo.py"


rule train_macondo_mlp:
    """Train an MLP in the place of the datastore at three points of a fine-tuning."""
    input:
        fine_tuned="<results>/overspecification/{fine_tuning}/seed{seed}",
    output:
        mlp=directory("<results>/overspecification_mlp/{fine_tuning}/seed{seed}"),
    log:
        "<logs>/train_macondo_mlp/{fine_tuning}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_macondo_mlp/{fine_tuning}/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        gpu=int(config["scale"] != "cpu"),
    params:
        fingerprint=fingerprint(
            "scripts/train_macondo_mlp.py", threads="fine_tune", overspecification=True
        ),
        threads=config["threads"]["fine_tune"],
        settings=OVERSPECIFICATION,
    script:
        "../../scripts/train_macondo_mlp.py"


rule evaluate_overspecification:
    """Collect the likelihoods of the children's names, with theory, intervals and paired gains."""
    input:
        macondo=expand("<results>/macondo/seed{seed}", seed=config["experiment_seeds"]),
        fine_tuned=expand("<results>/overspecification/{one}", one=OVERSPECIFICATION_RUNS),
        mlp=expand("<results>/overspecification_mlp/{one}", one=OVERSPECIFICATION_RUNS),
    output:
        table="<results>/tables/overspecification.csv",
        curves="<results>/tables/overspecification_curves.csv",
        examples="<results>/tables/overspecification_examples.csv",
    log:
        "<logs>/evaluate_overspecification.log",
    conda:
        CONDA
    params:
        fingerprint=fingerprint(
            "scripts/evaluate_overspecification.py",
            corpus=True,
            overspecification=True,
            experiment_seeds=True,
        ),
        threads=1,
        corpus=config["corpus"],
        settings=OVERSPECIFICATION,
        seeds=config["experiment_seeds"],
    script:
        "../../scripts/evaluate_overspecification.py"


rule plot_overspecification:
    """Draw the likelihoods over epochs, one panel a model, from the tables alone."""
    input:
        table="<results>/tables/overspecification.csv",
        curves="<results>/tables/overspecification_curves.csv",
    output:
        svg=report(
            "<results>/figures/overspecification.svg",
            caption="../report/overspecification.rst",
            category="overspecification",
        ),
        png="<results>/figures/overspecification.png",
    log:
        "<logs>/plot_overspecification.log",
    conda:
        CONDA
    params:
        fingerprint=fingerprint("scripts/plot_overspecification.py"),
        threads=1,
    script:
        "../../scripts/plot_overspecification.py"
