"""docs/settings.md is what the settings classes say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wanimate.cli.settings_page import TITLES, page
from wanimate.config import Job, MarkSettings, ParallelSettings, PreprocessSettings, RuntimeSettings
from wanimate.config.base import Settings

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"
ROWS = {line.split("|")[1].strip(" `"): line for line in page().splitlines() if line.startswith("| `")}


def test_the_page_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "python -m wanimate.cli.settings_page > docs/settings.md"


@pytest.mark.parametrize("group", [group for group, _, _ in TITLES], ids=lambda group: group.__name__)
def test_every_field_has_a_row_and_words(group: type[Settings]) -> None:
    for name in group.model_fields:
        if group.nested(name) is None and name != "schema_version":
            assert ROWS[name].rstrip("| ").endswith("."), name


def test_rows() -> None:
    assert "| `--fps` | `RATE` | the clip's own, at most `max_fps` |" in ROWS["fps"]
    assert "| `--steps` | whole number, ≥ 1 | the checkpoint's own (20) |" in ROWS["steps"]
    assert "| `--smooth/--no-smooth` | true, false | true |" in ROWS["smooth"]
    assert "| `--allow-any-length` | number, > 0 | `30.0` |" in ROWS["max_seconds"]
    assert "`FILE[:STRENGTH][@A-B%]`" in ROWS["lora"]
    assert "\x02" not in page()


def test_every_group_of_settings_is_on_the_page() -> None:
    nested = {Job.nested(name) for name in Job.model_fields} | {PreprocessSettings.nested("limits")} - {None}
    assert {group for group, _, _ in TITLES} == {Job, MarkSettings, RuntimeSettings, ParallelSettings, *nested} - {None}


def test_as_a_program() -> None:
    line = [sys.executable, "-m", "wanimate.cli.settings_page"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == page()
    schema = subprocess.run([*line, "--schema"], capture_output=True, text=True, check=True).stdout
    assert json.loads(schema)["title"] == "Job"
