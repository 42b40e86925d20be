"""Files that are marked and looked at: signatures, sidecars, and what is lost or broken when somebody touches them."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.config import MarkSettings
from wanimate.config.marks import When
from wanimate.errors import InputError, OutputError
from wanimate.media.png import write_png
from wanimate.media.writer import LosslessWriter, VideoWriter
from wanimate.provenance import certificates, marking, signing
from wanimate.provenance.about import COMPOSITE, TRAINED, Source, about_job, payload_of
from wanimate.provenance.apply import apply
from wanimate.provenance.frames import FrameMarks
from wanimate.provenance.marking import mark_file, workplace
from wanimate.provenance.verify import Report, verify
from wanimate.types import Frame
from wanimate.weights.fingerprint import fingerprint

c2pa = pytest.importorskip("c2pa")
SIZE = (320, 180)
UNTOUCHED = MarkSettings(invisible=False)


@pytest.fixture(scope="module", autouse=True)
def certificate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates") / "marks"


@pytest.fixture(autouse=True)
def certified(certificate_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANIMATE_MARKS", str(certificate_folder))
    if not certificate_folder.is_dir():
        certificates.init(certificate_folder)
    return certificate_folder


def picture(at: int) -> Frame:
    small = np.random.default_rng(1).integers(20, 230, (12, 22, 3)).astype(np.uint8)
    whole = cv2.resize(small, (SIZE[0] + 40, SIZE[1] + 40), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(whole[at : at + SIZE[1], at : at + SIZE[0]])


def write_video(path: Path, count: int = 10, first: int = 0) -> Path:
    writer = LosslessWriter if path.suffix == ".mkv" else VideoWriter
    with writer(path, Fraction(24), *SIZE) as video:
        for i in range(count):
            video.write(picture(first + i))
    return path


def result(folder: Path, name: str = "hero.mp4", mode: str = "animation", **more: Any) -> tuple[Path, Path]:
    """A finished result with its record, and the inputs that it names."""
    folder.mkdir(exist_ok=True)
    image, clip, file = folder / "image.png", folder / "clip.mp4", folder / name
    write_png(image, picture(5))
    if not clip.exists():
        write_video(clip, first=3)
    if not file.suffix:
        file.mkdir()
        for i in range(3):
            write_png(file / f"{i:04d}.png", picture(i))
    else:
        write_video(file)
    record = {
        "schema": 2, "written": "2026-11-30T09:00:00+00:00", "out": name, "mode": mode, "fps": "24", "size": list(SIZE),
        "inputs": {what: {"path": str(one), "sha256": fingerprint(one)} for what, one in (("image", image), ("video", clip))},
        "frames": 10, "seed": 7, "checkpoint": {"name": "mannequin", "hashes": {"a": "sha256:1"}}, "warnings": [],
        "result": {"name": name, "sha256": None if file.is_dir() else fingerprint(file), "replaces": None}, **more,
    }  # fmt: skip
    path = folder / f"{file.stem}.json"
    path.write_text(json.dumps(record))
    return file, path


@pytest.fixture(scope="module")
def marked_once(tmp_path_factory: pytest.TempPathFactory, certificate_folder: Path) -> Path:
    """A marked mp4; tests copy it."""
    folder = tmp_path_factory.mktemp("marked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANIMATE_MARKS", str(certificate_folder))
        if not certificate_folder.is_dir():
            certificates.init(certificate_folder)
        file, record = result(folder, mode="replacement")
        apply(file, record, folder / "marked.mp4", MarkSettings(label="eu"))
    return folder / "marked.mp4"


@pytest.fixture
def marked(marked_once: Path, tmp_path: Path) -> Path:
    shutil.copy(marked_once.with_suffix(".json"), tmp_path / "marked.json")
    return Path(shutil.copy(marked_once, tmp_path / "marked.mp4"))


def states(report: Report) -> dict[str, str]:
    return {name: part["state"] for name, part in report.parts.items() if name != "label"}


def test_a_marked_mp4_is_found_valid_and_trusted(marked: Path) -> None:
    report = verify(marked)
    assert states(report) == {"watermark": "found", "xmp": "found", "c2pa": "found"}
    assert report.code == 0
    signed, record = report.parts["c2pa"], json.loads(marked.with_suffix(".json").read_text())
    assert signed["validity"] == "Trusted"
    assert signed["actions"] == ["c2pa.opened", "c2pa.edited", "c2pa.watermarked.bound"]
    assert signed["source_types"] == [COMPOSITE]
    assert {(one["title"], one["relationship"]) for one in signed["ingredients"]} == {
        ("clip of the performance", "parentOf"), ("picture of the character", "componentOf"),
    }  # fmt: skip
    assert signed["job"]["id"] == record["marks"]["id"]
    assert signed["job"]["seed"] == 7
    assert signed["soft_binding"] == report.parts["watermark"]["payload"] == f"{payload_of(record['marks']['id']):08x}"
    assert signed["disclosure"]["humanOversightLevel"] == "prompt_guided"
    assert {use["use"] for use in signed["training"].values()} == {"notAllowed"}
    assert report.parts["xmp"]["aigc"]["ProduceID"] == record["marks"]["id"]
    assert "cannot tell" in report.parts["label"]["words"]
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "valid"
    assert record["result"]["sha256"] == fingerprint(marked)


def test_somebody_without_the_root_sees_valid_but_unknown(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", "/nowhere")
    report = verify(marked)
    assert report.code == 0
    assert report.parts["c2pa"]["validity"] == "Valid"
    assert "nobody here knows" in report.parts["c2pa"]["words"]


def test_nothing_is_found_in_an_unmarked_file(tmp_path: Path) -> None:
    report = verify(write_video(tmp_path / "plain.mp4"))
    assert states(report) == {"watermark": "absent", "xmp": "absent", "c2pa": "absent"}
    assert report.code == 1


@pytest.mark.parametrize("where", ["picture", "xmp"])
def test_one_flipped_byte_breaks_the_signature(marked: Path, where: str) -> None:
    data = bytearray(marked.read_bytes())
    at = data.index(b"mdat") + 3000 if where == "picture" else data.index(b"ContentProducer")
    data[at] ^= 1
    marked.write_bytes(data)
    report = verify(marked)
    assert report.code == 2
    assert report.parts["c2pa"]["failures"] == ["assertion.bmffHash.mismatch"]


def test_a_flipped_byte_of_the_manifest_is_broken_too(marked: Path) -> None:
    data = bytearray(marked.read_bytes())
    data[data.index(b"notAllowed") + 1] ^= 1
    marked.write_bytes(data)
    assert verify(marked).code == 2


def test_a_re_mux_loses_metadata_and_keeps_the_watermark(marked: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    with av.open(str(marked)) as source, av.open(str(again), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    report = verify(again)
    assert states(report) == {"watermark": "found", "xmp": "absent", "c2pa": "absent"}
    assert report.code == 0


def test_a_crop_loses_every_mark_but_the_label(marked: Path, tmp_path: Path) -> None:
    cropped = tmp_path / "cropped.mp4"
    with av.open(str(marked)) as source, VideoWriter(cropped, Fraction(24), 280, 160) as writer:
        for frame in source.decode(video=0):
            writer.write(np.ascontiguousarray(frame.to_ndarray(format="rgb24")[10:170, 20:300]))
    report = verify(cropped)
    assert states(report) == {"watermark": "absent", "xmp": "absent", "c2pa": "absent"}
    assert report.code == 1


def test_a_second_signing_starts_from_the_first(marked: Path, tmp_path: Path) -> None:
    before = verify(marked).parts
    told = apply(
        marked,
        marked.with_suffix(".json"),
        tmp_path / "again.mp4",
        MarkSettings(),
        steps=("c2pa.resized", "c2pa.enhanced"),
    )
    assert told["payload"] == before["watermark"]["payload"], "a second watermark was put in"
    report = verify(tmp_path / "again.mp4")
    signed = report.parts["c2pa"]
    assert report.code == 0
    assert signed["validity"] == "Trusted"
    assert signed["manifests"] == 2
    assert signed["actions"] == ["c2pa.opened", "c2pa.resized", "c2pa.enhanced", "c2pa.watermarked.bound"]
    assert signed["ingredients"] == [{"title": "result before finishing", "relationship": "parentOf", "signed": True}]
    data = (tmp_path / "again.mp4").read_bytes()
    assert data.count(b"TC260:AIGC>{") == 1


def test_the_manifest_of_an_input_is_carried_on(marked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    shutil.copy(marked, folder / "clip.mp4")
    file, record = result(folder)
    apply(file, record, folder / "out.mp4", UNTOUCHED)
    signed = verify(folder / "out.mp4").parts["c2pa"]
    assert signed["manifests"] == 2
    assert signed["actions"] == ["c2pa.created"]
    assert signed["source_types"] == [TRAINED]
    assert [one["signed"] for one in signed["ingredients"]] == [False, True]
    assert {one["relationship"] for one in signed["ingredients"]} == {"inputTo"}


def test_an_input_that_changed_is_not_named(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    write_png(tmp_path / "image.png", picture(9))
    told = apply(file, record, tmp_path / "out.mp4", UNTOUCHED)
    assert "picture" in told["notices"][0]
    assert [one["title"] for one in verify(tmp_path / "out.mp4").parts["c2pa"]["ingredients"]] == [
        "clip of the performance"
    ]


def test_a_matroska_file_has_sidecars_and_a_second_signing_knows_them(tmp_path: Path) -> None:
    file, record = result(tmp_path, "hero.mkv")
    apply(file, record, tmp_path / "out.mkv", MarkSettings())
    report = verify(tmp_path / "out.mkv")
    assert states(report) == {"watermark": "found", "xmp": "found", "c2pa": "found"}
    assert report.parts["c2pa"]["beside"] == "out.c2pa"
    assert report.parts["xmp"]["where"] == "out.xmp"
    apply(tmp_path / "out.mkv", tmp_path / "out.json", tmp_path / "again.mkv", MarkSettings(), steps=("c2pa.enhanced",))
    signed = verify(tmp_path / "again.mkv").parts["c2pa"]
    assert signed["validity"] == "Trusted"
    assert signed["manifests"] == 2
    with (tmp_path / "out.mkv").open("r+b") as data:
        data.seek(-200, 2)
        data.write(b"x")
    report = verify(tmp_path / "out.mkv")
    assert report.code == 2
    assert report.parts["c2pa"]["failures"] == ["assertion.dataHash.mismatch"]
    (tmp_path / "again.c2pa").unlink()
    assert verify(tmp_path / "again.mkv").parts["c2pa"]["state"] == "absent"


def test_a_folder_of_pictures_becomes_a_signed_zip(tmp_path: Path) -> None:
    file, record = result(tmp_path, "frames")
    told = apply(file, record, tmp_path / "release", MarkSettings())
    assert told["files"][0].endswith("release.zip")
    assert "belongs into the job" in told["notices"][0]
    with zipfile.ZipFile(tmp_path / "release.zip") as archive:
        names = archive.namelist()
        assert archive.read("frames/0001.png") == (file / "0001.png").read_bytes()
    assert {"frames.xmp", "META-INF/content_credential.c2pa"} < set(names)
    report = verify(tmp_path / "release.zip")
    assert states(report) == {"watermark": "absent", "xmp": "found", "c2pa": "found"}
    data = bytearray((tmp_path / "release.zip").read_bytes())
    data[2000] ^= 1
    (tmp_path / "release.zip").write_bytes(data)
    assert verify(tmp_path / "release.zip").code == 2


def test_an_exr_has_sidecars(tmp_path: Path) -> None:
    file = tmp_path / "frame.exr"
    file.write_bytes(b"v/1\x01" + bytes(range(256)) * 8)
    _, record = result(tmp_path)
    mark_file(file, file, about_job(json.loads(record.read_bytes())), UNTOUCHED, False)
    report = verify(file)
    assert report.parts["c2pa"]["beside"] == "frame.c2pa"
    assert report.parts["xmp"]["state"] == "found"


def test_a_jobs_two_calls_mark_frames_and_its_temporary_file(tmp_path: Path) -> None:
    """What the job's writer does: marks on the frames as they come, then on the file before it gets its name."""
    import torch

    _, record = result(tmp_path)
    settings = MarkSettings(label="eu")
    about = about_job(json.loads(record.read_bytes()), "ab" * 16)
    marks = FrameMarks(settings, *SIZE, 24.0, about.id)
    writer = VideoWriter(tmp_path / "final.mp4", Fraction(24), *SIZE)
    for first in (0, 4):
        frames = torch.from_numpy(np.stack([picture(first + i) for i in range(4)])).permute(0, 3, 1, 2) / 255
        for frame in (marks.on(frames, first)[0] * 255).round().permute(0, 2, 3, 1).byte().numpy():
            writer.write(frame)
    writer.finish()
    with workplace(tmp_path / "final.mp4") as place:
        found = marking.marked(writer.temporary, tmp_path / "final.mp4", about, settings, True, place)
        assert found.file is not None
        writer.take(found.file)
    writer.commit()
    told = found.told
    assert told["xmp"] == "in the file"
    report = verify(tmp_path / "final.mp4")
    assert report.code == 0
    assert report.parts["watermark"]["payload"] == told["payload"] == f"{payload_of('ab' * 16):08x}"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_watermark_that_cannot_be_read_back_is_told_and_not_claimed(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    told = mark_file(file, tmp_path / "out.mp4", about_job(json.loads(record.read_bytes())), MarkSettings(), True)
    assert told["payload"] is None
    assert "cannot be read back" in told["notices"][0]
    assert verify(tmp_path / "out.mp4").parts["c2pa"]["soft_binding"] is None


def test_another_watermark_than_the_manifest_names_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = result(tmp_path)
    settings, about = MarkSettings(), about_job(json.loads(record.read_bytes()), "ab" * 16)
    other = FrameMarks(settings, *SIZE, 24.0, "cd" * 16)
    with VideoWriter(tmp_path / "other.mp4", Fraction(24), *SIZE) as writer:
        for i in range(6):
            writer.write(other.on_bytes(picture(i), i))
    monkeypatch.setattr("wanimate.provenance.marking._reads", lambda *_: True)
    mark_file(tmp_path / "other.mp4", tmp_path / "out.mp4", about, settings, True)
    report = verify(tmp_path / "out.mp4")
    assert report.code == 2
    assert "but the manifest names" in report.parts["watermark"]["words"]


def test_a_house_key_is_read_with_that_key_alone(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"a secret of the house\n")
    file, record = result(tmp_path)
    apply(file, record, tmp_path / "out.mp4", MarkSettings(invisible_key=key, sign=False, metadata=False))
    assert verify(tmp_path / "out.mp4").code == 1
    assert verify(tmp_path / "out.mp4", b"a secret of the house").code == 0


def test_sound_and_length_stay_when_frames_are_marked_anew(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    with_sound = tmp_path / "hero.mp4"
    with av.open(str(file)) as source, av.open(str(tmp_path / "s.mp4"), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=48000)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        for at in range(0, 20000, 1024):
            tone = np.sin(np.arange(at, at + 1024) / 20, dtype=np.float32)[None]
            block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            block.sample_rate, block.pts = 48000, at
            target.mux(sound.encode(block))
        target.mux(sound.encode(None))
    (tmp_path / "s.mp4").rename(with_sound)
    told = json.loads(record.read_text())
    told["result"]["sha256"] = fingerprint(with_sound)
    record.write_text(json.dumps(told))
    apply(with_sound, record, tmp_path / "out.mp4", MarkSettings())

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(tmp_path / "out.mp4") == packets(with_sound)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 10


def test_names_that_are_taken_and_other_files_are_refused(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"out\.mp4"):
        apply(file, record, tmp_path / "out.mp4", UNTOUCHED)
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"
    apply(file, record, tmp_path / "out.mp4", UNTOUCHED, overwrite=True)
    with pytest.raises(OutputError, match="input"):
        apply(file, record, file, UNTOUCHED, overwrite=True)
    with file.open("ab") as data:
        data.write(b"x")
    with pytest.raises(InputError, match="not the result"):
        apply(file, record, tmp_path / "new.mp4", UNTOUCHED)
    with pytest.raises(InputError, match="no record"):
        apply(file, tmp_path / "none.json", tmp_path / "new.mp4", UNTOUCHED)


def test_certificates_are_private_checked_and_never_written_over(tmp_path: Path, certified: Path) -> None:
    assert (certified / certificates.KEY).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputError, match="there already"):
        certificates.init(certified)
    other = tmp_path / "other"
    certificates.init(other)
    chain, key = certified / certificates.CHAIN, other / certificates.KEY
    with pytest.raises(InputError, match="not the certificate's key"):
        certificates.identity(MarkSettings(certificate=chain, private_key=key))
    with pytest.raises(InputError, match="belong together"):
        MarkSettings(certificate=chain)
    (tmp_path / "no.pem").write_bytes(b"hello")
    with pytest.raises(InputError, match="no certificate"):
        certificates.identity(MarkSettings(certificate=tmp_path / "no.pem", private_key=key))
    assert "PRIVATE" not in repr(certificates.identity(MarkSettings()))


def test_without_a_certificate_signing_is_left_out_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "none"))
    assert certificates.identity(MarkSettings()) is None
    with pytest.raises(InputError, match="marks init"):
        certificates.identity(MarkSettings(sign=True))


