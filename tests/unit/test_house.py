"""The order of the house: a stage imports the foundation and stages before it, never what comes after or stands beside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import wanimate

PACKAGE = Path(wanimate.__file__).parent
FOUNDATION = ("types", "config", "errors", "events", "log", "versions")
STAGES = (
    "media",
    "preprocess",
    "conditions",
    "model",
    "weights",
    "sampling",
    "provenance",
    "finish",
    "runtime",
    "post",
)
ROAD = ("engines", "jobs", "library", "api")
GROUND = frozenset(
    f"wanimate.serve.{name}" for name in ("content", "database", "places", "settings", "storage", "tables")
)
"""Modules of `serve` on which the library stands, too. They import the foundation, `media` and each other."""
PREPROCESS = (
    "pose", "people", "detect", "masks", "folder", "manifest", "guides", "layout", "performer", "known", "fit", "shot",
    "report", "modes",
    "drive",
    "candidates", "inspection",
)  # fmt: skip
"""Rooms and single modules of `preprocess`, each of which imports earlier ones only."""
RECORDS = ("review", "approval")
"""What people say and decide: the foundation, `media` and earlier ones are enough for it."""
OUT = ("handoff", "archive")
"""What takes results out of the house. Who imports them are `serve`, `cli` and each other."""
BESIDE = ("cli", "integrations", "measure", "serve", "train")


def part_of(module: str) -> str:
    """ "wanimate.media.video" -> "media"; the package itself -> ""."""
    return module.split(".")[1] if "." in module else ""


def may_import(importer: str, imported: str) -> bool:
    """Whether a module of part `importer` may import one of part `imported`."""
    if importer == imported:
        return True
    if importer in FOUNDATION:
        return imported in FOUNDATION
    if importer in STAGES:
        return imported in (*FOUNDATION, *STAGES[: STAGES.index(importer)])
    if importer in ROAD:
        own = RECORDS if importer == "api" else ()
        return imported in (*FOUNDATION, *STAGES, *own, *ROAD[: ROAD.index(importer)])
    if importer == "__main__":
        return imported == "cli"
    if importer == "":
        return imported in (*FOUNDATION, *ROAD)
    if importer in RECORDS:
        return imported in (*FOUNDATION, "media", *RECORDS[: RECORDS.index(importer)])
    if importer in OUT:
        return imported in (*FOUNDATION, *STAGES, *ROAD, *RECORDS, *OUT, "measure", "")
    if importer in ("integrations", "measure"):
        return imported in (*FOUNDATION, *STAGES, *ROAD, "")
    return (
        imported not in BESIDE
        or imported in ("integrations", "measure")
        or (importer, imported) in (("cli", "train"), ("cli", "serve"))
    )


def within(module: str) -> str:
    """ "wanimate.preprocess.detect.litert" -> "detect"; a part itself -> ""."""
    words = module.split(".")
    return words[2] if len(words) > 2 else ""


def imports(source: str, module: str, is_package: bool, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, module of this package) of every import in `source`, also of those in functions and for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "wanimate")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                above = here[: len(here) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base.split(".")[0] != "wanimate":
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base


def all_modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        words = ["wanimate", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


MODULES = all_modules()


def breaches(source: str, module: str, is_package: bool = False) -> list[str]:
    importer = part_of(module)
    return [
        f"{module}, line {line}: imports {target}"
        for line, target in imports(source, module, is_package, frozenset(MODULES))
        if not may_import(importer, part_of(target)) and not (importer == "library" and target in GROUND)
    ]


def graph(part: str) -> dict[str, set[str]]:
    """Module -> modules of the same part that it imports."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if part_of(module) == part:
            targets = imports(path.read_text(), module, path.name == "__init__.py", frozenset(MODULES))
            found[module] = {target for _, target in targets if part_of(target) == part}
    return found


