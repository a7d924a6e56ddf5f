"""A real SLURM on this machine: controller, nodes and munge on loopback, in one private folder.

Started as root it is root's, started by an ordinary user it is that user's; nothing outside the
folder is touched. The packages are Debian's slurmctld, slurmd, slurm-client and munge.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
NODES = ["node1", "node2"]  # the first one has a GPU
NEEDED = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol"]
# More CPUs than there are: jobs of the tests mostly wait for one another's starts.
CPUS, MEMORY_MB = 8, 64_000
CONFIGURATION = """\
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished.txt
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
MinJobAge=600
KillWait=3
ReturnToService=2
SlurmdTimeout=10
InactiveLimit=0
Waittime=0
NodeName=DEFAULT CPUs={cpus} RealMemory={memory}
NodeName=node1 NodeHostName=localhost NodeAddr=127.0.0.1 Port={ports[1]} Gres=gpu:1
NodeName=node2 NodeHostName=localhost NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=main Nodes=ALL Default=YES LLN=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
PartitionName=gpus Nodes=node1 LLN=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
"""


def missing_programs() -> list[str]:
    """Return what this machine lacks for a cluster of its own."""
    return [name for name in NEEDED if shutil.which(name, path=PATH) is None]


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment of a process, or none if it is gone or of another user."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


class SlurmCluster:
    """One controller and two nodes, from `start` to `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        # Snakemake's job step drops SLURM_CONF before it calls srun; ours puts it back.
        self.environment = {
            "PATH": os.pathsep.join([str(folder / "bin"), PATH]),
            "SLURM_CONF": str(self.configuration),
        }

    def start(self) -> None:
        """Start the daemons and wait until the nodes take jobs."""
        self._write_files()
        files = [
            f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")
        ]
        self.run("munged", "--force", f"--socket={self.folder}/munge.socket", *files)
        self.run("slurmctld", "-c", "-f", str(self.configuration))
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node, also again after the node was lost."""
        self.run("slurmd", "-N", node, "-f", str(self.configuration))
        self.wait_until(lambda: self.state_of(node) in ("idle", "mixed", "allocated"), node)

    def stop(self) -> None:
        """End every job and the daemons."""
        self.run("scancel", f"--user={getpass.getuser()}", check=False)
        for daemon in (*NODES, "slurmctld", "munge"):
            self.end(daemon)

    def end(self, daemon: str) -> None:
        """Ask a daemon to leave, and kill it if it is still there after some seconds."""
        file = self.folder / f"{daemon}.pid"
        if not file.exists():
            return
        pid = int(file.read_text())
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, sent)
                for _ in range(100):
                    os.kill(pid, 0)
                    time.sleep(0.05)
            except ProcessLookupError:
                return

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon and all that runs under it, as if its power went off."""
        daemon = psutil.Process(int((self.folder / f"{node}.pid").read_text()))
        log = str(self.folder / f"{node}.log")
        for process in [daemon, *psutil.process_iter()]:
            environment = environment_of(process)
            of_job = environment.get("SLURM_CONF") == str(self.configuration)
            step = process.name() == "slurmstepd" and log in [f.path for f in process.open_files()]
            if process == daemon or step or (of_job and environment.get("SLURMD_NODENAME") == node):
                process.kill()

    def state_of(self, node: str) -> str:
        """Return the state of a node in SLURM's words, such as idle or down*."""
        return self.run("sinfo", "-h", "--format=%T", f"--nodes={node}", check=False).strip()

    def jobs(self, form: str = "%i %k") -> list[str]:
        """Return a line for each job that waits or runs: its number and rule, or what is asked."""
        return self.run("squeue", "--noheader", f"--format={form}").splitlines()

    def wait_until(
        self, condition: Callable[[], bool], what: str, seconds: float = 60.0, every: float = 0.1
    ) -> None:
        """Wait for a condition; fail with the daemons' logs if it does not come true."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log"))]
                raise TimeoutError("\n".join([f"no {what} after {seconds} s", *logs]))
            time.sleep(every)

    def _write_files(self) -> None:
        for name in ("bin", "state", *NODES):
            (self.folder / name).mkdir()
        (self.folder / "gpu").symlink_to("/dev/null")  # SLURM wants a character device
        (self.folder / "gres.conf").write_text(f"NodeName=node1 Name=gpu File={self.folder}/gpu\n")
        settings = {"user": getpass.getuser(), "folder": self.folder, "ports": free_ports(3)}
        self.configuration.write_text(CONFIGURATION.format(cpus=CPUS, memory=MEMORY_MB, **settings))
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        srun = self.folder / "bin" / "srun"
        real = shutil.which("srun", path=PATH)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {real} "$@"\n')
        srun.chmod(0o755)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}"
        return done.stdout
