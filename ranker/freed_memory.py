"""Keeps the memory that a step frees for the next one."""

import ctypes
import os

# of malloc.h, of GNU's C library
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# above, memory is of the kernel and goes back to it; the library allows no more than 32 MB
_MOST_KEPT = 32 << 20
# what a user may have set; "glibc.malloc." is in GLIBC_TUNABLES
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> None:
    """Tells the C library not to give freed memory back to the kernel.

    As it comes, the library gives the end of its heap back after most steps, and the next step has
    its pages zeroed and mapped again: a fifth of a step that handles megabytes. Does nothing where
    the environment says how to do it, or names another allocator, or the library has no such call.
    """
    if any(name in os.environ for name in _SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MOST_KEPT)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
