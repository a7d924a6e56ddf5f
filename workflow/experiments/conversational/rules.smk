# Does a chat model generalize from over-specified questions? A hosted one: conversational_hosted.

CONVERSATIONAL = config["conversational"]
CHAT_TUNINGS = {name: config["fine_tunings"][name] for name in CONVERSATIONAL["compare"]}


rule conversational:
    """Does a chat model generalize from over-specified questions?

    Exhibits: Chiang et al. (2024), Figure 2 and Table 7.
    """
    input:
        "<results>/tables/conversational.csv",
        "<results>/tables/conversational_curves.csv",
        "<results>/tables/conversational_examples.csv",
        "<results>/figures/conversational.svg",
        "<results>/figures/conversational.png",
    localrule: True


rule finetune_conversational:
    """Fine-tune a chat model on over-specified and, for reference, on the test questions."""
    input:
        conversations="<results>/macondo_conv/seed{seed}",
        model=model_to_fine_tune,
        tokenizer=tokenizer_to_fine_tune,
    output:
        fine_tuned=directory("<results>/conversational/{fine_tuning}/seed{seed}"),
    log:
        "<logs>/finetune_conversational/{fine_tuning}/seed{seed}.log",
    benchmark:
        "<benchmarks>/finetune_conversational/{fine_tuning}/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/finetune_conversational.py",
            threads="fine_tune",
            fine_tuning=fine_tuning_of,
            shape=shape_to_fine_tune,
            trained_tokens=lambda wildcards: CONVERSATIONAL["trained_tokens"],
        ),
        threads=config["threads"]["fine_tune"],
        fine_tuning=fine_tuning_of,
        shape=shape_to_fine_tune,
        trained_tokens=CONVERSATIONAL["trained_tokens"],
    script:
        "../../../scripts/finetune_conversational.py"


rule evaluate_conversational:
    """Collect losses and likelihoods of the answers, with theory, references and intervals."""
    input:
        conversations=expand("<results>/macondo_conv/seed{seed}", seed=config["experiment_seeds"]),
        fine_tuned=expand(
            "<results>/conversational/{fine_tuning}/seed{seed}",
            fine_tuning=CHAT_TUNINGS,
            seed=config["experiment_seeds"],
        ),
    output:
        table="<results>/tables/conversational.csv",
        curves="<results>/tables/conversational_curves.csv",
        examples="<results>/tables/conversational_examples.csv",
    log:
        "<logs>/evaluate_conversational.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("conversational", "experiment_seeds", fine_tunings=CHAT_TUNINGS),
    script:
        "../../../scripts/evaluate.py"
