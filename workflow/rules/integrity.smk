# Is everything still what was written? docs/recovery.md.


rule checksums:
    """Record the checksums of tables, figures and report, when all else is done."""
    input:
        rules.report.input,
        rules.report.output,
    output:
        record="<results>/tables/checksums.json",
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
        results=f"results/{config['run']}",
    script:
        "../../scripts/verify.py"
