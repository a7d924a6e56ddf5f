# What a run will cost, from the same functions that tell each job's resources: docs/scaling.md.


rule plan:
    """What will a run cost? Jobs, memory, bytes and minutes of every rule, and what exceeds limits.

    Needs no results, and has no output so that it always runs; writes <results>/tables/plan.csv.
    A profile may set the resources: hardware (of data/hardware.yaml), limit_mem_mb, limit_disk_mb
    (of the whole run), limit_runtime (minutes of a job), limit_gpu and limit_gpu_mb.
    """
    input:
        hardware=str(ROOT / "data/hardware.yaml"),
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        CONDA
    resources:
        hardware=HARDWARE_KIND,
    params:
        fingerprint=fingerprint("scripts/plan.py", **{block: True for block in config}),
        threads=1,
        plan=f"{RESULTS}/tables/plan.csv",
        snakefile=str(ROOT / "Snakefile"),
        config=config,
        asked=GPUS_ASKED,
    script:
        "../../scripts/plan.py"