def circle(modules: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, one ring; empty where there is none."""
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for target in sorted(modules.get(module, ())):
            if ring := follow(target, [*path, module]):
                return ring
        done.add(module)
        return []

    return next((ring for module in sorted(modules) if (ring := follow(module, []))), [])


def test_every_part_has_its_place() -> None:
    parts = {part_of(module) for module in MODULES}
    assert parts <= {"", "__main__", *FOUNDATION, *STAGES, *ROAD, *RECORDS, *OUT, *BESIDE}
    assert {
        "",
        *FOUNDATION,
        *ROAD,
        "media",
        "preprocess",
        "conditions",
        "model",
        "weights",
        "sampling",
        "finish",
    } <= parts


@pytest.mark.parametrize("part", sorted({part_of(module) for module in MODULES}), ids=lambda part: part or "package")
def test_imports_keep_the_order(part: str) -> None:
    found = [
        breach
        for module, path in MODULES.items()
        if part_of(module) == part
        for breach in breaches(path.read_text(), module, path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_the_package_does_without_the_workshop() -> None:
    """`tools/mannequin` needs the package, not the other way round: it is in no wheel."""
    found = [
        f"{module}, line {node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] == "mannequin"
    ]
    assert not found, found


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("wanimate.media.video", "from wanimate.preprocess.drive import preprocess"),
        ("wanimate.media.video", "from ..finish import encode"),
        ("wanimate.media.video", "def late():\n    import wanimate.jobs.run"),
        ("wanimate.conditions.build", "from ..model.vae import VideoVae"),
        ("wanimate.model.vae", "from wanimate.weights.checkpoint import load_checkpoint"),
        ("wanimate.finish.encode", "from ..cli.report import Reporter"),
        ("wanimate.finish.encode", "from wanimate import animate"),
        (
            "wanimate.sampling.denoise",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wanimate.jobs import run",
        ),
        ("wanimate.jobs.run", "from wanimate.train.own import train_own"),
        ("wanimate.types", "from .media.probe import probe"),
        ("wanimate.train.flow", "from wanimate.cli.main import app"),
        ("wanimate.library.entries", "from wanimate.serve.service import Service"),
        ("wanimate.jobs.run", "from wanimate.library.names import named"),
        ("wanimate.review.chain", "from wanimate.serve.tables import Shot"),
        ("wanimate.review.exports", "from wanimate.engines.base import Engine"),
    ],
)
def test_breaches_are_seen(module: str, line: str) -> None:
    assert len(breaches(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("wanimate.weights.checkpoint", "from wanimate.conditions.reference import ImageEncoder"),
        ("wanimate.finish.lock", "from ..config import Codec"),
        ("wanimate.finish.lock", "from .encode import OutputWriter"),
        ("wanimate.jobs.run", "from wanimate.finish.encode import OutputWriter\nimport torch"),
        ("wanimate.cli.doctor", "from ..measure.doctor import examine"),
        ("wanimate.cli.animate", "from wanimate.api import Animator"),
        ("wanimate.library.entries", "from wanimate.serve.tables import LibraryEntry"),
        ("wanimate.serve.service", "from wanimate.library.entries import Library"),
    ],
)
def test_what_is_allowed_passes(module: str, line: str) -> None:
    assert not breaches(line, module)


PARTS = sorted({part_of(module) for module in MODULES} - {""})


@pytest.mark.parametrize("part", PARTS)
def test_no_modules_import_each_other_in_a_ring(part: str) -> None:
    assert circle(graph(part)) == []


def test_rings_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"a"}}) == ["a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_rooms_of_preprocess_keep_their_order() -> None:
    modules = graph("preprocess")
    assert {within(module) for module in modules} == {"", *PREPROCESS}
    later = [
        f"{module} imports {target}"
        for module, targets in modules.items()
        for target in targets
        if PREPROCESS.index(within(target)) > PREPROCESS.index(within(module))
    ]
    assert later == []


def test_the_ground_of_the_service_stands_on_nothing_of_it() -> None:
    for module in sorted(GROUND):
        targets = {target for _, target in imports(MODULES[module].read_text(), module, False, frozenset(MODULES))}
        allowed = {target for target in targets if part_of(target) in (*FOUNDATION, "media")} | GROUND
        assert targets <= allowed, (module, targets - allowed)
