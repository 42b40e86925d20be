"""Finals are marked by the job that makes them: on their frames, in and beside their file, under one name at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip
from tiny_checkpoints import Shape, write_guides

from wanimate.api import Animator
from wanimate.cli.main import app
from wanimate.config import GenerateSettings, Job, MarkSettings, OutputSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Finished, Notice, StepDone
from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputLock
from wanimate.jobs import run
from wanimate.jobs.delivery import Delivery, Order
from wanimate.jobs.finish import finish
from wanimate.media.master import open_master
from wanimate.media.names import temporary_name
from wanimate.post.base import VideoSpec
from wanimate.preprocess.guides import load_guides
from wanimate.provenance import certificates, marking, signing
from wanimate.provenance.about import COMPOSITE, TRAINED, payload_of
from wanimate.provenance.forms import zip_of
from wanimate.provenance.frames import FrameMarks
from wanimate.provenance.label import Label
from wanimate.provenance.verify import Report, verify
from wanimate.types import Result
from wanimate.weights.fingerprint import fingerprint

pytest.importorskip("c2pa")
WIDTH, HEIGHT, COUNT = 128, 64, 9
SETTINGS = GenerateSettings(steps=1, seed=7, clip_length=5, overlap=1, solver="euler")
"""9 frames are two segments with them."""
FINAL = OutputSettings(codec="ffv1", final=True)
TAKE = OutputSettings(codec="ffv1")


@pytest.fixture(scope="module")
def certificate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "marks"
    certificates.init(folder)
    return folder


@pytest.fixture(autouse=True)
def certified(certificate_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", str(certificate_folder))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Guides whose frames hold a watermark."""
    root = tmp_path_factory.mktemp("large")

    def of(replacement: bool = False) -> Path:
        folder = root / f"guides-{replacement}"
        return folder if folder.is_dir() else write_guides(folder, COUNT, Shape(WIDTH, HEIGHT), replacement)

    return of


@pytest.fixture
def made(animator: Animator, large: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Result, list[str]]]:
    def make(
        name: str, output: OutputSettings = FINAL, marks: MarkSettings = MarkSettings(), replacement: bool = False,
        settings: GenerateSettings = SETTINGS,
    ) -> tuple[Result, list[str]]:  # fmt: skip
        events = list(animator.generate(large(replacement), tmp_path / name, settings, output, marks=marks))
        assert isinstance(events[-1], Finished)
        return events[-1].result, [event.message for event in events if isinstance(event, Notice)]

    return make


