"""Shared test set-up: no test may depend on another's randomness, and GPU tests can be made to fail instead of skip."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "tests" / "parity"))
EVERY_READER = pytest.StashKey[bool]()
PARTS = pytest.StashKey[list[tuple[bool, dict[str, list[str]]]]]()
UNREAD = pytest.StashKey[list[str]]()
LAST = "test_every_golden_value_is_read"


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Embeddings of prompts, databases, marks and the house's policy are kept apart from the user's."""
    for name in ("WANIMATE_CACHE", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))
    os.environ.pop("WANIMATE_POLICY", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """`gpu` tests skip without a device, unless WANIMATE_REQUIRE_GPU=1 turns that skip into a failure.

    The test that every golden value was read goes last. Where processes share the tests, modules stay whole, since the tests
    of one share what is slow to make.
    """
    import golden

    if not torch.cuda.is_available() and os.environ.get("WANIMATE_REQUIRE_GPU") != "1":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    collected = list(items)
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    yield
    config.stash[EVERY_READER] = golden.every_reader_is_in(config.args, collected, items)
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture
def every_reader_ran(request: pytest.FixtureRequest) -> bool:
    """Whether by now every golden value can have been read: all that read them ran, and nothing failed."""
    shared = hasattr(request.config, "workerinput")
    return not shared and request.config.stash[EVERY_READER] and not request.session.testsfailed


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that shares the tests hands over which golden values it has read; the one that started it judges."""
    import golden

    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["golden"] = {name: sorted(places) for name, places in golden.READ.items()}
        config.workeroutput["every_reader"] = config.stash.get(EVERY_READER, False)
        return
    parts = config.stash.get(PARTS, [])
    if not parts or session.testsfailed or not all(every for every, _ in parts):
        return
    read: dict[str, set[str]] = {}
    for _, part in parts:
        for name, places in part.items():
            read.setdefault(name, set()).update(places)
    config.stash[UNREAD] = golden.unread_values(read)
    if config.stash[UNREAD]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process has ended: keep what it handed over."""
    output = getattr(node, "workeroutput", {})
    if "golden" in output:
        node.config.stash.setdefault(PARTS, []).append((output["every_reader"], output["golden"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    unread = config.stash.get(UNREAD, [])
    if unread:
        terminalreporter.section(f"{len(unread)} golden values that no test reads", red=True)
        terminalreporter.line("\n".join(unread[:200]))