@pytest.mark.parametrize(("when", "final", "expected"), [
    ("off", True, False), ("finals", False, False), ("finals", True, True),
])  # fmt: skip
def test_takes_are_never_marked(when: When, final: bool, expected: bool) -> None:
    settings = MarkSettings(when=when, label="eu")
    assert (settings.asked(final, watermark=False) is not None) == expected
    label_alone = settings.asked(final, watermark=True)
    assert label_alone is not None
    assert (label_alone.whole, label_alone.label) == ((True, "eu") if expected else (False, "plain"))


def test_no_pictures_of_the_inputs_go_into_the_file(marked: Path) -> None:
    signed = signing.read(marked)
    assert signed is not None
    assert not any("thumbnail" in str(one) for one in signed.manifests[signed.active].get("ingredients", []))


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MARKS", str(tmp_path / "certificates"))
    file, _ = result(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["marks", "init"]).exit_code == 0
    assert run(app, ["marks", "init"]).exit_code == 2
    assert (
        run(app, ["marks", "apply", str(file), "--no-invisible", "--producer", "Studio", "--finished"]).exit_code == 0
    )
    told = run(app, ["verify", str(tmp_path / "hero.marked.mp4"), "--json"])
    found = json.loads(told.stdout.splitlines()[-1])
    assert told.exit_code == found["code"] == 0
    assert found["c2pa"]["actions"] == ["c2pa.created", "c2pa.resized", "c2pa.enhanced"]
    assert found["xmp"]["aigc"]["ContentProducer"] == "Studio"
    assert run(app, ["verify", str(file)]).exit_code == 1
    assert run(app, ["verify", str(tmp_path / "none.mp4")]).exit_code == 2
    assert run(app, ["marks", "apply", str(tmp_path / "clip.mp4"), "--sign"]).exit_code == 2


