"""Seeds: one number from the config, independent streams for every purpose."""

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as ("dropout", step).

    Streams of different purposes are independent, and adding one changes no other.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a NumPy generator (PCG64) for one purpose."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *purpose)))
