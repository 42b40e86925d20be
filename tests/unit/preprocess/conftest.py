"""Shared by the preprocessing tests: where the golden data lies and how to read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "preprocess"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    return lambda name: json.loads((GOLDEN / name).read_text())


@pytest.fixture(scope="session")
def golden_npz() -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        with np.load(GOLDEN / name) as data:
            return {key: data[key] for key in data.files}

    return read


@pytest.fixture(scope="session")
def golden_png() -> Callable[[str], Any]:
    def read(name: str) -> Any:
        picture = cv2.imread(str(GOLDEN / name))
        assert picture is not None, name
        return np.ascontiguousarray(picture[..., ::-1])

    return read