def test_verify_works_without_the_library_and_says_so(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    report = verify(marked)
    assert states(report) == {"watermark": "found", "xmp": "found", "c2pa": "unknown"}
    assert "pip install 'wanimate[c2pa]'" in report.parts["c2pa"]["words"]


def test_a_time_stamp_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    settings = UNTOUCHED.model_copy(update={"timestamp": "http://127.0.0.1:9/"})
    with pytest.raises(InputError, match="time stamp"):
        apply(file, record, tmp_path / "out.mp4", settings)
    assert not (tmp_path / "out.mp4").exists()


def test_guides_name_their_picture_and_their_clip(tmp_path: Path) -> None:
    _, record = result(tmp_path)
    clip, guides = tmp_path / "clip.mp4", tmp_path / "guides"
    guides.mkdir()
    write_png(guides / "reference.png", picture(1))
    source = {"path": str(clip), "sha256": fingerprint(clip).removeprefix("sha256:")}
    (guides / "manifest.json").write_text(json.dumps({"source": source}))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"inputs": {"guides": {"path": str(guides)}}}))
    assert [(one.role, one.sha256) for one in about_job(json.loads(record.read_bytes())).sources] == [
        ("picture", None), ("performance", fingerprint(clip)),
    ]  # fmt: skip


def test_sidecars_of_a_file_that_is_written_over_go(tmp_path: Path) -> None:
    file, record = result(tmp_path, "hero.mkv")
    apply(file, record, tmp_path / "out.mkv", MarkSettings())
    apply(file, record, tmp_path / "out.mkv", MarkSettings(sign=False, metadata=False), overwrite=True)
    assert not (tmp_path / "out.c2pa").exists()
    assert not (tmp_path / "out.xmp").exists()
    assert states(verify(tmp_path / "out.mkv")) == {"watermark": "found", "xmp": "absent", "c2pa": "absent"}


