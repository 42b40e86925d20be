"""docs/settings.md, made from the settings classes: `python -m wanimate.cli.settings_page > docs/settings.md`.

`--schema` prints the JSON schema of a job instead.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from wanimate.cli.names import declared
from wanimate.config import (
    SCHEMA,
    ClipLimits,
    Defaults,
    GenerateSettings,
    Job,
    MarkSettings,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    RuntimeSettings,
)
from wanimate.config.base import OWN, Setting, Settings
from wanimate.errors import spell

HEAD = f"""# Settings

This page is made from the settings classes by `python -m wanimate.cli.settings_page`. A test compares the two.

- On the command line a setting is a flag. `wanimate COMMAND --help` lists those that a command takes.
- In Python `wanimate.animate`, `wanimate.replace` and `Job.of` take every setting by its name.
- As JSON a job is what `Job.model_dump(mode="json")` gives; `Job.model_validate` takes it back. Its form has version
  {SCHEMA} (`schema_version`). `python -m wanimate.cli.settings_page --schema` prints the JSON schema.
- The values of an area are `1280x720` or a number of pixels, those of a rate `24`, `29.97` or `30000/1001`.
- "The checkpoint's own" is what the checkpoint was made for; the 14B's value is in brackets.
- A wrong value is an `InputError`. It names the setting, the value, the rule and the remedy.
"""
TITLES: tuple[tuple[type[Settings], str, str], ...] = (
    (Job, "Job", "What is made of what."),
    (PreprocessSettings, "Preprocess", "Clip and picture to guides: `Job.preprocess`."),
    (ClipLimits, "Limits of a clip", "What is refused before anything is decoded: `Job.preprocess.limits`."),
    (GenerateSettings, "Generate", "Guides to frames: `Job.generate`."),
    (OutputSettings, "Output", "Frames to a file: `Job.output`."),
    (MarkSettings, "Marks", "What tells of a final what it is ([marks](marks.md)): `Job.marks`."),
    (RuntimeSettings, "Runtime", "Where the networks live and how exact they compute. It is no part of a job."),
    (ParallelSettings, "Parallel", "How a job is spread over the GPUs of a machine. It is no part of a job."),
)


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for group in TITLES for line in _section(*group))])


def _section(group: type[Settings], title: str, words: str) -> Iterator[str]:
    yield f"## {title}\n\n{words}\n\n| field | flag | values | default | what it does |\n|---|---|---|---|---|"
    for setting in group.settings():
        if setting.path == group.named(setting.name):  # nested groups have a table of their own
            cells = (f"`{setting.name}`", _flag(setting), _values(setting), _default(setting), _does(setting))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _flag(setting: Setting) -> str:
    return f"`{flag}`" if (flag := declared(setting)) else ""


def _values(setting: Setting) -> str:
    """Of the type and its bounds, in words."""
    if setting.choices:
        return ", ".join(f"`{value}`" for value in setting.choices)
    kinds = {"bool": "true, false", "int": "whole number", "float": "number", "str": "text", "Fraction": "rate"}
    found = str(setting.info.annotation)
    kind = next((words for name, words in kinds.items() if name in found), "path")
    own_form = setting.option.metavar and kind != "number" and "Path" not in found
    form = f"`{setting.option.metavar}`" if own_form else kind
    bounds = [f"{sign} {_number(getattr(mark, name))}" for mark in setting.info.metadata for name, sign in _SIGNS.items()
              if getattr(mark, name, None) is not None]  # fmt: skip
    return ", ".join([form, *bounds])


_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def _number(value: Any) -> str:
    return "2^63" if value == 2**63 else f"{value}"


def _default(setting: Setting) -> str:
    info, shown = setting.info, setting.option.shown
    if info.is_required():
        return "needed"
    if shown == OWN and setting.name in Defaults.model_fields:
        return f"{OWN} ({Defaults.model_fields[setting.name].default})"
    if shown:
        return _spelled(shown)
    value = info.default
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, (str, int, float, Fraction)) else "none"


def _does(setting: Setting) -> str:
    return _spelled(f"{setting.option.help} {setting.option.more}".strip())


def _spelled(text: str) -> str:
    """Names of settings and files as code."""
    return re.sub(
        r"(?<!`)\$WANIMATE_MODELS", "`$WANIMATE_MODELS`", spell(text, lambda field: f"`{field.rpartition('.')[2]}`")
    )


def main() -> None:
    """Print the page, or with `--schema` the JSON schema."""
    print(json.dumps(Job.model_json_schema(), indent=2) if sys.argv[1:] == ["--schema"] else page(), end="")


if __name__ == "__main__":
    main()
