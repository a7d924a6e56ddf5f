# Trained LM -> datastore: parts are made side by side, then joined by links.


rule build_datastore_part:
    """Save one key and one value for each token of a part of the train split, in shards.

    A key is the hidden state before the token, its value is the token: 2 bytes x width x tokens
    on disk over all parts, some 310 GB for the 153 million tokens of WikiText-103 in 33K BPE.
    """
    input:
        model=model_of_datastore,
        tokens=tokens_of_datastore,
    output:
        part=temp(directory("<results>/parts/datastores/{datastore}/seed{seed}/part{part}")),
    log:
        "<logs>/build_datastore_part/{datastore}/seed{seed}/part{part}.log",
    benchmark:
        "<benchmarks>/build_datastore_part/{datastore}/seed{seed}/part{part}.tsv"
    cache: SHARED
    conda:
        CONDA
    threads: config["threads"]["encode"]
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint(
            "scripts/build_datastore_part.py", threads="encode", datastores="datastore"
        ),
        threads=config["threads"]["encode"],
        datastore=lookup(dpath="datastores/{datastore}", within=config),
    script:
        "../../scripts/build_datastore_part.py"


rule build_datastore:
    """Give the parts of a datastore one name: files are linked, not copied."""
    input:
        parts=every_part("datastores/{datastore}/seed{seed}"),
    output:
        datastore=directory("<results>/datastores/{datastore}/seed{seed}"),
    log:
        "<logs>/build_datastore/{datastore}/seed{seed}.log",
    localrule: True
    conda:
        CONDA
    resources:
        **NEEDS,
    params:
        fingerprint=fingerprint("scripts/build_datastore.py"),
        threads=1,
    script:
        "../../scripts/build_datastore.py"