@pytest.mark.parametrize("signed_before", [True, False])
def test_finishing_tells_what_it_did_to_which_file(tmp_path: Path, signed_before: bool) -> None:
    """A larger file was made of a finished one, which was signed or was not."""
    file, record = result(tmp_path, mode="replacement")
    if signed_before:
        apply(file, record, tmp_path / "signed.mp4", UNTOUCHED)
        file = tmp_path / "signed.mp4"
    larger = write_video(tmp_path / "larger.mp4", first=1)
    about = about_job(json.loads(record.read_bytes()))
    sources = (*about.sources, Source("finished", file))
    about = replace(about, sources=sources, steps=("c2pa.resized", "c2pa.enhanced"))
    mark_file(larger, tmp_path / "final.mp4", about, UNTOUCHED, False)
    signed = verify(tmp_path / "final.mp4").parts["c2pa"]
    assert signed["validity"] == "Trusted"
    if signed_before:
        assert signed["actions"] == ["c2pa.opened", "c2pa.resized", "c2pa.enhanced"]
        assert [one["title"] for one in signed["ingredients"]] == ["result before finishing"]
        assert signed["manifests"] == 2
    else:
        assert signed["actions"] == ["c2pa.opened", "c2pa.edited", "c2pa.resized", "c2pa.enhanced"]
        assert len(signed["ingredients"]) == 2


