"""The README tells the truth: defaults are those of the classes, snippets compile, and the options it shows exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from wanimate.cli.main import app
from wanimate.config import Defaults, GenerateSettings, Job, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.preprocess import guides
from wanimate.preprocess.detect import models

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PARTS: tuple[type[BaseModel], ...] = (PreprocessSettings, GenerateSettings, OutputSettings, RuntimeSettings)
NOT_IN_TABLE = {"limits"}
SAID_IN_WORDS = {
    "fps": "the clip's, up to `max_fps`",
    "models": "user cache",
    "mask": "they are found",
    "sam2": "MediaPipe's",
    "seed": "drawn, printed, recorded",
    "iterations": "3, fewer under 250 pixels",
    "relight": "on in replacement, if the checkpoint has one",
    "keep_guides": "thrown away",
    "vae_tile": "none, or as memory needs",
    "gpu_memory": "all that is free",
    "cache": "none; `turbo` has its own",
    "cache_gate": "the cache's own",
    "retarget": "auto; off in replacement",
    "w_len": "the outline; 1 with `compat`",
    "h_len": "the outline; 1 with `compat`",
}


def rows(heading: str) -> dict[str, list[str]]:
    """First cell, without backquotes -> the other cells, of the first table under a heading."""
    section = README.split(f"## {heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table[0].splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in lines[2:]}


def commands() -> list[str]:
    """The `wanimate` commands of the shell snippets."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?wanimate ", line)]


def test_every_setting_is_in_the_table() -> None:
    fields = {name for part in PARTS for name in part.model_fields} - NOT_IN_TABLE
    assert set(rows("Settings")) == fields | {"keep_guides", "mode"}


@pytest.mark.parametrize("name", sorted(rows("Settings")))
def test_defaults_of_the_table(name: str) -> None:
    said = rows("Settings")[name][0]
    default = next(p.model_fields[name].default for p in (*PARTS, Job) if name in p.model_fields)
    if name in SAID_IN_WORDS:
        assert default is None
        assert said == SAID_IN_WORDS[name]
    elif name in Defaults.model_fields:
        published = Defaults.model_fields[name].default
        assert default is None
        assert said == f"checkpoint ({published})"
    elif name == "lora":
        assert default == ()
        assert said == "none"
    elif name in ("prompt", "negative_prompt"):
        assert default == ""
        assert said == "checkpoint"
    else:
        assert said == (str(default).lower() if isinstance(default, bool) else str(default))


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_shell_snippets(line: str) -> None:
    _, command, *words = line.split()
    group = typer.main.get_command(app)
    chosen = group.commands[command]  # type: ignore[attr-defined]
    chosen = chosen.commands[words[0]] if hasattr(chosen, "commands") else chosen
    known = {option for parameter in chosen.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=lambda s: s.split()[1])
def test_python_snippets(snippet: str) -> None:
    tree = ast.parse(snippet)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("wanimate"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("wanimate.animate", "Job.of"):
            own = {"image", "video", "out", "checkpoint", *Job.model_fields}
            fields = own | {name for part in PARTS for name in part.model_fields}
            assert {keyword.arg for keyword in node.keywords} <= fields


def test_guides_folder() -> None:
    named = set(
        re.findall(r"`([\w.]+\.(?:mkv|mp4|png|npz|json))`", README.split("## The guides folder")[1].split("\n## ")[0])
    )
    files = {*guides._VIDEOS.values(), guides._REFERENCE, guides._KEYPOINTS, guides.MANIFEST}
    assert named == files | {*guides._PUBLISHED.values(), guides._PUBLISHED_REFERENCE}


def test_detector_models_are_named_in_the_notices() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
    assert all(f"`{name}`" in notices for name in models._FILES)
    assert models.WHEEL.replace("==", " ") in notices


def test_every_folder_of_the_tree_is_there() -> None:
    tree = README.split("```\nsrc/wanimate/\n")[1].split("```")[0]
    for line in tree.splitlines():
        if found := re.match(r"  ([a-z/]+/) ", line):
            roots = (ROOT / "src/wanimate", ROOT / "tests")
            assert any((root / found[1]).is_dir() for root in roots), line
