"""The README tells the truth: snippets compile, and the options it shows exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from wanimate.cli.main import app
from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.preprocess import guides
from wanimate.preprocess.detect import models

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PARTS: tuple[type[BaseModel], ...] = (PreprocessSettings, GenerateSettings, OutputSettings, RuntimeSettings)


def commands() -> list[str]:
    """The `wanimate` commands of the shell snippets."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?wanimate ", line)]


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
