# Macondo: from raw text to every table and figure of the papers on kNN language models.
# The table of contents: `snakemake --list-rules`. Settings: config.yaml. Machines: profiles/.


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/machine.smk"


pathvars:
    results=f"results/{config['run']}",
    logs=f"results/{config['run']}/logs",
    benchmarks=f"results/{config['run']}/benchmarks",


include: "workflow/rules/text.smk"
include: "workflow/rules/lm.smk"
include: "workflow/rules/retrieval.smk"
include: "workflow/experiments/knn_perplexity.smk"
include: "workflow/experiments/softmax_bottleneck.smk"
include: "workflow/experiments/overspecification.smk"
include: "workflow/experiments/mlp_augmentation.smk"
include: "workflow/experiments/mlp_hurdle.smk"
include: "workflow/experiments/conversational.smk"
include: "workflow/rules/hosted.smk"


rule experiments:
    """Every table and figure of every experiment."""
    input:
        rules.knn_perplexity.input,
        rules.softmax_bottleneck.input,
        rules.overspecification.input,
        rules.mlp_augmentation.input,
        rules.mlp_hurdle.input,
        rules.conversational.input,
    localrule: True


include: "workflow/rules/evidence.smk"


rule all:
    """The experiments, what they cost and where they ran."""
    default_target: True
    input:
        rules.experiments.input,
        rules.environment.output,
        rules.settings.output,
        rules.cost.output,
    localrule: True


onsuccess:
    print(f"Tables: results/{config['run']}/tables  Figures: results/{config['run']}/figures")
