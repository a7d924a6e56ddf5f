"""Blocks of rows that a job has written one by one, joined to one array each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from knnlm.runtime.artifacts import atomic_path


def join_blocks(
    partial: Path, blocks: Sequence[Path], *, n_queries: int, names: Sequence[str]
) -> None:
    """Write one .npy for each name from the blocks, one block in memory at a time.

    Args:
        partial: where they go.
        blocks: files of np.savez with rows of every name, in order.
        n_queries: rows of all blocks.
        names: of the arrays.

    Raises:
        DiskFullError: if the disk is full.
    """
    for name in names:
        with atomic_path(partial / f"{name}.npy") as temporary, temporary.open("wb") as file:
            done = 0
            for block in blocks:
                piece = np.load(block)[name]
                if not done:
                    header = np.lib.format.header_data_from_array_1_0(piece)
                    header["shape"] = (n_queries, *piece.shape[1:])
                    np.lib.format.write_array_header_1_0(file, header)
                # Not by memory map: there a full disk kills the process without a word.
                file.write(np.ascontiguousarray(piece).data)
                done += len(piece)
            assert done == n_queries, f"the blocks hold {done} of {n_queries} queries"
