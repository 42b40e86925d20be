"""Shared by the preprocessing tests: where the golden data lies and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import pytest

from golden import read_json, read_npz, read_png


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    return lambda name: read_json(f"preprocess/{name}")


@pytest.fixture(scope="session")
def golden_npz() -> Callable[[str], Any]:
    return lambda name: read_npz(f"preprocess/{name}")


@pytest.fixture(scope="session")
def golden_png() -> Callable[[str], Any]:
    return lambda name: read_png(f"preprocess/{name}")
