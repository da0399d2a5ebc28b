"""How the C library gives memory back to the operating system."""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), and the largest values that glibc takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_TRIM, LARGEST_MMAP = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> None:
    """Makes this process reuse freed memory instead of giving it back; does nothing where the C library is not glibc.

    A training step on the CPU allocates and frees all its feature maps. By default glibc returns them to the operating
    system each time, and zeroing them anew took a third of a step (benchmarks/train_step.py).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(TRIM_THRESHOLD, LARGEST_TRIM)
    libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP)
