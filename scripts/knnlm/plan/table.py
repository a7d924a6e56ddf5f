"""`snakemake plan`: what a run will cost, before anything is computed.

Jobs and their order are those of Snakemake's dry run; what a job needs is `plan_needs`; rates are
those of this machine, measured beforehand, and of the machines in data/hardware.yaml.
"""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from knnlm.plan.dag import Job, in_order, predecessors
from knnlm.plan.needs import Config, Need
from knnlm.plan.resources import gpus_of, need_of, seconds_of, threads_of
from knnlm.plan.work import Machine
from knnlm.runtime.artifacts import atomic_path

GB, HOUR = 1e9, 3600.0
COUNTED = ("jobs", "disk_gb", "moved_gb", "flops")  # of all jobs of a rule
LARGEST = ("gpu", "threads", "memory_gb", "gpu_memory_gb")  # of one


@dataclass(frozen=True)
class Cluster:
    """Some nodes of one kind."""

    nodes: int
    machine: Machine

    @property
    def name(self) -> str:
        """The name of the machine, with the number of nodes if there are several."""
        return self.machine.name if self.nodes == 1 else f"{self.nodes} x {self.machine.name}"

    @property
    def gpus(self) -> int:
        """The GPUs of all nodes."""
        return self.nodes * self.machine.gpus


def clusters(names: str, machines: Mapping[str, Machine]) -> list[Cluster]:
    """Return the hardware of a text such as "this, h200, 8 x h200".

    Raises:
        ValueError: if a machine is unknown.
    """
    found = []
    for entry in names.split(","):
        count, _, name = entry.strip().rpartition(" x ")
        if name not in machines:
            raise ValueError(
                f"expected hardware among {', '.join(machines)}, got {name}; describe it in "
                "data/hardware.yaml"
            )
        found.append(Cluster(int(count or 1), machines[name]))
    return found