def test_a_mov_holds_its_marks(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    movie = tmp_path / "hero.mov"
    with av.open(str(file)) as source, av.open(str(movie), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = json.loads(record.read_text())
    data["result"]["sha256"] = fingerprint(movie)
    record.write_text(json.dumps(data))
    apply(movie, record, tmp_path / "out.mov", MarkSettings())
    assert states(verify(tmp_path / "out.mov")) == {"watermark": "found", "xmp": "found", "c2pa": "found"}
    with av.open(str(tmp_path / "out.mov")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_h265_is_marked_anew_and_other_codecs_are_refused(tmp_path: Path) -> None:
    file, record = result(tmp_path)
    for codec, ending in (("libx265", "mp4"), ("mpeg4", "mp4")):
        again = tmp_path / f"{codec}.{ending}"
        with av.open(str(again), "w") as target:
            stream = target.add_stream(
                codec, rate=24, options={"x265-params": "log-level=error"} if codec == "libx265" else {}
            )
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for i in range(5):
                target.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
            target.mux(stream.encode(None))
        data = json.loads(record.read_text())
        data["result"]["sha256"] = fingerprint(again)
        record.write_text(json.dumps(data))
        if codec == "mpeg4":
            with pytest.raises(InputError, match="mpeg4 are not encoded anew"):
                apply(again, record, tmp_path / "no.mp4", MarkSettings())
            assert not (tmp_path / "no.mp4").exists()
        else:
            apply(again, record, tmp_path / "yes.mp4", MarkSettings())
            assert verify(tmp_path / "yes.mp4").code == 0
            with av.open(str(tmp_path / "yes.mp4")) as container:
                assert container.streams.video[0].codec_context.name == "hevc"
    assert file.exists()


def test_a_folder_is_marked_by_the_command_without_a_name(tmp_path: Path) -> None:
    file, _ = result(tmp_path, "shot")
    told = CliRunner().invoke(app, ["marks", "apply", str(file), "--json"])
    assert told.exit_code == 0, told.stdout
    names = [Path(path).name for path in json.loads(told.stdout.splitlines()[-1])["files"]]
    assert names == ["shot.marked.zip", "shot.marked.json"]
    assert verify(tmp_path / "shot.marked.zip").code == 0


def test_damaged_files_end_in_a_report(marked: Path, tmp_path: Path) -> None:
    folder, record = result(tmp_path / "job", "frames")
    apply(folder, record, tmp_path / "frames.zip", MarkSettings())
    rng = np.random.default_rng(0)
    for file in (marked, tmp_path / "frames.zip", folder / "0000.png"):
        whole = file.read_bytes()
        for _ in range(3):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 100).tolist():
                data[at] ^= 0x55
            for damaged in (data, whole[: int(rng.integers(len(whole)))], data[:100]):
                file.write_bytes(damaged)
                report = verify(file)
                assert report.parts["c2pa"]["state"] != "found"
                assert report.code in (0, 1, 2)
    assert not any(path.name.startswith(".wanimate") for path in tmp_path.rglob("*"))
