# Queries -> neighbors, found once and scored ever after: every part is searched, then merged.


rule search_part:
    """Find the k nearest keys of every query in a part of the datastore."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        index="<results>/indexes/{datastore}/seed{seed}/{index}",
        queries=queries_of_datastore,
    output:
        part=temp(
            directory(
                "<results>/parts/neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}"
            )
        ),
    log:
        "<logs>/search_part/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}.log",
    benchmark:
        "<benchmarks>/search_part/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}.tsv"
    wildcard_constraints:
        index=names_in("indexes", engine=["exact", *INVERTED_FILES]),
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/search_part.py",
            threads="search",
            search=True,
            datastores="datastore",
        ),
        threads=config["threads"]["search"],
        search=config["search"],
        parts=lookup(dpath="datastores/{datastore}/parts", within=config),
        queries=lookup(dpath="datastores/{datastore}/queries", within=config),
    script:
        "../../scripts/search_part.py"


rule search_fused_part:
    """Encode a part of the train split block by block, and keep the k nearest keys, not the keys.

    Exact neighbors without a datastore on disk; the encoding is paid for every split again.
    """
    input:
        model=model_of_datastore,
        tokens=tokens_of_datastore,
        index="<results>/indexes/{datastore}/seed{seed}/{index}",
        queries=queries_of_datastore,
    output:
        part=temp(
            directory(
                "<results>/parts/neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}"
            )
        ),
    log:
        "<logs>/search_fused_part/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}.log",
    benchmark:
        "<benchmarks>/search_fused_part/{datastore}/seed{seed}/{index}/{corpus}/{split}/part{part}.tsv"
    wildcard_constraints:
        index=names_in("indexes", engine=["fused"]),
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/search_fused_part.py",
            threads="search",
            search=True,
            datastores="datastore",
            indexes="index",
        ),
        threads=config["threads"]["search"],
        datastore=lookup(dpath="datastores/{datastore}", within=config),
        search=config["search"],
    script:
        "../../scripts/search_fused_part.py"


rule search_neighbors:
    """Merge the neighbors found in all parts; k, temperature and lmbda are scored later."""
    input:
        parts=every_part("neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}"),
    output:
        neighbors=directory("<results>/neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}"),
    log:
        "<logs>/search_neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}.log",
    benchmark:
        "<benchmarks>/search_neighbors/{datastore}/seed{seed}/{index}/{corpus}/{split}.tsv"
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/search_neighbors.py"),
        threads=1,
    script:
        "../../scripts/search_neighbors.py"


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
        search=SEARCH_OF_TRAIN,
        windows=windows_that_ask,
    script:
        "../../scripts/find_train_distributions.py"
