"""The adoption sheet: where each line comes from, answers that are kept, and nothing lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from tiny_checkpoints import write_guides

from wanimate.cli.main import app
from wanimate.cli.worksheet import rules_checked
from wanimate.config import RuntimeSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Finished, Notice
from wanimate.measure.worksheet import pace as paces
from wanimate.measure.worksheet.answers import Answers, answers_of, read_answers
from wanimate.measure.worksheet.found import Certificate, Machine, certificate, flow, machine
from wanimate.measure.worksheet.pace import Pace
from wanimate.measure.worksheet.sheet import Facts, earlier, lines, markdown, write
from wanimate.provenance.certificates import init

GIB = 2**30
HERE = Machine("NVIDIA H200", "139.8 GiB each", "580.65.06", "128.0 GiB")
ANSWERS = """
[gpu]
price_per_hour = 3.6
currency = "EUR"

[[pilot]]
asset_class = "advertising"
risk = "high"

[[pilot]]
asset_class = "training | films"
risk = "low"
owner = "Ann Lee"
date = "2027-01-15"
exit_criteria = "20 clips approved without a redraw"

[guideline]
retention = "two years"

[guideline.regions]
answer = "EU, US-NY"
state = "agreed"
by = "Legal"
on = "2026-11-30"
"""


def a_pace(mode: Any = "animation", **more: Any) -> Pace:
    told: dict[str, Any] = {
        "mode": mode, "checkpoint": "14B", "device": "cuda", "speed": "exact", "steps": 20, "frames": 50, "size": (1280, 720),
        "seconds": 100.0, "preprocessing": 5.0, "once": 30.0, "host": 12 * GIB, "gpu": 60 * GIB, "on": "2026-11-30",
    }  # fmt: skip
    return Pace(**(told | more))


def facts(**more: Any) -> Facts:
    told: dict[str, Any] = {
        "machine": HERE, "paces": [a_pace(), a_pace("replacement", seconds=200.0)], "flow": None, "certificate": None,
        "rules": "2026-11-01",
    }  # fmt: skip
    return Facts(**(told | more))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    (tmp_path / "answers.toml").write_text(ANSWERS)
    return tmp_path / "answers.toml"


def by_key(found: Any) -> dict[str, Any]:
    return {line.key: line for line in found}


def test_every_line_says_where_it_comes_from(answers: Path) -> None:
    found = by_key(lines(facts(), read_answers(answers)))
    assert {key: found[key].mark for key in ("machine.gpu", "animation.seconds", "gpu.price_per_hour", "animation.cost")} == {
        "machine.gpu": "found", "animation.seconds": "measured", "gpu.price_per_hour": "asked", "animation.cost": "derived",
    }  # fmt: skip
    assert found["animation.seconds"].value == 48  # 2 s a frame, 24 frames
    assert found["animation.cost"].value == "0.048 EUR"
    assert found["replacement.cost"].value == "0.096 EUR"
    assert found["animation.preprocessing"].value == 2.4
    assert found["animation.memory"].value == "GPU 60.0 GiB, host 12.0 GiB"
    assert (found["guideline.regions"].value, found["guideline.regions"].how) == (
        "EU, US-NY",
        "agreed, Legal, 2026-11-30",
    )
    assert (found["guideline.retention"].value, found["guideline.retention"].how) == ("two years", "open")
    assert found["guideline.visible_label"].value is None
    assert found["rules.checked"].value == "2026-11-01"
    assert [found[f"pilot.{number}.risk"].value for number in (1, 2)] == ["low", "high"]
    assert len(found) == len(lines(facts(), read_answers(answers)))


def test_without_a_run_or_a_price_nothing_is_made_up() -> None:
    found = by_key(lines(facts(paces=[]), Answers()))
    for mode in ("animation", "replacement"):
        assert [(found[f"{mode}.{what}"].mark, found[f"{mode}.{what}"].value) for what in ("seconds", "memory", "cost")] == [
            ("asked", None), ("asked", None), ("derived", None),
        ]  # fmt: skip
    assert by_key(lines(facts(), Answers()))["animation.cost"].value is None
    assert found["rules.checked"].value == "2026-11-01"
    assert by_key(lines(facts(rules=None), Answers()))["rules.checked"].value == "there is no table of rules"


def test_the_sheet_as_people_see_it(answers: Path) -> None:
    text = markdown(lines(facts(), read_answers(answers)))
    assert text == markdown(lines(facts(), read_answers(answers)))
    assert "| Price of the machine per hour | 3.6 | asked |  |" in text
    assert "| training \\| films | low | Ann Lee | 2027-01-15 | 20 clips approved without a redraw | asked |  |" in text
    assert text.index("| training \\| films |") < text.index("| advertising | high |")
    assert "| Design of the visible label | _to be answered_ | asked | open |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3, 5, 8}


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ({"gpu": {"price": 1}}, "gpu.price", "Known there are price_per_hour, currency"),
        ({"budget": 1}, "budget", "Known there are gpu, preprocessing, pilot, guideline"),
        ({"guideline": {"region": "EU"}}, "guideline.region", "there is no such question"),
        ({"guideline": {"regions": {"answer": "EU", "status": "x"}}}, "status", "Known there are answer, state, by, on"),
        ({"pilot": [{"asset_class": "x", "risk": "none"}]}, "pilot.0.risk", "'low', 'middle' or 'high'"),
        ({"gpu": {"price_per_hour": -1}}, "gpu.price_per_hour", "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_answers_to_no_question_are_refused(value: Any, field: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        answers_of(value)
    assert field in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(("name", "text"), [("a.toml", "{}"), ("a.json", "[gpu]"), ("a.toml", "[gpu")])
def test_files_that_hold_no_answers(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="neither TOML nor JSON"):
        read_answers(tmp_path / name)


def test_answers_are_kept(tmp_path: Path, answers: Path) -> None:
    out = tmp_path / "adoption.md"
    write(out, facts(), read_answers(answers))
    first = out.read_bytes()
    kept, runs, on = earlier(out)
    assert (kept, list(runs), on["gpu"]) == (read_answers(answers), facts().paces, "NVIDIA H200")
    write(out, facts(paces=runs), kept)
    assert out.read_bytes() == first
    more = answers_of({"gpu": {"price_per_hour": 7}, "guideline": {"retention": "three years"}}).over(kept)
    assert (more.gpu.currency, more.gpu.price_per_hour) == ("EUR", 7)
    assert (more.guideline.retention and more.guideline.retention.answer, len(more.pilot)) == ("three years", 2)


def test_what_people_wrote_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "adoption.md"
    out.write_text("my own")
    with pytest.raises(OutputError):
        write(out, facts(), Answers())
    assert out.read_text() == "my own"
    out.unlink()
    write(out, facts(), Answers())
    out.write_text(out.read_text() + "a note")
    with pytest.raises(OutputError, match="changed by hand"):
        write(out, facts(), Answers())
    write(out, facts(), Answers(), overwrite=True)
    assert "a note" not in out.read_text()
    with pytest.raises(OutputError, match=r"ends in \.md"):
        write(tmp_path / "adoption.txt", facts(), Answers())


def test_what_this_machine_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "marks"))
    assert machine().host.endswith(" GiB")
    assert certificate() is None
    with pytest.raises(InputError, match="no such file"):
        certificate(tmp_path / "gone.pem")
    (tmp_path / "bad.pem").write_text("x")
    assert "cannot be read" in (certificate(tmp_path / "bad.pem") or Certificate("")).problem
    init(tmp_path / "marks")
    found = certificate()
    assert found is not None
    assert (found.test, found.problem) == (True, "")
    told = by_key(lines(facts(certificate=found), Answers()))
    assert told["certificate.expires"].value == found.expires > "2026"
    assert "a test certificate" in told["certificate.name"].how


@pytest.mark.parametrize("mask", [None, "/film/roto/mask.mov"])
def test_a_folder_of_guides(tmp_path: Path, mask: str | None) -> None:
    folder = write_guides(tmp_path / "guides", 5, replacement=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"settings": {"mask": mask}, "backend": "mediapipe"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = by_key(lines(facts(flow=flow(folder)), Answers()))
    assert found["preprocessing.hand_made_masks"].value == ("no" if mask is None else "yes: mask.mov")
    assert found["preprocessing.hand_made_masks"].mark == "found"
    assert "mask.mkv" in found["preprocessing.files"].value


def test_the_oldest_check_of_a_rule(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[[rule]]\nchecked_on = 2026-11-02\n[[rule]]\nchecked_on = "2026-10-01"\n')
    assert rules_checked(tmp_path / "rules.toml") == "2026-10-01"
    assert rules_checked(tmp_path / "none.toml") is None


class AnAnimator:
    """Says what a job would have taken."""

    def __init__(self, checkpoint: Path | None, runtime: RuntimeSettings) -> None:
        from wanimate.api import Animator

        self.engine = Animator(checkpoint, runtime).engine
        self.jobs: list[Any] = []

    def __enter__(self) -> AnAnimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, job: Any) -> Iterator[Any]:
        from fractions import Fraction

        from wanimate.types import Result

        record = {
            "mode": job.mode, "checkpoint": {"name": "mannequin"}, "device": "cpu", "runtime": {"speed": "exact"},
            "settings": {"steps": 8}, "frames": 33, "size": [192, 192], "memory": {"host": GIB},
            "seconds": {
                "detect": 2.0, "draw": 1.0, "load": 4.0, "reference": 1.0, "conditions": 3.0, "denoise": 20.0, "decode": 4.0,
            },
        }  # fmt: skip
        assert (job.preprocess.area, job.preprocess.end) == (192 * 192, 33 / 16)
        yield Notice("working")
        yield Finished(Result(job.out, 33, (192, 192), Fraction(16), 1, None, record))


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: Path) -> None:
    monkeypatch.setattr(paces, "Animator", AnAnimator)
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "marks"))
    out = tmp_path / "adoption.md"

    def run(*words: object) -> tuple[dict[str, Any], dict[str, Any]]:
        done = CliRunner().invoke(app, ["worksheet", "--out", str(out), *map(str, words), "--json"])
        assert done.exit_code == 0, done.output
        told = json.loads(out.with_suffix(".json").read_text())
        return json.loads(done.stdout.splitlines()[-1]), {line["key"]: line for line in told["lines"]}

    result, told = run("--no-run")
    assert result["measured"] == 0
    assert told["animation.seconds"]["value"] is None
    result, told = run("--size", "192x192", "--answers", answers, "--fps", 25)
    assert told["animation.seconds"] | {"how": ""} == {
        "section": "Speed and cost", "key": "animation.seconds",
        "what": "Animation: seconds for a second of video, at 25 frames/s", "mark": "measured", "value": 22.7, "how": "",
    }  # fmt: skip
    assert told["replacement.once"]["value"] == 5
    again, kept = run("--no-run", "--fps", 25)
    assert kept == told
    assert again == result
    assert result["lines"] == result["measured"] + result["found"] + result["asked"] + result["derived"]


@pytest.mark.parametrize(("flag", "value"), [("--fps", "nan"), ("--fps", "0"), ("--size", "big")])
def test_sizes_and_rates_that_are_none(tmp_path: Path, flag: str, value: str) -> None:
    words = ["worksheet", "--out", str(tmp_path / "a.md"), "--no-run", flag, value, "--json"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["parameter"]) == (2, flag)


@pytest.mark.slow
def test_a_real_run() -> None:
    events = paces.measure(None, 96 * 96, RuntimeSettings(device="cpu"))
    while True:
        try:
            next(events)
        except StopIteration as end:
            found = end.value
            break
    assert [one.mode for one in found] == ["animation", "replacement"]
    assert all(one.frames == 33 and one.seconds > 0 and one.host > 0 and one.gpu is None for one in found)
