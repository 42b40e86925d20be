"""A held result from quarantine to its release and back, by commands alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from held import result

from wanimate.cli.main import app


def test_a_result_is_added_approved_released_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('approvals = 2\n[[people]]\nname = "Ann"\nidentity = "key:ann"\n')
    monkeypatch.setenv("WANIMATE_POLICY", str(policy))

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        answer = CliRunner().invoke(app, [*words, "--data", str(tmp_path / "data"), "--json"])
        *_, last = (json.loads(line) for line in answer.stdout.splitlines())
        assert answer.exit_code == code, answer.stdout
        found: dict[str, Any] = last
        return found

    file = result(tmp_path / "hero.quarantined.mp4")
    assert "there are 0 of 2" in run("release", str(file), code=2)["message"]
    added = run("review", "add", str(file), "--shot", "Scene 12")
    first = run("review", "approve", "Scene 12", "--name", "Ann")
    again = run("review", "approve", "Scene 12", "--name", "Bob")
    assert first["by"]["identity"] == again["by"]["identity"]
    assert run("review", "show", "Scene 12")["versions"][0]["approval"]["given"] == 1
    message = run("release", str(file), code=2)["message"]
    assert "there are 1 of 2 approvals by different people" in message
    policy.write_text("")
    written = run("release", str(file), "--out", str(tmp_path / "hero.mp4"))["files"]
    assert written[-1] == str(tmp_path / "hero.mp4")
    assert not file.exists()
    revoked = run("review", "revoke", "Scene 12", "--reason", "The client.")
    (gone,) = revoked["releases"]
    assert (gone["state"], gone["place"], gone["output"]) == ("to_be_taken_back", written[-1], added["sha256"])
    shutil.copy(tmp_path / "hero.mp4", tmp_path / "copy.mp4")
    assert (
        "taken back"
        in run("release", str(tmp_path / "copy.mp4"), "--out", str(tmp_path / "new.mp4"), code=2)["message"]
    )
    message = run("handoff", "Scene 12", "--to", str(tmp_path / "delivery"), code=2)["message"]
    assert message.startswith("WHAT = Scene 12: "), "and no file of a folder that is gone"
    message = run("review", "recalled", "Scene 12", "release_none", code=2)["message"]
    assert message.startswith("RELEASE = release_none: ")
    assert "`wanimate review left SHOT`" in message
    run("review", "recalled", "Scene 12", gone["id"], "--note", "deleted")
    (gone,) = run("review", "left", "Scene 12")["releases"]
    assert (gone["state"], gone["note"]) == ("taken_back", "deleted")


def test_a_second_approval_of_one_person_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.toml").write_text("approvals = 2")
    monkeypatch.setenv("WANIMATE_POLICY", str(tmp_path / "policy.toml"))

    def said(*words: str) -> str:
        return CliRunner().invoke(app, ["review", *words, "--data", str(tmp_path / "data")]).stdout

    said("add", str(result(tmp_path / "hero.quarantined.mp4")), "--shot", "Scene 12")
    assert "counts once" not in said("approve", "Scene 12", "--name", "Ann")
    again = said("approve", "Scene 12", "--name", "Bob")
    assert "1 of 2 approvals; command line:" in again
    assert "has approved it before and counts once" in again
