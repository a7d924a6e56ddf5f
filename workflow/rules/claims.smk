# Whether the tables say what the papers say: their claims, and the numbers that they print.

# The experiment that makes each table; the hosted one runs only when it is asked for by name.
TABLES = {
    Path(file).stem: name
    for name in [*KNOWN_EXPERIMENTS, "conversational_hosted"]
    for file in getattr(rules, name).input
    if file.endswith(".csv")
}
HOSTED_RAN = Path(f"results/{config['run']}/tables/conversational_hosted.csv").is_file()
TABLES_OF_RUN = [
    f"<results>/tables/{table}.csv"
    for table, name in TABLES.items()
    if name in config["experiments"] or (name == "conversational_hosted" and HOSTED_RAN)
]


rule claims:
    """Hold what the papers claim against the tables: holds, does not hold, undecided, not run."""
    input:
        claims="data/claims.yaml",
        settings="<results>/tables/settings.json",
        tables=TABLES_OF_RUN,
    output:
        claims=report(
            "<results>/tables/claims.csv",
            caption="../report/claims.rst",
            category="verdict",
            labels={"shown": "table"},
        ),
    log:
        "<logs>/claims.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/evaluate_claims.py", experiments=True),
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
        comparison=report(
            "<results>/tables/comparison.csv",
            caption="../report/comparison.rst",
            category="verdict",
            labels={"shown": "table"},
        ),
    log:
        "<logs>/comparison.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/compare_published.py", experiments=True),
        threads=1,
        experiments=TABLES,
    script:
        "../../scripts/compare_published.py"
