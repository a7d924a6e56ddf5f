# Is everything still what was written? And what runs may share: docs/recovery.md.

# Snakemake refuses to time a rule whose result may come from a cache. It has no other way to drop a
# benchmark; tests/e2e/test_integrity.py would tell of a change.
for shared in workflow.rules if SHARED else []:
    if shared.name in (
        "train_tokenizer",
        "train_language_model",
        "build_datastore_part",
        "train_index",
        "encode_index_part",
    ):
        shared._benchmark = None


rule checksums:
    """Record the checksum of every file of the run, when all else is done."""
    input:
        rules.report.input,
        rules.report.output,
        rules.explorer.output if "knn_perplexity" in config["experiments"] else [],
    output:
        record="<results>/checksums.sha256",
    log:
        "<logs>/checksums.log",
    localrule: True
    conda:
        CONDA
    params:
        fingerprint=fingerprint("scripts/record_checksums.py"),
        threads=1,
    script:
        "../../scripts/record_checksums.py"


rule verify:
    """Is every byte of this run what was written? Says what to rebuild; needs nothing, runs always."""
    log:
        "<logs>/verify.log",
    localrule: True
    conda:
        CONDA
    params:
        fingerprint=fingerprint("scripts/verify.py"),
        threads=1,
        results=RESULTS,
    script:
        "../../scripts/verify.py"
