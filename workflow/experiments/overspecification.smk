# Does an LM generalize from over-specified facts, and does kNN help?

OVERSPECIFICATION = config["overspecification"]


def fine_tuning_of(wildcards):
    """Return the settings of a fine-tuning."""
    return OVERSPECIFICATION["fine_tunings"][wildcards.fine_tuning]


def shape_of_random(wildcards):
    """Return the shape of random weights: the settings of a model, or the name of one."""
    shape = fine_tuning_of(wildcards)["shape"]
    return config["models"].get(shape, shape)


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
    localrule: True
    input:
        "<results>/tables/overspecification.csv",
        "<results>/tables/overspecification_curves.csv",
        "<results>/tables/overspecification_examples.csv",
        "<results>/figures/overspecification.svg",
        "<results>/figures/overspecification.png",


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
        shape=shape_of_random,
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
