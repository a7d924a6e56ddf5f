# Whether the tables say what the papers say: their claims, and the numbers that they print.

# The experiment that makes each table; one that costs money counts only where it has run.
TABLES = {
    Path(file).stem: name
    for name in EXPERIMENTS
    for file in getattr(rules, name).input
    if file.endswith(".csv")
}
COUNTED_EXPERIMENTS = [
    name
    for name, one in EXPERIMENTS.items()
    if name in config["experiments"]
    or (one.costs_money and Path(f"{RESULTS}/tables/{name}.csv").is_file())
]
TABLES_OF_RUN = [
    f"<results>/tables/{table}.csv" for table, name in TABLES.items() if name in COUNTED_EXPERIMENTS
]


rule claims:
    """Hold what the papers claim against the tables: holds, does not hold, undecided, not run."""
    input:
        claims=files_of_experiments("claims.yaml"),
        settings="<results>/tables/settings.json",
        tables=TABLES_OF_RUN,
    output:
        claims="<results>/tables/claims.csv",
    log:
        "<logs>/claims.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/evaluate_claims.py", experiments=lambda wildcards: TABLES),
        threads=1,
        experiments=TABLES,
    script:
        "../../scripts/evaluate_claims.py"


rule comparison:
    """Put what the papers print beside what this run measured."""
    input:
        published="data/published.csv",
        settings="<results>/tables/settings.json",
        tables=TABLES_OF_RUN,
    output:
        comparison="<results>/tables/comparison.csv",
    log:
        "<logs>/comparison.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/compare_published.py", experiments=lambda wildcards: TABLES
        ),
        threads=1,
        experiments=TABLES,
    script:
        "../../scripts/compare_published.py"
