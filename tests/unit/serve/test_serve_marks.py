"""Marks of a service's results: finals alone, by the operator's settings, with everything that verifies them."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from tiny_checkpoints import Shape, own_checkpoint, write_guides

from wanimate.config import MarkSettings
from wanimate.errors import InputError
from wanimate.jobs.cancel import CancelToken
from wanimate.provenance import certificates
from wanimate.provenance.verify import verify
from wanimate.serve.queue import Claim
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, Stage
from wanimate.serve.worker.wan import WanRunner, check_marks
from wanimate.serve.worker.work import Work

pytest.importorskip("c2pa")
FAST = {"seed": 7, "steps": 1, "clip_length": 5, "overlap": 1, "solver": "euler"}


class Place:
    """A runner without queue and database, and a storage with guides."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = own_checkpoint(folder / "tiny")
        self.settings = ServeSettings(data=folder / "data", checkpoints={"tiny": self.checkpoint})
        self.storage = Storage(self.settings.storage_url, b"a secret of 16 bytes")
        for file in write_guides(folder / "guides", 5, Shape(160, 96)).iterdir():
            self.storage.put(f"g/guides/{file.name}", file)

    def made(self, folder: Path, finals: Any = "asked", **given: Any) -> tuple[Work, Path]:
        """What a job makes, and its files, fetched under the names that a client gets."""
        settings = self.settings.model_copy(update={"finals": finals, "marks": MarkSettings(label="eu")})
        submission = Submission.of({"kind": "generate", "parent": "p", "generate": FAST, **given})
        id = str(uuid.uuid4())
        job = Job(id=id, checkpoint="tiny", submission=submission.model_dump(), attempt=1, facts={})
        claim = Claim(id, 1, "w", Stage.GENERATE, job)
        work = Work(claim, submission, settings, self.storage, CancelToken(), folder / "scratch", guides="g")
        runner = WanRunner(settings, "cpu")
        list(runner.generate(work))
        runner.close()
        fetched = folder / "fetched"
        fetched.mkdir()
        for stored in work.result.values():
            self.storage.fetch(stored, fetched / Path(stored).name)
        return work, fetched / Path(work.result["video"]).name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def certified(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "serve-certificates"
    monkeypatch.setenv("WANIMATE_MARKS", str(folder))
    if not folder.is_dir():
        certificates.init(folder)


@pytest.mark.parametrize("codec", ["ffv1", "png"])
def test_a_final_comes_with_what_verifies_it(place: Place, tmp_path: Path, codec: str) -> None:
    work, video = place.made(tmp_path, output={"codec": codec, "final": True})
    assert {name for name in work.result if name in ("xmp", "c2pa")} == ({"xmp", "c2pa"} if codec == "ffv1" else set())
    report = verify(video)
    assert report.code == 0
    assert {part["state"] for name, part in report.parts.items() if name != "label"} == {"found"}
    marks: Any = work.facts["marks"]
    assert (marks["label"], marks["payload"]) == ("eu", report.parts["watermark"]["payload"])
    assert marks["c2pa"]["test"] is True
    record = json.loads(video.with_suffix(".json").read_text())
    assert str(place.settings.data) not in json.dumps(record)


def test_a_take_has_none_whatever_the_settings_say(place: Place, tmp_path: Path) -> None:
    work, video = place.made(tmp_path, output={"codec": "ffv1"})
    assert verify(video).code == 1
    assert "marks" not in work.facts
    assert not {"xmp", "c2pa"} & work.result.keys()


def test_a_house_can_say_that_all_results_are_finals() -> None:
    asked, every = ServeSettings(), ServeSettings(finals="all")
    for output, expected in (({}, False), ({"final": False}, False), ({"final": True}, True)):
        submission = Submission.of({"kind": "generate", "parent": "p", "output": output})
        assert submission.output_settings(asked).final is expected
        assert submission.output_settings(every).final is True


def test_the_operator_sets_marks_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('finals = "all"\n[marks]\nlabel = "china"\nproducer = "Studio"\n')
    settings = ServeSettings.of(file)
    assert (settings.finals, settings.marks) == ("all", MarkSettings(label="china", producer="Studio"))
    assert ServeSettings(**settings.model_dump(mode="json")) == settings, "as a worker gets them"
    file.write_text('[marks]\nlabel = "none of these"\n')
    with pytest.raises(InputError) as caught:
        ServeSettings.of(file)
    assert caught.value.field == "serve.marks.label"
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "none"))
    check_marks(ServeSettings())
    with pytest.raises(InputError, match="no certificate"):
        check_marks(ServeSettings(marks=MarkSettings(sign=True)))
    with pytest.raises(InputError, match="cannot be read"):
        check_marks(ServeSettings(marks=MarkSettings(invisible_key=tmp_path / "key")))
    check_marks(ServeSettings(marks=MarkSettings(when="off", sign=True)))
