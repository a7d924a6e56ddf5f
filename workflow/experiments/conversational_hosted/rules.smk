# The experiment `conversational` on a hosted model. Runs only when asked for by name, sends and
# pays only if conversational_hosted.confirm is true: docs/hosted.md.

HOSTED = config["conversational_hosted"]
HOSTED_TOWNS = expand("<results>/macondo_conv/seed{seed}", seed=config["experiment_seeds"])


rule conversational_hosted:
    """Does a hosted chat model generalize from over-specified questions? Costs money.

    Exhibits: Chiang et al. (2024), Figure 2.
    """
    input:
        "<results>/tables/conversational_hosted.csv",
        "<results>/tables/conversational_hosted_curves.csv",
        "<results>/figures/conversational_hosted.svg",
        "<results>/figures/conversational_hosted.png",
    localrule: True


rule plan_hosted:
    """Count the examples and tokens that a hosted fine-tuning would send; send nothing."""
    input:
        conversations=HOSTED_TOWNS,
    output:
        plan="<results>/tables/conversational_hosted_plan.csv",
    log:
        "<logs>/plan_hosted.log",
    localrule: True
    conda:
        CONDA
    params:
        fingerprint=fingerprint(
            "scripts/plan_hosted.py", conversational_hosted=True, experiment_seeds=True
        ),
        threads=1,
        settings=HOSTED,
        seeds=config["experiment_seeds"],
    script:
        "../../../scripts/plan_hosted.py"


rule finetune_hosted:
    """Fine-tune a hosted model and ask it the test questions; go on where a killed run was."""
    input:
        plan="<results>/tables/conversational_hosted_plan.csv",
        conversations="<results>/macondo_conv/seed{seed}",
    output:
        fine_tuned=directory("<results>/conversational_hosted/{trained_on}/seed{seed}"),
    log:
        "<logs>/finetune_hosted/{trained_on}/seed{seed}.log",
    wildcard_constraints:
        trained_on="train|test",
    localrule: True
    conda:
        CONDA
    params:
        fingerprint=fingerprint("scripts/finetune_hosted.py", conversational_hosted=True),
        threads=1,
        settings=HOSTED,
    script:
        "../../../scripts/finetune_hosted.py"


rule evaluate_conversational_hosted:
    """Collect what the service measured, and its answers, in tables like those of local models."""
    input:
        conversations=HOSTED_TOWNS,
        fine_tuned=expand(
            "<results>/conversational_hosted/{trained_on}/seed{seed}",
            trained_on=["train", "test"],
            seed=config["experiment_seeds"],
        ),
    output:
        table="<results>/tables/conversational_hosted.csv",
        curves="<results>/tables/conversational_hosted_curves.csv",
    log:
        "<logs>/evaluate_conversational_hosted.log",
    localrule: True
    conda:
        CONDA
    params:
        **evaluation("conversational_hosted", "experiment_seeds"),
    script:
        "../../../scripts/evaluate.py"