@pytest.fixture(scope="module")
def take(animator: Animator, large: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A take, with its record beside it."""
    out = tmp_path_factory.mktemp("take") / "take.mkv"
    list(animator.generate(large(), out, SETTINGS, TAKE))
    return out


def finished(master: Path, out: Path, marks: MarkSettings = MarkSettings(), **settings: Any) -> Result:
    output = OutputSettings(**{"codec": "ffv1", "final": True, **settings})
    *_, last = finish(master, out, output, device="cpu", marks=marks)
    assert isinstance(last, Finished)
    return last.result


def states(report: Report) -> dict[str, str]:
    return {name: part["state"] for name, part in report.parts.items() if name != "label"}


ALL = {"watermark": "found", "xmp": "found", "c2pa": "found"}


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(("name", "codec", "beside"), [
    ("a.mp4", "h264", []), ("a.mov", "prores-hq", []), ("a.mkv", "ffv1", ["a.c2pa", "a.xmp"]),
    ("a", "png", ["a.zip"]), ("a", "exr", ["a.zip"]),
])  # fmt: skip
def test_a_final_of_every_form_has_all_marks(
    take: Path, tmp_path: Path, name: str, codec: str, beside: list[str]
) -> None:
    if codec == "exr":
        pytest.importorskip("OpenEXR")
    result = finished(take, tmp_path / name, MarkSettings(label="plain"), codec=codec, crf=4)
    assert names(tmp_path) == sorted({name, "a.json", *beside})
    report = verify(zip_of(result.out) if result.out.is_dir() else result.out)
    assert states(report) == ALL
    assert report.code == 0
    record = json.loads((tmp_path / "a.json").read_text())
    told, signed = record["marks"], report.parts["c2pa"]
    assert signed["validity"] == "Trusted"
    assert signed["source_types"] == [TRAINED]
    assert signed["job"]["id"] == told["id"] == report.parts["xmp"]["aigc"]["ProduceID"]
    assert (signed["job"]["size"], signed["job"]["frames"], signed["job"]["seed"]) == (f"{WIDTH}x{HEIGHT}", COUNT, 7)
    assert report.parts["xmp"]["created"] == record["written"]
    assert report.parts["watermark"]["payload"] == told["payload"] == f"{payload_of(told['id']):08x}"
    assert (told["label"], told["notices"]) == ("plain", [])
    assert MarkSettings.model_validate(told["settings"]) == MarkSettings(label="plain")
    assert [one["name"] for one in record.get("beside", [])] == sorted(beside, reverse=True)
    assert all(one["sha256"] == fingerprint(tmp_path / one["name"]) for one in record.get("beside", []))
    if not result.out.is_dir():
        assert record["result"]["sha256"] == fingerprint(result.out)


@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_what_a_job_makes_tells_how(made: Any, mode: str) -> None:
    result, _ = made("a.mp4", OutputSettings(final=True, crf=4), replacement=mode == "replacement")
    report = verify(result.out)
    assert (states(report), report.code) == (ALL, 0)
    signed = report.parts["c2pa"]
    assert signed["source_types"] == [COMPOSITE if mode == "replacement" else TRAINED]
    assert [one["title"] for one in signed["ingredients"]] == ["picture of the character"]
    assert (signed["job"]["mode"], signed["job"]["seed"], signed["job"]["schema"]) == (
        mode,
        7,
        result.manifest["schema"],
    )
    assert report.parts["xmp"]["created"] == result.manifest["written"]


def test_a_job_from_picture_and_clip_names_both(
    animator: Animator, large: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: Any) -> Any:
        yield from ()
        return load_guides(large())

    monkeypatch.setattr(run.drive, "preprocess", drawn)
    clip, image = make_clip(tmp_path / "dance.mp4"), tmp_path / "hero.png"
    Image.new("RGB", (64, 96), (200, 30, 60)).save(image)
    given = {"image": image, "video": clip, "area": 64 * 96, "codec": "ffv1", "steps": 1, "seed": 7, "clip_length": 5}
    list(animator.run(Job.of(out=tmp_path / "a.mkv", final=True, overlap=1, label="plain", **given)))
    report = verify(tmp_path / "a.mkv")
    assert states(report) == ALL
    assert [(one["title"], one["relationship"]) for one in report.parts["c2pa"]["ingredients"]] == [
        ("picture of the character", "inputTo"), ("clip of the performance", "inputTo"),
    ]  # fmt: skip
    names_of_people = (b"dance.mp4", b"hero.png", bytes(tmp_path))
    assert not any(
        name in (tmp_path / f"a.{ending}").read_bytes() for name in names_of_people for ending in ("c2pa", "xmp")
    )


def test_what_a_killed_process_left_while_it_marked_is_removed(take: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in ("a.mkv", "a.c2pa", "a.xmp"):
        left = temporary_name(tmp_path / name)
        left = left.with_name(left.name.replace(f".{os.getpid()}-", f".{gone.pid}-"))
        left.mkdir() if name == "a.mkv" else left.write_bytes(b"half")
    finished(take, tmp_path / "a.mkv", MarkSettings(invisible=False))
    assert names(tmp_path) == ["a.c2pa", "a.json", "a.mkv", "a.xmp"]


def test_takes_stay_as_they_are(take: Path, tmp_path: Path) -> None:
    plain = finished(take, tmp_path / "plain.mkv", final=False)
    off = finished(take, tmp_path / "off.mkv", MarkSettings(when="off", label="eu"))
    said = [
        event.message
        for event in finish(take, tmp_path / "take.mkv", TAKE, device="cpu", marks=MarkSettings(label="eu"))
        if isinstance(event, Notice)
    ]
    assert len({(tmp_path / f"{name}.mkv").stat().st_size for name in ("plain", "off", "take")}) == 1
    for other in ("off.mkv", "take.mkv"):
        assert torch.equal(*(torch.cat(list(open_master(tmp_path / name).frames())) for name in ("plain.mkv", other)))
    assert any("is a take" in text for text in said), "what is asked for and not done is told"
    assert not any(path.suffix in (".c2pa", ".xmp") for path in tmp_path.iterdir())
    for result in (plain, off):
        assert not {"marks", "beside"} & result.manifest.keys()


def test_a_final_without_a_certificate_says_that_it_is_not_signed(
    take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "none"))
    events = list(finish(take, tmp_path / "a.mkv", FINAL, device="cpu"))
    assert any("not signed" in event.message for event in events if isinstance(event, Notice))
    assert states(verify(tmp_path / "a.mkv")) == ALL | {"c2pa": "absent"}
    with pytest.raises(InputError, match="marks init"):
        finished(take, tmp_path / "b.mkv", MarkSettings(sign=True))
    assert not (tmp_path / "b.mkv").exists()


@pytest.mark.parametrize("marks", [
    MarkSettings(label="china", label_text="AI"), MarkSettings(label="eu", label_font="none"),
    MarkSettings(invisible_key="none"),
])  # fmt: skip
def test_marks_that_cannot_be_are_refused_before_any_work(made: Any, tmp_path: Path, marks: MarkSettings) -> None:
    with pytest.raises(InputError) as caught:
        made("a.mkv", FINAL, marks)
    assert caught.value.field.startswith("marks.")
    assert names(tmp_path) == []


def test_a_final_that_was_killed_goes_on_with_its_id(
    animator: Animator, large: Callable[..., Path], made: Any, tmp_path: Path
) -> None:
    events = animator.generate(large(), tmp_path / "a.mkv", SETTINGS, FINAL)
    for event in events:
        if isinstance(event, StepDone) and event.segment == 1:
            break
    events.close()
    assert names(tmp_path) == [".a.mkv.work"]
    stored = json.loads((tmp_path / ".a.mkv.work" / "job.json").read_text())
    result, told = made("a.mkv")
    assert "1 of 2 segments are there from an earlier run" in told
    assert result.manifest["marks"]["id"] == stored["result_id"]
    assert states(verify(result.out)) == ALL
    again, _ = made("a.mkv")
    assert again.manifest["marks"]["id"] != stored["result_id"], "another result"


@pytest.mark.slow
def test_a_segment_of_a_final_is_redrawn(made: Any, tmp_path: Path) -> None:
    kept = FINAL.model_copy(update={"keep_segments": True})
    first, _ = made("a.mkv", kept)
    second, _ = made("a.mkv", kept, settings=SETTINGS.model_copy(update={"redraw": 2, "seed": 9}))
    assert second.manifest["redraws"] == {"2": {"seed": 9, "blended": False}}
    assert second.manifest["marks"]["id"] != first.manifest["marks"]["id"]
    assert {one["name"]: one["replaces"] for one in second.manifest["beside"]} == {
        one["name"]: one["sha256"] for one in first.manifest["beside"]
    }
    assert states(verify(second.out)) == ALL


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a"])
def test_a_signature_that_fails_leaves_what_was_there(
    take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    codec = {"a.mkv": "ffv1", "a.mp4": "h264", "a": "png"}[name]
    if name != "a":
        finished(take, tmp_path / name, codec=codec)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(signing, "sign", refusing)
    with pytest.raises(OutputError, match="cannot be signed") as caught:
        finished(take, tmp_path / name, codec=codec)
    assert (caught.value.field, caught.value.value) == ("out", tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def refusing(source: Path, *_: Any) -> Any:
    raise InputError("file", source, "it cannot be signed", "See to the certificate.")


def test_a_job_whose_signature_fails_keeps_its_segments(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(signing, "sign", refusing)
        with pytest.raises(OutputError, match="cannot be signed"):
            made("a.mkv")
    assert names(tmp_path) == [".a.mkv.work"]
    _, told = made("a.mkv")
    assert "2 of 2 segments are there from an earlier run" in told


def test_a_full_disk_while_marks_are_written_leaves_nothing(
    take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(marking, "_embed", full)
    with pytest.raises(OutputError, match="disk is full"):
        finished(take, tmp_path / "a.mp4", codec="h264")
    assert names(tmp_path) == []


def test_what_lies_beside_follows_its_result(take: Path, tmp_path: Path) -> None:
    first = finished(take, tmp_path / "a.mkv")
    second = finished(take, tmp_path / "a.mkv", MarkSettings(sign=False))
    assert names(tmp_path) == ["a.json", "a.mkv", "a.xmp"], "the signature was the older one's"
    older = {one["name"]: one["sha256"] for one in first.manifest["beside"]}
    assert {one["name"]: one["replaces"] for one in second.manifest["beside"]} == older
    assert next(one for one in second.manifest["beside"] if one["name"] == "a.c2pa")["sha256"] is None
    finished(take, tmp_path / "a.mkv", final=False)
    assert names(tmp_path) == ["a.json", "a.mkv"]


def test_files_of_others_beside_a_result_are_not_written_over(take: Path, tmp_path: Path) -> None:
    (tmp_path / "a.xmp").write_text("of somebody")
    with pytest.raises(OutputError, match=r"a\.xmp.*nothing proves") as caught:
        finished(take, tmp_path / "a.mkv")
    assert caught.value.field == "out"
    finished(take, tmp_path / "a.mkv", final=False)
    assert (tmp_path / "a.xmp").read_text() == "of somebody", "a take has none"
    record = json.loads((tmp_path / "a.json").read_text())
    record["beside"] = [{"name": "a.xmp", "sha256": "sha256:1", "replaces": None}]
    (tmp_path / "a.json").write_text(json.dumps(record))
    finished(take, tmp_path / "a.mkv", final=False)
    assert (tmp_path / "a.xmp").read_text() == "of somebody", "a record does not prove it"


def test_an_input_is_no_place_for_marks(take: Path, tmp_path: Path) -> None:
    key = tmp_path / "a.xmp"
    key.write_text("a key of the house")
    with pytest.raises(OutputError, match="input of the job"):
        finished(take, tmp_path / "a.mkv", MarkSettings(invisible_key=key), overwrite=True)


def test_a_kept_result_keeps_what_lies_beside_it(take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OutputWriter.finish

    def meanwhile(self: OutputWriter) -> None:
        whole(self)
        (tmp_path / "a.mkv").write_text("of somebody")

    monkeypatch.setattr(OutputWriter, "finish", meanwhile)
    with pytest.raises(OutputError, match="is kept as"):
        finished(take, tmp_path / "a.mkv")
    kept = [path for path in tmp_path.iterdir() if ".kept-" in path.name]
    assert sorted(path.suffix for path in kept) == [".c2pa", ".mkv", ".xmp"]
    assert names(tmp_path) == sorted(["a.mkv", *(path.name for path in kept)])


def texture(count: int = COUNT) -> torch.Tensor:
    small = np.random.default_rng(1).integers(20, 230, (12, 22, 3)).astype(np.uint8)
    picture = cv2.resize(small, (320, 180), interpolation=cv2.INTER_CUBIC)
    return (torch.from_numpy(picture).permute(2, 0, 1) / 255).expand(count, -1, -1, -1)


def delivered(out: Path, marks: MarkSettings | None, **settings: Any) -> torch.Tensor:
    """The frames of a result of textured ones."""
    output = OutputSettings(codec="ffv1", **settings)
    order = Order(VideoSpec((320, 180), Fraction(24), COUNT), marks=marks, id="ab" * 16)
    with OutputLock(out, output, marks=marks) as lock, Delivery(order, lock) as delivery:
        for start in (0, 4):
            delivery.add(texture()[start : start + 4 + start // 4])
        delivery.finish()
    return torch.cat(list(open_master(out).frames()))


def test_the_label_is_on_the_slate_and_above_the_words(tmp_path: Path) -> None:
    marks = MarkSettings(label="plain", invisible=False)
    plain = delivered(tmp_path / "plain.mkv", None, slate=True, burn_in="name,timecode", shot="S1")
    labelled = delivered(tmp_path / "labelled.mkv", marks, slate=True, burn_in="name,timecode", shot="S1")
    changed = (plain != labelled).any(dim=1)
    assert changed.flatten(1).any(dim=1).all(), "every frame, the slate as well"
    rows = changed.any(dim=0).any(dim=1).nonzero().flatten()
    band = (plain[1] != texture()[0]).any(dim=0).any(dim=1).nonzero().flatten()
    assert rows.max() < band.min(), "neither hides the other"
    alone = delivered(tmp_path / "alone.mkv", marks)
    left, top, right, bottom = Label(320, 180, marks).box
    outside = alone.clone()
    outside[:, :, top:bottom, left:right] = texture()[:, :, top:bottom, left:right]
    assert (outside - texture()).abs().max() <= 0.51 / 255


def test_seconds_of_the_label_count_from_the_first_picture(tmp_path: Path) -> None:
    marks = MarkSettings(label="plain", label_seconds=4 / 24, invisible=False)
    plain, labelled = delivered(tmp_path / "a.mkv", None, slate=True), delivered(tmp_path / "b.mkv", marks, slate=True)
    assert (plain != labelled).flatten(1).any(dim=1).tolist() == [True] * 5 + [False] * 5


def test_the_short_form_of_the_label_is_the_plain_one(tmp_path: Path) -> None:
    """`output.watermark`, for takes as well."""
    short = OutputSettings(watermark=True)
    alone = MarkSettings().asked(short.final, short.watermark)
    assert alone is not None
    marked = delivered(tmp_path / "a.mkv", alone, watermark=True)
    expected, _ = Label(320, 180, MarkSettings(label="plain")).on(texture())
    assert (marked - expected).abs().max() <= 0.51 / 255
    assert names(tmp_path) == ["a.mkv"]


def test_marking_frames_keeps_none_of_them() -> None:
    marks = FrameMarks(MarkSettings(label="eu"), 320, 180, 24.0, "id")
    frames = texture(2).clone()
    gone, out = weakref.ref(frames), weakref.ref(marks.on(frames, 0)[0])
    del frames
    assert gone() is None
    assert out() is None


SLOWER = {"fps_out": 60, "interpolate": "hold"}


def test_finishing_a_signed_final_starts_from_it(take: Path, tmp_path: Path) -> None:
    master = finished(take, tmp_path / "m.mkv", MarkSettings(label="eu"))
    result = finished(master.out, tmp_path / "a.mkv", MarkSettings(label="plain"), **SLOWER)
    report, before, told = verify(result.out), master.manifest["marks"], result.manifest["marks"]
    assert states(report) == ALL
    signed = report.parts["c2pa"]
    assert (signed["validity"], signed["manifests"]) == ("Trusted", 2)
    assert signed["actions"] == ["c2pa.opened", "c2pa.enhanced", "c2pa.watermarked.bound"]
    assert signed["ingredients"] == [{"title": "result before finishing", "relationship": "parentOf", "signed": True}]
    assert signed["job"]["frames"] == result.count > COUNT
    assert (told["id"], told["payload"], told["label"]) == (before["id"], before["payload"], "eu")
    stored = torch.cat(list(open_master(master.out).frames()))
    assert torch.equal(next(iter(open_master(result.out).frames()))[0], stored[0]), (
        "no second label, no second watermark"
    )


def test_finishing_a_take_to_a_final_names_the_takes_inputs(take: Path, tmp_path: Path) -> None:
    between = finished(take, tmp_path / "between.mkv", final=False, **SLOWER)
    assert "marks" not in between.manifest
    result = finished(between.out, tmp_path / "a.mkv", MarkSettings(label="plain"))
    report = verify(result.out)
    assert states(report) == ALL
    assert report.parts["c2pa"]["actions"] == ["c2pa.created", "c2pa.enhanced", "c2pa.watermarked.bound"]
    assert [one["title"] for one in report.parts["c2pa"]["ingredients"]] == ["picture of the character"]


def test_marks_are_known_through_a_take_of_a_final(take: Path, tmp_path: Path) -> None:
    master = finished(take, tmp_path / "m.mkv", MarkSettings(label="eu"))
    between = finished(master.out, tmp_path / "between.mkv", final=False, **SLOWER)
    told = between.manifest["marks"]
    assert (told["id"], told["xmp"], told["label"]) == (master.manifest["marks"]["id"], None, "eu")
    result = finished(between.out, tmp_path / "a.mkv", MarkSettings(label="plain"))
    assert result.manifest["marks"]["payload"] == master.manifest["marks"]["payload"]
    assert torch.equal(*(torch.cat(list(open_master(one.out).frames())) for one in (between, result)))
    signed = verify(result.out).parts["c2pa"]
    assert signed["actions"] == ["c2pa.opened", "c2pa.enhanced", "c2pa.watermarked.bound"]
    assert (signed["validity"], signed["manifests"]) == ("Trusted", 2)


def test_a_master_that_nothing_tells_of_is_no_final(take: Path, tmp_path: Path) -> None:
    master = Path(shutil.copy(take, tmp_path / "m.mkv"))
    with pytest.raises(InputError, match="record is missing") as caught:
        finished(master, tmp_path / "a.mkv")
    assert caught.value.field == "output.final"
    assert not (tmp_path / "a.mkv").exists()
    assert finished(master, tmp_path / "b.mkv", final=False, watermark=True).count == COUNT


def test_the_commands_take_marks(take: Path, tmp_path: Path) -> None:
    asked = ["finish", str(take), "--out", str(tmp_path / "a.mp4"), "--crf", "4", "--final"]
    outcome = CliRunner().invoke(app, [*asked, "--label", "eu", "--producer", "Studio"])
    assert outcome.exit_code == 0, outcome.output
    assert "marked" in outcome.output
    seen = CliRunner().invoke(app, ["verify", str(tmp_path / "a.mp4")])
    assert seen.exit_code == 0, seen.output
    off = [*asked[:3], str(tmp_path / "b.mp4"), *asked[4:], "--marks", "off"]
    assert CliRunner().invoke(app, off).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "b.mp4")]).exit_code == 1


def test_marks_are_a_part_of_a_job(tmp_path: Path) -> None:
    job = Job.of("a.png", "a.mp4", "out.mp4", final=True, label="china", producer="Studio")
    assert (job.output.final, job.marks) == (True, MarkSettings(label="china", producer="Studio"))
    assert Job.model_validate(job.model_dump(mode="json")) == job
    with pytest.raises(InputError) as caught:
        Job.of("a.png", "a.mp4", "out.mp4", label="none of these")
    assert caught.value.field == "marks.label"
