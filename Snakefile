# Macondo: from raw text to every table and figure of the papers on kNN language models.
# The table of contents: `snakemake --list-rules`. Settings: config.yaml. Machines: profiles/.


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/corpora.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/macondo.smk"
include: "workflow/rules/evaluations.smk"
include: "workflow/rules/machine.smk"


pathvars:
    results=f"results/{config['run']}",
    logs=f"results/{config['run']}/logs",
    benchmarks=f"results/{config['run']}/benchmarks",


include: "workflow/rules/plan.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/lm.smk"
include: "workflow/rules/datastore.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/train_distributions.smk"


for experiment in EXPERIMENTS:

    include: f"workflow/experiments/{experiment}/rules.smk"


include: "workflow/rules/figures.smk"
include: "workflow/rules/explorer.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/integrity.smk"


rule all:
    """The experiments, what they cost, where they ran, and the report on them."""
    default_target: True
    input:
        rules.checksums.input,
        rules.checksums.output,
    localrule: True
