"""The C library's habits with freed memory."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, in malloc.h
_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Ask glibc to keep the memory that tensors free for the next ones, for this process; whether it will.

    It else returns large blocks to the system and faults them in again at the next pass, which on a CPU costs a
    small network a fifth of its time or more (bench/allocator.py). Nothing is changed where the C library is
    another one, or where its own variables say what the user wants.
    """
    if any(name in os.environ for name in _USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    wanted = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 1 << 26}
    return all(bool(mallopt(what, size)) for what, size in wanted.items())
