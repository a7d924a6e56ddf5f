"""Several processes for one job: a script that starts itself again through `accelerate launch`.

How many is a matter of the machine, so it is told by the job's resources, which profiles set;
what they compute is the same up to the order of sums. Standard library only.
"""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Beside this module, so that no configuration in a user's home shapes a training.
CONFIGURATION = Path(__file__).with_name("launch_accelerate.yaml")


def is_launched() -> bool:
    """Return whether this process is one of several that `share` has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def share(resources: Mapping[str, Any]) -> None:
    """Replace this process by as many of the same script as its job has GPUs.

    Returns at once in each of those, and if there is to be but one. On several nodes of a SLURM
    job, each runs its part. Signals and the exit status pass through, for nothing stays behind.

    Args:
        resources: of the job: `gpu`, all in all, and `nodes`; or `processes` where there are no
            GPUs or SLURM wants them told as `gres` for each node.

    Raises:
        ValueError: if the nodes cannot share the processes evenly.
    """
    processes = resources.get("processes") or resources.get("gpu") or 1
    nodes = resources.get("nodes") or 1
    if processes == 1 or is_launched():
        return
    if processes % nodes:
        raise ValueError(
            f"expected a number of processes that {nodes} nodes can share evenly, got {processes}; "
            "change gpu, processes or nodes in the profile"
        )
    command = launch_command(sys.argv[0], processes=processes, nodes=nodes)
    # SLURM told this step about itself; the steps on all nodes are another matter.
    kept = ("SLURM_CONF", "SLURM_JOB_ID")
    environment = {k: v for k, v in os.environ.items() if k in kept or not k.startswith("SLURM_")}
    if not (resources.get("gpu") or resources.get("gres")):
        environment["ACCELERATE_USE_CPU"] = "true"  # else each process would train on its own
    os.execvpe(command[0], command, environment)


def launch_command(script: str, *, processes: int, nodes: int) -> list[str]:
    """Return the command that starts a script in several processes, also on several nodes."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        f"--config_file={CONFIGURATION}",
        f"--num_processes={processes}",
        f"--num_machines={nodes}",
        f"--main_process_ip={socket.gethostname() if nodes > 1 else '127.0.0.1'}",
        f"--main_process_port={port}",
    ]
    if nodes == 1:
        return [*launch, script]
    steps = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    # This node is the first one of the job, where SLURM_NODEID is 0.
    in_each = 'exec "$@" --machine_rank="$SLURM_NODEID" "$0"'
    return [*steps, "sh", "-c", in_each, script, *launch]
