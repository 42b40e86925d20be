"""A real browser, Debian's Chromium, before a service that listens. What its console says against the page fails the test.

WANIMATE_CHROMIUM names another one; WANIMATE_REQUIRE_BROWSER=1 turns the skip without one into a failure.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "serve"))
sys.path.insert(0, str(HERE.parent / "unit" / "approval"))

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from stage import Actor, Playhouse
    from visit import Visit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    place = os.environ.get("WANIMATE_CHROMIUM") or shutil.which("chromium")
    required = os.environ.get("WANIMATE_REQUIRE_BROWSER") == "1"
    if place is None and not required:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    assert place is not None, "Chromium is not installed (Debian: apt-get install chromium)"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield playwright.chromium.launch(executable_path=place, args=args)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playhouse]:
    from stage import Playhouse

    with Playhouse(tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture
def actor(live: Playhouse) -> Iterator[Actor]:
    with live.acting() as found:
        yield found
    live.clear()


@pytest.fixture
def visit(browser: Browser, live: Playhouse, tmp_path: Path) -> Iterator[Visit]:
    from visit import Visit

    with Visit(browser, live, tmp_path) as found:
        yield found


@pytest.fixture
def other(browser: Browser, live: Playhouse, tmp_path: Path) -> Iterator[Visit]:
    """A second person's browser."""
    from visit import Visit

    with Visit(browser, live, tmp_path) as found:
        yield found
