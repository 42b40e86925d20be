"""docs/finishing.md has the table of formats as the program has it, and names every preset and its page."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from wanimate.cli.formats_page import table
from wanimate.measure.presets import Preset

PAGE = (Path(__file__).parents[3] / "docs" / "finishing.md").read_text()


def test_the_table_is_up_to_date() -> None:
    assert table() in PAGE, "python -m wanimate.cli.formats_page"


def test_every_preset_is_explained() -> None:
    assert all(f"| `{preset}` |" in PAGE for preset in get_args(Preset))
