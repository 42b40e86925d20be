"""Host memory that has been freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Give free pages back. The C library keeps what lies between blocks in use, more with every segment; elsewhere than in
    glibc nothing is done."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))
