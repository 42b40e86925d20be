"""Shared test set-up: no test may depend on another's randomness, and GPU tests can be made to fail instead of skip."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "tests" / "parity"))
EVERY_READER = pytest.StashKey[bool]()
LAST = "test_every_golden_value_is_read"


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Embeddings of prompts are kept apart from the user's."""
    os.environ["WANIMATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """`gpu` tests skip without a device, unless WANIMATE_REQUIRE_GPU=1 turns that skip into a failure.

    The test that every golden value was read goes last. Where processes share the tests, one has all that read such values,
    and every other module stays whole, since its tests share what is slow to make.
    """
    import golden

    if not torch.cuda.is_available() and os.environ.get("WANIMATE_REQUIRE_GPU") != "1":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    collected = list(items)
    if config.pluginmanager.hasplugin("xdist"):
        reading = golden.readers()
        for item in items:
            item.add_marker(pytest.mark.xdist_group("golden" if item.path in reading else str(item.path)))
    yield
    config.stash[EVERY_READER] = golden.every_reader_is_in(config.args, collected, items)
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture
def every_reader_ran(request: pytest.FixtureRequest) -> bool:
    """Whether by now every golden value can have been read: all that read them ran, and nothing failed."""
    return request.config.stash[EVERY_READER] and not request.session.testsfailed
