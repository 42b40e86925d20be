"""`wanimate archive`: its two spellings, its exit codes, and what it tells of what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "archive"))
from finished import finished, noise

from wanimate.archive.compare import Comparison
from wanimate.archive.redo import Again, Redone
from wanimate.cli.main import app
from wanimate.types import Result


def run(*words: object, code: int = 0) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["archive", *map(str, words), "--json"])
    assert done.exit_code == code, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "words", [["{file}", "--out", "{out}"], ["--out", "{out}", "{file}"], ["make", "{file}", "--out", "{out}"]]
)
def test_make_and_verify(tmp_path: Path, words: list[str]) -> None:
    file, out = finished(tmp_path / "work"), tmp_path / "bag"
    *_, told = run(*(word.format(file=file, out=out) for word in words))
    assert (told["results"], told["files"], told["lacks"], told["no_guides"]) == (["hero"], 6, [], ["hero"])
    (told,) = run("verify", out)
    assert (told["verdict"], told["problems"]) == ("whole", [])
    (out / "data" / "inputs" / "dance.mp4").write_bytes(b"x")
    told = run("verify", out, code=2)[-1]
    assert ("changed", "data/inputs/dance.mp4") in {(one["kind"], one["file"]) for one in told["problems"]}
    plain = CliRunner().invoke(app, ["archive", "verify", str(out)])
    assert "changed: data/inputs/dance.mp4: the manifest has another sha256 and sha512 of it" in plain.stdout
    (told,) = run("verify", tmp_path / "work", code=1)
    assert told["verdict"] == "nothing"


def test_a_folder_and_documents(tmp_path: Path) -> None:
    finished(tmp_path / "work")
    consent = noise(tmp_path / "consent.pdf")
    *_, told = run(
        tmp_path / "work", "--out", tmp_path / "bag", "--with", consent, "--agent", "Ann Lee", "--licence", "house"
    )
    assert told["results"] == ["hero"]
    graph = json.loads((tmp_path / "bag/data/ro-crate-metadata.json").read_text())["@graph"]
    names = {one["@id"]: one.get("name") for one in graph}
    assert (names["#agent"], names["#licence"], names["documents/consent.pdf"]) == ("Ann Lee", "house", "consent.pdf")


def test_everything_that_is_missing_is_listed(tmp_path: Path) -> None:
    file = finished(tmp_path / "work")
    for name in ("face.png", "dance.mp4"):
        (tmp_path / "work" / "in" / name).unlink()
    *lacks, error = run(file, "--out", tmp_path / "bag", code=2)
    assert [(one["event"], one["role"], one["why"]) for one in lacks] == [
        ("lacks", "image", "missing"), ("lacks", "video", "missing"),
    ]  # fmt: skip
    assert "--allow-missing" in error["message"]
    told = run(file, "--out", tmp_path / "bag", "--allow-missing")[-1]
    assert len(told["lacks"]) == 2
    assert "--out" in run(file, "--out", tmp_path / "bag", "--allow-missing", code=2)[-1]["message"]


@pytest.mark.parametrize(("differing", "code"), [(0, 0), (2, 1)])
def test_redo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differing: int, code: int) -> None:
    from fractions import Fraction

    given = list[Any]()

    def redone(folder: Path, out: Path, again: Again) -> Any:
        given.append((folder, out, again))
        yield from ()
        result = Result(out, 5, (64, 48), Fraction(30), 7, None, {})
        return Redone(
            result, "inputs", Comparison(5, False, differing, 3 if differing else None, 9 if differing else None)
        )

    monkeypatch.setattr("wanimate.archive.redo.redo", redone)
    told = run("redo", "bag", "--out", "a.mp4", "--from-inputs", "--device", "cpu", "--lora", "l", code=code)[-1]
    assert (told["same"], told["differing"], told["began_with"]) == (not differing, differing, "inputs")
    assert given == [(Path("bag"), Path("a.mp4"), Again(None, "cpu", True, None, (Path("l"),)))]
