# Macondo: from raw text to every table and figure of the papers on kNN language models.
# The table of contents: `snakemake --list-rules`. Settings: config.yaml. Machines: profiles/.


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/machine.smk"
include: "workflow/rules/macondo.smk"


pathvars:
    results=f"results/{config['run']}",
    logs=f"results/{config['run']}/logs",
    benchmarks=f"results/{config['run']}/benchmarks",


include: "workflow/rules/plan.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/lm.smk"
include: "workflow/rules/parts.smk"
include: "workflow/rules/datastore.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/search.smk"
include: "workflow/experiments/knn_perplexity.smk"
include: "workflow/experiments/softmax_bottleneck.smk"
include: "workflow/experiments/overspecification.smk"
include: "workflow/experiments/mlp_augmentation.smk"
include: "workflow/experiments/mlp_hurdle.smk"
include: "workflow/experiments/conversational.smk"
include: "workflow/rules/hosted.smk"


rule experiments:
    """Every table and figure of the experiments that the settings name."""
    input:
        [getattr(rules, name).input for name in config["experiments"]],
    localrule: True


include: "workflow/rules/claims.smk"
include: "workflow/rules/explorer.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/integrity.smk"


rule all:
    """The experiments, what they cost, where they ran, and the report on them."""
    default_target: True
    input:
        rules.checksums.input,
        rules.checksums.output,
    localrule: True
