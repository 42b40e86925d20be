"""Freed memory goes back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from wanimate.runtime.heap import trim_heap


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_holes_between_blocks_in_use_are_given_back() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("needs glibc")
    blocks = [bytearray(b"x" * 50_000) for _ in range(2000)]
    kept = blocks[::20]
    del blocks
    before = resident()
    trim_heap()
    assert before - resident() > 50 * 2**20
    assert len(kept) == 100
