# What each job asks a scheduler for, and what a run will cost, from one model: docs/scaling.md.

import sys

sys.path.insert(0, str(ROOT / "scripts"))  # the model is several modules of the library

from knnlm.plan.resources import resources as resources_of
from knnlm.plan.work import Machine

HARDWARE = yaml.safe_load((ROOT / "data/hardware.yaml").read_text())
HARDWARE_OF_SCALE = Machine.of("", HARDWARE["node" if config["scale"] == "cpu" else "h100"])
OF_PROFILE = workflow.resource_settings.overwrite_resources
LIMITS = OF_PROFILE.get("plan", {})
LONGEST_JOB = LIMITS["limit_runtime"].value if "limit_runtime" in LIMITS else None
# On several nodes SLURM wants GPUs as `gres` of each, and their number in all is `processes`.
COUNTED = {name: "processes" if "gres" in one else "gpu" for name, one in OF_PROFILE.items()}
GPUS_ASKED = {
    name: OF_PROFILE[name][by].value for name, by in COUNTED.items() if by in OF_PROFILE[name]
}
# mem_mb, runtime, disk_mb and gpu of any rule, as functions of the config and the attempt.
NEEDS = resources_of(config, HARDWARE_OF_SCALE, longest=LONGEST_JOB, gpus=GPUS_ASKED)
PLANNED_ON = {"cpu": "this, node", "gpu": "this, h100, h200", "paper": "h200, h200x8, 8 x h200x8"}


rule measure_machine:
    """Measure the rates of this machine in half a minute; nothing of the workflow is run."""
    output:
        machine="results/machine.json",
    log:
        "<logs>/measure_machine.log",
    localrule: True
    conda:
        CONDA
    params:
        fingerprint=fingerprint("scripts/measure_machine.py"),
        threads=1,
    script:
        "../../scripts/measure_machine.py"


rule plan:
    """What will a run cost? Jobs, bytes, FLOPs and hours of every rule, and what exceeds limits.

    Needs no results, and has no output so that it always runs; writes <results>/tables/plan.csv.
    A profile may set the resources: hardware, limit_mem_mb, limit_disk_mb (of the whole run),
    limit_runtime (minutes of a job) and limit_gpu.
    """
    input:
        this="results/machine.json",
        others=str(ROOT / "data/hardware.yaml"),
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        CONDA
    resources:
        hardware=PLANNED_ON[config["scale"]],
    params:
        fingerprint=fingerprint("scripts/plan.py", **{block: True for block in config}),
        threads=1,
        plan=f"results/{config['run']}/tables/plan.csv",
        snakefile=str(ROOT / "Snakefile"),
        config=config,
        asked=GPUS_ASKED,
        target="all",
    script:
        "../../scripts/plan.py"
