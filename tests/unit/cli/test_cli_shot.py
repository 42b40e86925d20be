"""`wanimate shot` on a guides folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.preprocess.shot.record import Value, new_record


@pytest.fixture
def guides(tmp_path: Path) -> Path:
    values = {"xmpDM:cameraMove": Value(value="Zoom In", confidence=0.7, by="analysis", at="2026-11-30T12:00:00+00:00")}
    record = new_record({}, [(0, 8, values), (8, 16, values)])
    files = {"pose": "pose.mkv", "face": "face.mkv"}
    manifest = {
        "format": "wanimate-guides", "version": 1, "mode": "animation", "fps": "8", "count": 16, "size": [64, 64],
        "face_size": 64, "files": files, "reference": "reference.png", "shot": record.plain(),
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def said(*words: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(app, ["shot", *words, "--json"])
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def test_a_record_is_shown_confirmed_and_corrected(guides: Path) -> None:
    code, told = said("show", str(guides))
    assert (code, told["event"], len(told["shots"])) == (0, "result", 2)  # type: ignore[arg-type]
    assert said("set", str(guides), "cameraMove", "dolly in")[1]["parameter"] == "--shot"
    code, told = said("set", str(guides), "cameraMove", "dolly in", "--shot", "2", "--by", "Ann")
    assert (code, said("confirm", str(guides), "cameraMove", "--shot", "1", "--by", "Bob")[0]) == (0, 0)
    shown = CliRunner().invoke(app, ["shot", "show", str(guides), "--history"]).stdout
    for text in ("Dolly In", "Zoom In", "Ann", "Bob", "shot 2", "advice for the clip: split"):
        assert text in shown
    assert said("set", str(guides), "cameraMove", "fly", "--shot", "1")[1]["parameter"] == "VALUE"
    assert said("confirm", str(guides), "nothing")[1]["parameter"] == "FIELD"
