"""Shared test set-up: no test may depend on another's randomness, and GPU tests can be made to fail instead of skip."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "tests" / "parity"))


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Embeddings of prompts are kept apart from the user's."""
    os.environ["WANIMATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`gpu` tests skip without a device, unless WANIMATE_REQUIRE_GPU=1 turns that skip into a failure."""
    if torch.cuda.is_available() or os.environ.get("WANIMATE_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
