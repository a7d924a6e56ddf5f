# What a reader needs to trust a number: where it was computed, what it cost, and the report.

SWITCHED_OFF = [name for name in KNOWN_EXPERIMENTS if name not in config["experiments"]]
REPORTED = {
    "questions": {
        name: workflow.get_rule(name).docstring for name in [*config["experiments"], *SWITCHED_OFF]
    },
    "captions": {
        name: (ROOT / f"workflow/report/{name}.rst").read_text() for name in KNOWN_EXPERIMENTS
    },
}


rule environment:
    """Record versions, commit and processor of this run, when all else is done."""
    input:
        rules.experiments.input,
    output:
        environment="<results>/tables/environment.json",
    log:
        "<logs>/environment.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/record_environment.py", **{block: True for block in config}
        ),
        threads=1,
        config=config,
    script:
        "../../scripts/record_environment.py"


rule settings:
    """Record every setting of this run, scale and command line merged in."""
    output:
        settings="<results>/tables/settings.json",
    log:
        "<logs>/settings.log",
    localrule: True
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/record_settings.py", **{block: True for block in config}),
        threads=1,
        config=config,
    script:
        "../../scripts/record_settings.py"


rule cost:
    """Gather the time and memory of every job of this run."""
    input:
        rules.experiments.input,
    output:
        cost="<results>/tables/cost.csv",
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/collect_costs.py"),
        threads=1,
        benchmarks=f"results/{config['run']}/benchmarks",
    script:
        "../../scripts/collect_costs.py"


rule report:
    """Write the page that says what holds, from what and at what cost, and copy the tables to it."""
    input:
        rules.experiments.input,
        rules.environment.output,
        rules.settings.output,
        rules.cost.output,
        rules.claims.output,
        rules.comparison.output,
        rules.explorer_page.output if "knn_perplexity" in config["experiments"] else [],
    output:
        report="<results>/report/index.html",
        tables=directory("<results>/report/tables"),
    log:
        "<logs>/report.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/write_report.py",
            reported=lambda wildcards: REPORTED,
            experiments=True,
            report=True,
        ),
        threads=1,
        questions=lambda wildcards: REPORTED["questions"],
        captions=lambda wildcards: REPORTED["captions"],
        switched_off=SWITCHED_OFF,
        settings=config["report"],
    script:
        "../../scripts/write_report.py"


onsuccess:
    from scripts.knnlm.evidence.verdict import print_verdicts

    if any(job.rule.name == "claims" for job in workflow.dag.jobs):
        print_verdicts(Path(f"results/{config['run']}/tables/claims.csv"))
    print(f"Tables: results/{config['run']}/tables  Figures: results/{config['run']}/figures")
    print(f"Report: results/{config['run']}/report/index.html")
