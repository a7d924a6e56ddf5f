# What the machine must have, and what each job asks a scheduler for: docs/scaling.md. No rules.

import shutil

from knnlm.plan.resources import resources as resources_of

HARDWARE = read_yaml(ROOT / "data/hardware.yaml")
OF_PROFILE = workflow.resource_settings.overwrite_resources
LIMITS = OF_PROFILE.get("plan", {})
LONGEST_JOB = LIMITS["limit_runtime"].value if "limit_runtime" in LIMITS else None
# On several nodes SLURM wants GPUs as `gres` of each, and their number in all is `processes`.
COUNTED = {name: "processes" if "gres" in one else "gpu" for name, one in OF_PROFILE.items()}
GPUS_ASKED = {
    name: OF_PROFILE[name][by].value for name, by in COUNTED.items() if by in OF_PROFILE[name]
}
# mem_mb, runtime, disk_mb and gpu of any rule, as functions of the config and the attempt.
HARDWARE_KIND = "cpu" if config["scale"] == "cpu" else "h100"
NEEDS = resources_of(config, HARDWARE[HARDWARE_KIND], longest=LONGEST_JOB, gpus=GPUS_ASKED)
# Where a profile groups figures, the evaluation that each is drawn from joins it.
GROUPS = workflow.group_settings.overwrite_groups
if "plot" in GROUPS:
    GROUPS.update({f"evaluate_{name}": GROUPS["plot"] for name in EXPERIMENTS})


onstart:
    require_scheduler(workflow.executor_plugin.name)


def require_scheduler(executor):
    """Stop before the first job if it could not be submitted; Snakemake would hang or guess."""
    if executor == "slurm" and not shutil.which("sbatch"):
        raise WorkflowError(
            "executor slurm needs sbatch, but there is none on PATH; log in to a machine of the "
            "cluster, load its SLURM module, or run without --profile profiles/slurm"
        )
