"""A library over SQLite in a folder, without detectors: their models are fetched separately."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "approval"))

if TYPE_CHECKING:
    from wanimate.library.entries import Library


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service of this machine is one of the test's own."""
    monkeypatch.setenv("WANIMATE_SERVE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wanimate.library.look._people_and_camera", lambda _clip: (1, None))


@pytest.fixture
def library(_home: None) -> Iterator[Library]:
    from wanimate.library.home import home_settings, open_library

    found = open_library(home_settings())
    yield found
    found.database.close()
