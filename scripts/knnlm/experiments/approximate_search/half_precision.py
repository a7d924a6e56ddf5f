"""Exact search in half precision, as in the code of Xu et al. (2023): what it does to neighbors.

Their scripts compare fp16 queries with fp16 keys by |q|^2 - 2qk + |k|^2, every term and every sum
rounded to fp16. Where squared distances are above 64 that keeps steps of 1/16 and more, and takes
the difference of large numbers. Products are summed in fp32 and rounded once, as GPUs do.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knnlm.retrieval.datastore import Datastore
from knnlm.retrieval.engines.exact import check_search

TILE, GPU_TILE = (64, 1 << 14), (4096, 1 << 17)  # queries and keys that are compared at a time
SMALLEST = 1e-20  # what their code clamps distances to; it is 0 in fp16
ID_BITS = 40  # of a number that orders by distance, then by id


def search_half(
    queries: NDArray[np.float32],
    datastore: Datastore,
    *,
    k: int,
    device: str = "cpu",
    slice_rows: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and squared distances of the k nearest entries, by distances in fp16.

    Args:
        queries: (n_queries, dim), finite; they are rounded to fp16.
        datastore: what is searched, its `rows` alone.
        k: number of neighbors, at most the number of rows.
        device: of torch.
        slice_rows: keys compared at a time, as many as a tile has if None; no bit of the result
            depends on it.

    Returns:
        ids (n_queries, k) and distances (n_queries, k), ascending, equal ones by ascending id;
        +inf where the terms of a distance are beyond the largest half, 65,504.
    """
    queries = check_search(queries, datastore, k=k)
    n_queries, n_keys = TILE if device == "cpu" else GPU_TILE
    blocks = torch.from_numpy(queries).half().to(device).split(n_queries)
    best = [torch.empty(len(block), 0, dtype=torch.int64, device=device) for block in blocks]
    for start, stored in datastore.stored_slices(slice_rows or n_keys):
        keys = torch.from_numpy(np.array(stored)).half().to(device)
        ids = torch.arange(start, start + len(keys), device=device)
        norms = keys.float().square().sum(1).half()
        for number, block in enumerate(blocks):
            bits = half_distances(block, keys, norms).view(torch.int16).long()
            packed = torch.cat([best[number], bits << ID_BITS | ids], dim=1)
            best[number] = packed.topk(min(k, packed.shape[1]), largest=False).values.clone()
    packed = torch.cat(best).cpu()
    distances = (packed >> ID_BITS).to(torch.int16).view(torch.float16).float()
    return (packed & ((1 << ID_BITS) - 1)).numpy(), distances.numpy()


def half_distances(queries: Tensor, keys: Tensor, norms: Tensor) -> Tensor:
    """Return squared distances in fp16, (n_queries, n_keys), at least 0.

    Args:
        queries: (n_queries, dim), fp16.
        keys: (n_keys, dim), fp16.
        norms: (n_keys,), fp16, of the keys, squared.
    """
    of_queries = queries.float().square().sum(1, keepdim=True).half()
    products = torch.addmm(norms.float(), queries.float(), keys.float().T, alpha=-2).half()
    return (
        products.add_(of_queries).clamp_min_(SMALLEST).nan_to_num_(nan=torch.inf, posinf=torch.inf)
    )