@dataclass(frozen=True)
class Plan:
    """Jobs, what each needs, and the hardware it is planned for."""

    config: Config
    jobs: Sequence[Job]
    hardware: Sequence[Cluster]
    asked: Mapping[str, int] = field(default_factory=dict)  # GPUs of a job of a rule, if several

    @cached_property
    def needs(self) -> list[Need]:
        """What each job needs."""
        return [need_of(self.config, job.rule, job.wildcards) for job in self.jobs]

    def memory(self, need: Need) -> float:
        """Return the bytes of the process of a job."""
        return need.process_memory(on_gpu=need.on_gpu(self.config))

    def seconds(self, cluster: Cluster) -> list[float]:
        """Return the estimated seconds of each job, with no more GPUs than there are."""
        return [
            seconds_of(self.config, need, cluster.machine, gpus=self._share(job, cluster))
            for job, need in zip(self.jobs, self.needs, strict=True)
        ]

    def _share(self, job: Job, cluster: Cluster) -> int:
        return max(1, min(self.asked.get(job.rule, 1), cluster.gpus))

    @cached_property
    def gpus(self) -> list[int]:
        """The GPUs of each job."""
        return [
            gpus_of(self.config, need, self.asked.get(job.rule, 1))
            for job, need in zip(self.jobs, self.needs, strict=True)
        ]

    def table(self) -> pd.DataFrame:
        """Return a row for each rule, in the order of the DAG, and a total.

        Columns: rule; jobs, disk_gb (of outputs), moved_gb and flops of all of them; gpu,
        threads, memory_gb and gpu_memory_gb (of one GPU) of the largest; and for each kind of
        hardware hours
        (all jobs, one after the other) and longest_hours (of one).
        """
        jobs = [self._row(number) for number in range(len(self.jobs))]
        table = pd.DataFrame(jobs, columns=["rule", *COUNTED, *LARGEST])
        how = dict.fromkeys(COUNTED, "sum") | dict.fromkeys(LARGEST, "max")
        for cluster in self._kinds():
            hours = [seconds / HOUR for seconds in self.seconds(cluster)]
            name = cluster.name
            table[f"hours_{name}"] = table[f"longest_hours_{name}"] = hours
            how |= {f"hours_{name}": "sum", f"longest_hours_{name}": "max"}
        grouped = table.groupby("rule", sort=False).agg(how).reset_index()
        total = grouped.agg(how).to_dict() | {"rule": "total"}
        joined = pd.concat([grouped, pd.DataFrame([total])], ignore_index=True)
        return joined.astype(dict.fromkeys(("jobs", "gpu", "threads"), "int64"))

    def _kinds(self) -> list[Cluster]:
        """Return the hardware on which a job takes different times: more nodes alone do not."""
        most = max(self.asked.values(), default=1)
        kinds: dict[tuple[str, int], Cluster] = {}
        for cluster in self.hardware:
            kinds.setdefault((cluster.machine.name, min(most, cluster.gpus)), cluster)
        return list(kinds.values())

    def _row(self, number: int) -> dict[str, Any]:
        job, need, gpus = self.jobs[number], self.needs[number], self.gpus[number]
        work = need.work
        return {
            "rule": job.rule,
            "jobs": 1,
            "disk_gb": need.disk / GB,
            "moved_gb": (work.moved + work.read + work.written) / GB,
            "flops": work.flops,
            "gpu": gpus,
            "threads": threads_of(self.config, need),
            "memory_gb": self.memory(need) / GB,
            "gpu_memory_gb": need.device / GB if gpus else 0.0,
        }

    def critical_path(self, cluster: Cluster) -> tuple[float, list[str]]:
        """Return the seconds of the longest chain of jobs, and their names, first to last."""
        before, seconds = predecessors(self.jobs), self.seconds(cluster)
        ends: dict[int, float] = {}
        last: dict[int, int | None] = {}
        for number in in_order(before):
            previous = max(before[number], key=lambda one: ends[one], default=None)
            last[number] = previous
            ends[number] = seconds[number] + (ends[previous] if previous is not None else 0.0)
        number = max(ends, key=lambda one: ends[one])
        chain, longest = [], ends[number]
        while number is not None:
            chain.append(self.jobs[number].name)
            number = last[number]
        return longest, chain[::-1]

    def wall_seconds(self, cluster: Cluster) -> float:
        """Return when the last job ends if each starts as soon as cores and GPUs are free.

        Jobs that most seconds wait for come first. Nodes of a cluster count as one machine with
        all their cores and GPUs, so that fragments are not counted.
        """
        before, seconds = predecessors(self.jobs), self.seconds(cluster)
        order = in_order(before)
        after: dict[int, list[int]] = {number: [] for number in order}
        for number, earlier in enumerate(before):
            for one in earlier:
                after[one].append(number)
        rest: dict[int, float] = {}
        for number in reversed(order):
            rest[number] = seconds[number] + max((rest[n] for n in after[number]), default=0.0)
        asks = [self._asks(number, cluster) for number in range(len(before))]
        free = [cluster.nodes * cluster.machine.cores, cluster.gpus]
        waiting = {number: len(earlier) for number, earlier in enumerate(before)}
        ready = sorted(number for number, count in waiting.items() if not count)
        running: list[tuple[float, int]] = []
        now = 0.0
        while ready or running:
            for number in sorted(ready, key=lambda one: -rest[one]):
                if all(asks[number][kind] <= free[kind] for kind in (0, 1)):
                    free = [f - a for f, a in zip(free, asks[number], strict=True)]
                    heapq.heappush(running, (now + seconds[number], number))
                    ready.remove(number)
            now, done = heapq.heappop(running)
            free = [f + a for f, a in zip(free, asks[done], strict=True)]
            for number in after[done]:
                waiting[number] -= 1
                if not waiting[number]:
                    ready.append(number)
        return now

    def _asks(self, number: int, cluster: Cluster) -> tuple[int, int]:
        """Return cores and GPUs of a job, no more than there are."""
        threads = min(threads_of(self.config, self.needs[number]), cluster.machine.cores)
        return threads, min(self.gpus[number], cluster.gpus)


def write_plan(path: Path, table: pd.DataFrame) -> None:
    """Write the table as CSV, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")


def read_machines(this: Path, others: Path) -> dict[str, Machine]:
    """Return the machines by name: "this", as measured, and those of data/hardware.yaml."""
    blocks: dict[str, Any] = {"this": json.loads(this.read_text(encoding="utf-8"))}
    blocks |= yaml.safe_load(others.read_text(encoding="utf-8"))
    return {name: Machine.of(name, block) for name, block in blocks.items()}
