# What the chosen executor needs of this machine, checked before the first job. No rules.

import shutil

from snakemake.exceptions import WorkflowError


onstart:
    require_scheduler(workflow.executor_plugin.name)


def require_scheduler(executor):
    """Stop before the first job if it could not be submitted; Snakemake would hang or guess."""
    if executor == "slurm" and not shutil.which("sbatch"):
        raise WorkflowError(
            "executor slurm needs sbatch, but there is none on PATH; log in to a machine of the "
            "cluster, load its SLURM module, or run without --profile profiles/slurm"
        )
