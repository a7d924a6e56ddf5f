# Trained LM -> datastore -> index -> neighbors, found once and scored ever after.


rule build_datastore:
    """Save one key and one value for each token of the train split, in shards.

    A key is the hidden state before the token, its value is the token: 2 bytes x width x tokens
    on disk, some 310 GB for the 153 million tokens of WikiText-103 in 33K BPE.
    """
    input:
        model=model_of_datastore,
        tokens=f"<results>/corpora/{config['corpus']}/tokens",
    output:
        datastore=directory("<results>/datastores/{datastore}/seed{seed}"),
    log:
        "<logs>/build_datastore/{datastore}/seed{seed}.log",
    benchmark:
        "<benchmarks>/build_datastore/{datastore}/seed{seed}.tsv"
    cache: SHARED
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/build_datastore.py", threads="encode", datastores="datastore"
        ),
        threads=config["threads"]["encode"],
        datastore=lookup(dpath="datastores/{datastore}", within=config),
    script:
        "../../scripts/build_datastore.py"


rule build_index:
    """Train a search index on sampled keys and add every shard to it; exact search needs none."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
    output:
        index=directory("<results>/indexes/{datastore}/seed{seed}/{index}"),
    log:
        "<logs>/build_index/{datastore}/seed{seed}/{index}.log",
    benchmark:
        "<benchmarks>/build_index/{datastore}/seed{seed}/{index}.tsv"
    cache: SHARED
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_index.py", threads="search", indexes="index"),
        threads=config["threads"]["search"],
        index=lookup(dpath="indexes/{index}", within=config),
    script:
        "../../scripts/build_index.py"


rule search_neighbors:
    """Find the k nearest keys of every query, once; k, temperature and lmbda are scored later."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        index="<results>/indexes/{datastore}/seed{seed}/{index}",
        queries=queries_of_datastore,
    output:
        neighbors=directory("<results>/neighbors/{datastore}/seed{seed}/{index}/{split}"),
    log:
        "<logs>/search_neighbors/{datastore}/seed{seed}/{index}/{split}.log",
    benchmark:
        "<benchmarks>/search_neighbors/{datastore}/seed{seed}/{index}/{split}.tsv"
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/search_neighbors.py",
            threads="search",
            search=True,
        ),
        threads=config["threads"]["search"],
        search=config["search"],
    script:
        "../../scripts/search_neighbors.py"
