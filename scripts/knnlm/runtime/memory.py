"""What malloc does with freed memory: by default glibc gives large blocks back at once."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 256 << 20  # blocks up to this size are reused


def keep_freed_blocks() -> None:
    """Let this process reuse the blocks that it frees, where the C library is glibc.

    The activations of an update are freed and wanted again at once. Given back, their pages are
    zeroed by the kernel each time: a tenth of the time of training a small model.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
