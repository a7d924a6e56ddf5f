# Does the last MLP slow memorization?

HURDLE = config["mlp_hurdle"]
HURDLE_TOWN = f"<results>/macondo/{HURDLE['macondo']['town']}/seed{{seed}}"
HURDLE_TOWN_SETTINGS = config["macondo"]["towns"][HURDLE["macondo"]["town"]]
HURDLE_TOKENIZER = HURDLE_TOWN_SETTINGS["tokenizer"]  # pretrained; null is the baseline's
HURDLE_SEEDS = config["experiment_seeds"]


rule mlp_hurdle:
    """Does the last MLP slow memorization?

    Exhibits: Chiang et al. (2024), Appendix E, Figures 4 and 5.
    """
    input:
        "<results>/tables/mlp_hurdle.csv",
        "<results>/tables/mlp_hurdle_curves.csv",
        "<results>/figures/mlp_hurdle.svg",
        "<results>/figures/mlp_hurdle.png",
    localrule: True


rule train_hurdle_macondo:
    """Train models with and without an MLP on Macondo's test sentences, scoring the names."""
    input:
        macondo=HURDLE_TOWN,
        tokenizer=[] if HURDLE_TOKENIZER else f"<results>/tokenizers/{BASE_TOKENIZER}",
    output:
        curves=directory("<results>/mlp_hurdle/macondo/seed{seed}"),
    log:
        "<logs>/train_hurdle_macondo/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_hurdle_macondo/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_hurdle_macondo.py",
            threads="fine_tune",
            mlp_hurdle=True,
            macondo=lambda wildcards: HURDLE_TOWN_SETTINGS,
        ),
        threads=config["threads"]["fine_tune"],
        tokenizer=HURDLE_TOKENIZER,
        shape=HURDLE["shape"],
        settings=HURDLE["macondo"],
    script:
        "../../../scripts/train_hurdle_macondo.py"


rule train_hurdle_text:
    """Train models with and without an MLP on text."""
    input:
        tokens=tokens_for(BASE_MODEL, config["corpus"]),
        tokenizer=f"<results>/tokenizers/{BASE_TOKENIZER}",
    output:
        curves=directory("<results>/mlp_hurdle/text/seed{seed}"),
    log:
        "<logs>/train_hurdle_text/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_hurdle_text/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["fine_tune"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/train_hurdle_text.py", threads="fine_tune", mlp_hurdle=True
        ),
        threads=config["threads"]["fine_tune"],
        shape=HURDLE["shape"],
        settings=HURDLE["text"],
    script:
        "../../../scripts/train_hurdle_text.py"


rule evaluate_mlp_hurdle:
    """Curves over updates, and differences of variants within each seed, with intervals."""
    input:
        macondo=expand(HURDLE_TOWN, seed=HURDLE_SEEDS),
        on_macondo=expand("<results>/mlp_hurdle/macondo/seed{seed}", seed=HURDLE_SEEDS),
        on_text=expand("<results>/mlp_hurdle/text/seed{seed}", seed=HURDLE_SEEDS),
    output:
        table="<results>/tables/mlp_hurdle.csv",
        curves="<results>/tables/mlp_hurdle_curves.csv",
    log:
        "<logs>/evaluate_mlp_hurdle.log",
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        **evaluation("mlp_hurdle", "experiment_seeds"),
    script:
        "../../../scripts/evaluate.py"
