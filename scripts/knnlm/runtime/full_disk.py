"""A full disk: each library words it in its own way, the user gets one sentence with the file."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
PROBE_BYTES = 1 << 20


class DiskFullError(OSError):
    """There was no room left for a file; nothing of it was taken for whole."""


@contextmanager
def named_if_full(path: Path) -> Iterator[None]:
    """Turn a full disk that some library meets while writing `path` into our message.

    Args:
        path: the file, or the folder of the files, that is written.

    Raises:
        DiskFullError: naming it, and what to do.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _is_full(error, path.parent):
            raise
        raise DiskFullError(
            f"the disk is full while writing {path}; free some space and run the same command "
            "again, finished parts are kept"
        ) from error


def _is_full(error: Exception, folder: Path) -> bool:
    """Tell a full disk from other errors: by number, by text, or by trying it."""
    number = getattr(error, "errno", None)
    if number is not None:
        return number in FULL
    if any(os.strerror(code) in str(error) for code in FULL):  # faiss, safetensors, tokenizers
        return True
    # NumPy says how much it wrote and not why it stopped.
    return isinstance(error, OSError) and not _has_room(folder)


def _has_room(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error.errno not in FULL
    return True
