# What a reader needs to trust a number: where it was computed, and what it cost.


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
    params:
        fingerprint=fingerprint("scripts/collect_costs.py"),
        threads=1,
        benchmarks=f"results/{config['run']}/benchmarks",
    script:
        "../../scripts/collect_costs.py"
