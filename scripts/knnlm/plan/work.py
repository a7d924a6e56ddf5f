"""Work counted before it is done, and the seconds that a machine takes for it.

The estimate is analytic: what a job multiplies, moves, computes an exponential of, launches,
reads and writes, each over a rate that the machine was measured to have. Nothing here is fitted
to the times of a rule. Standard library only: the Snakefile imports this module, in every job.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

SMALLEST_SIDE = 16  # of a matrix product for which a rate is known
THREAD_EFFICIENCY = 0.8  # of a second thread, and of each further one: measured on two cores
GPU_EFFICIENCY = 0.9  # of a second GPU, and of each further one, that share updates: assumed


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a job does; the sum of two works is both, one after the other.

    Attributes:
        products: FLOPs of matrix products by their smallest side (a power of two); a
            multiplication and an addition are two.
        doubles: the same in float64.
        moved: bytes read from and written to memory outside of products.
        exponentials: values of exp, log or tanh.
        operations: tensor operations launched, however small.
        steps: interpreted Python steps.
        read: bytes read from disk.
        written: bytes written to disk.
        torch: whether the process imports torch; else NumPy and pandas at most.
    """

    products: Mapping[int, float] = field(default_factory=dict)
    doubles: float = 0.0
    moved: float = 0.0
    exponentials: float = 0.0
    operations: float = 0.0
    steps: float = 0.0
    read: float = 0.0
    written: float = 0.0
    torch: bool = False

    @property
    def flops(self) -> float:
        """FLOPs of all matrix products."""
        return sum(self.products.values()) + self.doubles

    def __add__(self, other: "Work") -> "Work":
        products = dict(self.products)
        for side, flops in other.products.items():
            products[side] = products.get(side, 0.0) + flops
        numbers = {n: getattr(self, n) + getattr(other, n) for n in NUMBERS}
        return Work(products=products, torch=self.torch or other.torch, **numbers)

    def __mul__(self, times: float) -> "Work":
        products = {side: flops * times for side, flops in self.products.items()}
        numbers = {name: getattr(self, name) * times for name in NUMBERS}
        return Work(products=products, torch=self.torch, **numbers)


NUMBERS = tuple(f.name for f in fields(Work) if f.name not in ("products", "torch"))


def product(rows: float, inner: float, columns: float, *, side: float | None = None) -> Work:
    """Return the work of a (rows, inner) x (inner, columns) matrix product.

    Args:
        rows: of the first matrix.
        inner: columns of the first and rows of the second.
        columns: of the second.
        side: the smallest side of one of the products that it is made of, if it is many.
    """
    smallest = max(SMALLEST_SIDE, min(side or math.inf, rows, inner, columns))
    return Work(products={1 << int(math.log2(smallest)): 2.0 * rows * inner * columns})


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Rates of one kind of processor.

    Attributes:
        products: FLOP/s of matrix products by their smallest side; of one thread, or of the GPU.
        half: how many times faster products are in 16 bits.
        moved: bytes/s of memory.
        exponentials: values/s.
        operation: seconds to launch a tensor operation.
    """

    products: Mapping[int, float]
    half: float
    moved: float
    exponentials: float
    operation: float

    def rate(self, side: int) -> float:
        """Return FLOP/s at a smallest side: in between, in a straight line of logarithms."""
        known = sorted(self.products)
        if side <= known[0]:
            return self.products[known[0]] * side / known[0]
        for low, high in pairwise(known):
            if side <= high:
                share = math.log(side / low) / math.log(high / low)
                return self.products[low] ** (1 - share) * self.products[high] ** share
        return self.products[known[-1]]

    def seconds(self, work: Work, *, threads: int, half: bool, ahead: bool) -> float:
        """Return the seconds of what a processor does, without disk and start-up.

        Args:
            work: what it does.
            threads: at once.
            half: whether products are in 16 bits.
            ahead: whether operations are launched while earlier ones run, as on a GPU.
        """
        at_once = 1 + THREAD_EFFICIENCY * (threads - 1)
        faster = self.half if half else 1.0
        products = sum(f / (self.rate(side) * faster) for side, f in work.products.items())
        doubles = 2 * work.doubles / self.rate(max(self.products))
        others = work.moved / self.moved + work.exponentials / self.exponentials
        computing = (products + doubles + others) / at_once
        launching = work.operations * self.operation
        return max(computing, launching) if ahead else computing + launching


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node, or what of it a job may use.

    Attributes:
        name: as in data/hardware.yaml, or of this machine.
        cores: that jobs share.
        gpus: that jobs share.
        memory: bytes.
        disk: free bytes, all jobs together.
        cpu: rates of one thread.
        gpu: rates of one GPU; None where there is none.
        read, written: bytes/s of the disk, checksums included.
        step: seconds of an interpreted step.
        start: seconds until a process with NumPy and pandas runs.
        start_torch: the same with torch and accelerate.
    """

    name: str
    cores: int
    gpus: int
    memory: float
    disk: float
    cpu: Processor
    gpu: Processor | None
    read: float
    written: float
    step: float
    start: float
    start_torch: float

    @classmethod
    def of(cls, name: str, block: Mapping[str, Any]) -> "Machine":
        """Return a machine from its block in data/hardware.yaml."""
        rates = dict(block)
        for kind in ("cpu", "gpu"):
            if rates[kind]:
                products = {int(side): rate for side, rate in rates[kind]["products"].items()}
                rates[kind] = Processor(**{**rates[kind], "products": products})
        return cls(name=name, **rates)

    def seconds(self, work: Work, *, threads: int = 1, gpus: int = 0, half: bool = False) -> float:
        """Return the estimated seconds of a job, start-up included.

        Args:
            work: what it does.
            threads: of the job; more than there are cores do not help.
            gpus: that it asks for; where there are none it runs on the threads.
            half: whether its products are in 16 bits, which only a GPU does faster.
        """
        on_gpu = gpus > 0 and self.gpu is not None
        processor = self.gpu if on_gpu else self.cpu
        threads = 1 if on_gpu else min(threads, self.cores)
        at_once = 1 + GPU_EFFICIENCY * (gpus - 1) if on_gpu else 1.0
        return (
            (self.start_torch if work.torch else self.start)
            + processor.seconds(work, threads=threads, half=half and on_gpu, ahead=on_gpu) / at_once
            + work.steps * self.step
            + work.read / self.read
            + work.written / self.written
        )
