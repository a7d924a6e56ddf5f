# What a reader needs to trust a number: where it was computed, what it cost, and the report.

NOT_RUN = {
    name: (
        "it sends data to a paid service, so it runs only when it is asked for by name"
        if one.costs_money
        else "the settings of this run leave it out"
    )
    for name, one in EXPERIMENTS.items()
    if name not in COUNTED_EXPERIMENTS
}
RECORDED = [f"docs/measurements/claims.{kind}" for kind in ("csv", "json")]  # of earlier runs
QUESTIONS = {name: workflow.get_rule(name).docstring for name in EXPERIMENTS}


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
        benchmarks=f"{RESULTS}/benchmarks",
        counted_for=counted_for,
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
        captions=files_of_experiments("caption.rst"),
        headlines=files_of_experiments("headlines.yaml"),
        recorded=[file for file in RECORDED if Path(file).is_file()],
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
            questions=lambda wildcards: QUESTIONS,
            experiments=lambda wildcards: TABLES,
            not_run=lambda wildcards: NOT_RUN,
            report=True,
        ),
        threads=1,
        questions=lambda wildcards: QUESTIONS,
        experiments=lambda wildcards: TABLES,
        not_run=lambda wildcards: NOT_RUN,
        settings=config["report"],
    script:
        "../../scripts/write_report.py"


onsuccess:
    from knnlm.evidence.verdict import print_verdicts

    if any(job.rule.name == "claims" for job in workflow.dag.jobs):
        print_verdicts(Path(f"{RESULTS}/tables/claims.csv"))
    print(f"Tables: {RESULTS}/tables  Figures: {RESULTS}/figures")
    print(f"Report: {RESULTS}/report/index.html")
