# What a kNN-LM says of its own train text: LMs of other trainings learn from it.


rule find_train_distributions:
    """Find p_kNN of train positions among all others: what a kNN-LM teaches of its own text."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        tuned=f"<results>/tuned/{{datastore}}/seed{{seed}}/{BASELINE['index']}/{config['corpus']}.json",
    output:
        distributions=directory("<results>/train_distributions/{datastore}/seed{seed}"),
    log:
        "<logs>/find_train_distributions/{datastore}/seed{seed}.log",
    benchmark:
        "<benchmarks>/find_train_distributions/{datastore}/seed{seed}.tsv"
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/find_train_distributions.py",
            threads="search",
            search=True,
            windows=windows_that_ask,
        ),
        threads=config["threads"]["search"],
        search=config["search"] | config["train_distributions"],
        windows=windows_that_ask,
    script:
        "../../scripts/find_train_distributions.py"
