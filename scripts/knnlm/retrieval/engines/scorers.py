"""Scorers: how the keys of one slice are compared with queries, on the CPU or on a torch device.

A scorer finds candidates by a matrix product, whose rounding errors it declares, and computes
distances again by direct differences, or inner products by direct sums. The CPU's is faiss; on a
GPU keys that are stored in half precision are multiplied as such, with sums in fp32.
"""

import warnings
from typing import Protocol

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF_ULP = 2.0**-24  # largest relative error of one fp32 operation
HALF_BITS = 10  # queries are scaled to below 2**10 before they are cut into two halves
DIRECT_BYTES = 1 << 30  # differences held at a time on a torch device


class Scorer(Protocol):
    """The keys of a slice; columns are their places in it.

    Attributes:
        n_keys: keys of the slice.
        margin: candidates beyond k that make it likely that none is missed.
        error: relative rounding error of one step of a rough distance.
        queries_at_a_time: queries whose candidates are scored again together.
        metric: l2 or ip; a distance of the latter is an inner product with its sign turned.
        largest_norm: of the keys; only ip needs it, and has it.
    """

    metric: str
    largest_norm: float
    n_keys: int
    margin: int
    error: float
    queries_at_a_time: int

    def candidates(
        self, queries: NDArray[np.float32], n: int, limit: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the n smallest rough distances of each query, ascending, and their columns.

        What is above the limit of its query may be missing: +inf then.
        """

    def direct(
        self, queries: NDArray[np.float32], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the distance of each query to its columns; +inf where that is -1."""


class FaissScorer:
    """On the CPU: keys in fp32; 64 queries at a time, whose candidates stay in the cache."""

    margin, error, queries_at_a_time = 32, HALF_ULP, 64

    def __init__(self, keys: NDArray[np.float32], *, metric: str = "l2") -> None:
        self.keys, self.n_keys, self.metric = keys, len(keys), metric
        self.largest_norm = 0.0
        if metric == "ip":
            norms = np.empty(len(keys), dtype=np.float32)
            pointers = (faiss.swig_ptr(array) for array in (norms, keys))
            faiss.fvec_norms_L2(*pointers, keys.shape[1], len(keys))
            self.largest_norm = float(norms.max(initial=0))

    def candidates(
        self, queries: NDArray[np.float32], n: int, limit: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Scorer`."""
        if self.metric == "l2":
            return faiss.knn(queries, self.keys, n)
        products, columns = faiss.knn(queries, self.keys, n, metric=faiss.METRIC_INNER_PRODUCT)
        return np.negative(products, out=products), columns

    def direct(
        self, queries: NDArray[np.float32], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Scorer`."""
        columns = np.ascontiguousarray(columns)
        distances = np.empty(columns.shape, dtype=np.float32)
        arrays = (distances, queries, self.keys, columns)
        pointers = [faiss.swig_ptr(array) for array in arrays]
        if self.metric == "l2":
            faiss.fvec_L2sqr_by_idx(*pointers, queries.shape[1], *columns.shape)
            return distances
        faiss.fvec_inner_products_by_idx(*pointers, queries.shape[1], *columns.shape)
        return np.negative(distances, out=distances)


class TorchScorer:
    """On a torch device: keys as they are stored, in tiles; memory: the keys and some tiles.

    Keys in fp32 are multiplied in fp32. Those in half precision are exact as such; a query is the
    sum of two halves, so that 22 of its bits take part, and the product is one of 2 x dim columns
    with sums in fp32. Tensor cores cut bits off where fp32 arithmetic rounds: 8 times the error
    of a step is allowed for, and the margin is wider.

    Direct distances are summed in float64 and rounded once, so that they are the same on every
    device but for a chance of one in some millions, and identical for identical keys.
    """

    def __init__(self, keys: NDArray, *, device: str, tile_bytes: int, metric: str = "l2") -> None:
        """Take the keys of a slice to the device.

        Args:
            keys: (n_keys, dim), float16 or float32, also memory-mapped.
            device: of torch, such as "cuda" or "cpu:0".
            tile_bytes: of the fp32 scores of a tile; two or three such arrays live at a time.
            metric: l2 or ip.
        """
        with warnings.catch_warnings():  # memory-mapped rows are read-only, and only read
            warnings.simplefilter("ignore")
            self.keys = torch.from_numpy(keys).to(device)
        self.n_keys, self.device, self.tile_bytes = len(keys), device, tile_bytes
        self.metric, self.largest_norm = metric, 0.0
        if metric == "ip" and len(keys):
            blocks = self.keys.split(max(1, DIRECT_BYTES // (8 * self.keys.shape[1])))
            self.largest_norm = max(float(b.double().square().sum(1).max()) for b in blocks) ** 0.5
        in_halves = self.keys.dtype == torch.float16
        self.margin, self.error = (256, 8 * HALF_ULP) if in_halves else (32, HALF_ULP)
        self.queries_at_a_time = 256

    def candidates(
        self, queries: NDArray[np.float32], n: int, limit: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Scorer`.

        The n-th best so far and the limit are thresholds: after the first tiles almost nothing of
        a tile is below them, and only what is gets merged.
        """
        q = torch.from_numpy(queries).to(self.device)
        squares = self.metric == "l2"
        norms = q.double().square().sum(1) * squares  # left out of the scores, added at the end
        factors, scale = _factors(q, self.keys.dtype, factor=-2.0 if squares else -1.0)
        bound = _up((torch.from_numpy(limit).to(self.device) - norms).float())
        best = torch.full((len(q), n), torch.inf, device=self.device)
        columns = torch.full((len(q), n), -1, device=self.device)
        first = 0
        for tile in self.keys.split(max(1, self.tile_bytes // (4 * len(q)))):
            scores = _product(factors, tile)
            if squares:
                scores = torch.addcmul(tile.float().square().sum(1), scores, scale)
            else:
                scores *= scale
            threshold = torch.minimum(bound, -_up(-best[:, -1]))  # below the n-th best
            found, places = _below(scores, threshold, n)
            best, order = torch.cat([best, found], 1).topk(n, largest=False)
            columns = torch.cat([columns, places + first], 1).gather(1, order)
            first += len(tile)
        rough = (best + norms[:, None]).float()
        columns[rough.isinf()] = -1
        return rough.cpu().numpy(), columns.cpu().numpy()

    def direct(
        self, queries: NDArray[np.float32], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Scorer`."""
        places = torch.from_numpy(columns).to(self.device)
        q = torch.from_numpy(queries).to(self.device).double()[:, None]
        width = max(1, DIRECT_BYTES // (8 * q.numel()))
        distances = torch.empty(columns.shape, device=self.device)
        for first in range(0, columns.shape[1], width):
            keys = self.keys[places[:, first : first + width].clamp(min=0)].double()
            terms = keys.sub_(q).square_() if self.metric == "l2" else keys.mul_(-q)
            distances[:, first : first + width] = terms.sum(2)
        return distances.masked_fill_(places < 0, torch.inf).cpu().numpy()


def _factors(q: Tensor, dtype: torch.dtype, *, factor: float) -> tuple[Tensor, Tensor]:
    """Return what is multiplied with the keys, and what turns the product into `factor` x q k."""
    if dtype != torch.float16:
        return q, torch.full((len(q), 1), factor, device=q.device)
    _, exponent = torch.frexp(q.abs().amax(1, keepdim=True))
    scaled = torch.ldexp(q, HALF_BITS - exponent)
    high = scaled.half()
    low = (scaled - high.float()).half()
    scale = torch.ldexp(torch.full_like(q[:, :1], factor), exponent - HALF_BITS)
    return torch.cat([high, low], 1), scale


def _product(factors: Tensor, tile: Tensor) -> Tensor:
    """Return factors times keys, summed in fp32: (n_queries, n_keys)."""
    if tile.dtype != torch.float16:
        return factors @ tile.T
    twice = torch.cat([tile, tile], 1).T
    if factors.is_cuda:
        return torch.mm(factors, twice, out_dtype=torch.float32)
    return factors.float() @ twice.float()


def _below(scores: Tensor, threshold: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the scores of each row at most its threshold, and their columns, padded by +inf."""
    if threshold.max() >= torch.finfo(threshold.dtype).max:  # fewer than n found so far
        found, places = scores.topk(min(n, scores.shape[1]), largest=False)
        return found.masked_fill(found > threshold[:, None], torch.inf), places
    i, j = (scores <= threshold[:, None]).nonzero(as_tuple=True)
    counts = torch.bincount(i, minlength=len(scores))
    order = torch.arange(len(i), device=i.device) - (counts.cumsum(0) - counts)[i]
    found = torch.full((len(scores), int(counts.max())), torch.inf, device=i.device)
    places = torch.full(found.shape, -1, device=i.device)
    found[i, order], places[i, order] = scores[i, j], j
    return found, places


def _up(numbers: Tensor) -> Tensor:
    """Return the next larger fp32 number of each."""
    return torch.nextafter(numbers, torch.full_like(numbers, torch.inf))
