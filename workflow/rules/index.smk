# Datastore -> index: trained once, then every part is encoded side by side, then all is joined.


rule train_index:
    """Cluster a sample of keys, and train their codes; the index holds no key yet."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
    output:
        head=temp(directory("<results>/parts/indexes/{datastore}/seed{seed}/{index}/trained")),
    log:
        "<logs>/train_index/{datastore}/seed{seed}/{index}.log",
    benchmark:
        "<benchmarks>/train_index/{datastore}/seed{seed}/{index}.tsv"
    cache: SHARED
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/train_index.py", threads="search", indexes="index"),
        threads=config["threads"]["search"],
        index=lookup(dpath="indexes/{index}", within=config),
    script:
        "../../scripts/train_index.py"


rule encode_index_part:
    """Write the cluster and the code of every key of a part."""
    input:
        datastore="<results>/datastores/{datastore}/seed{seed}",
        head="<results>/parts/indexes/{datastore}/seed{seed}/{index}/trained",
    output:
        part=temp(directory("<results>/parts/indexes/{datastore}/seed{seed}/{index}/part{part}")),
    log:
        "<logs>/encode_index_part/{datastore}/seed{seed}/{index}/part{part}.log",
    benchmark:
        "<benchmarks>/encode_index_part/{datastore}/seed{seed}/{index}/part{part}.tsv"
    cache: SHARED
    conda:
        CONDA
    threads: config["threads"]["search"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/encode_index_part.py",
            threads="search",
            indexes="index",
            datastores="datastore",
        ),
        threads=config["threads"]["search"],
        parts=lookup(dpath="datastores/{datastore}/parts", within=config),
    script:
        "../../scripts/encode_index_part.py"


rule build_index:
    """Give the trained index and the codes of all parts one name; exact search has none of them."""
    input:
        datastore=datastore_of_index,
        head=with_index(trained_index),
        parts=with_index(every_part("indexes/{datastore}/seed{seed}/{index}")),
    output:
        index=directory("<results>/indexes/{datastore}/seed{seed}/{index}"),
    log:
        "<logs>/build_index/{datastore}/seed{seed}/{index}.log",
    localrule: True
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_index.py", indexes="index"),
        threads=1,
        index=lookup(dpath="indexes/{index}", within=config),
    script:
        "../../scripts/build_index.py"
