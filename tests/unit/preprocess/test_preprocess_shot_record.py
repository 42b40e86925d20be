"""Shot records in guides and by themselves: proposed, confirmed, corrected, kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_preprocess_drive import COUNT, FakePeople, _figure, _run
from test_preprocess_drive import clip as clip

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.probe import probe
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.pose.person import PersonPose
from wanimate.preprocess.shot.clip import analyse_clip
from wanimate.preprocess.shot.proposals import of_file
from wanimate.preprocess.shot.record import ShotRecord
from wanimate.preprocess.shot.stored import change_record, hash_without_record, read_record, told_record
from wanimate.types import Clip, Frame
from wanimate.weights.checkpoint import drained


def test_guides_have_a_record_that_people_confirm_and_correct(clip: Clip, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    guides, _ = _run(clip, folder, FakePeople())
    record = read_record(folder)
    assert record.plain() == guides.manifest["shot"] == told_record(guides.manifest)
    (shot,) = record.shots
    assert (shot.first, shot.stop, record.history) == (0, COUNT, [])
    size = shot.values["xmpDM:shotSize"]
    assert (size.value, size.by) == ("WS", "analysis")
    before = hash_without_record(folder / "manifest.json")
    change_record(folder, lambda one: one.confirmed(None, "shotSize", "Ann"))
    changed = change_record(folder, lambda one: one.corrected(1, "cameramove", "dolly in", "Bob"))
    assert read_record(folder) == changed
    values = changed.shots[0].values
    assert [(values[f"xmpDM:{name}"].value, values[f"xmpDM:{name}"].by) for name in ("shotSize", "cameraMove")] == [
        ("WS", "Ann"), ("Dolly In", "Bob"),
    ]  # fmt: skip
    assert [(one.field, one.by) for one in changed.history] == [
        ("xmpDM:shotSize", "analysis"),
        ("xmpDM:cameraMove", "analysis"),
    ]
    assert changed.history[0].confidence == size.confidence
    assert hash_without_record(folder / "manifest.json") == before
    assert load_guides(folder).count == COUNT
    again, _ = _run(clip, folder, FakePeople())
    kept = ShotRecord.of(again.manifest["shot"])
    assert kept.shots[0].values["xmpDM:cameraMove"].value == "Dolly In", (
        "the same frames prepared anew keep what people said"
    )
    assert len(kept.history) == 4
    other, _ = _run(clip, folder, FakePeople(), start=0.1)
    assert ShotRecord.of(other.manifest["shot"]).history == []


def test_a_correction_changes_the_advice(clip: Clip, tmp_path: Path) -> None:
    guides, _ = _run(clip, tmp_path / "g", FakePeople())
    record = (
        ShotRecord.of(guides.manifest["shot"]).corrected(None, "white", 0, "Ann").corrected(None, "drift", 0.1, "Ann")
    )
    record = (
        record.corrected(None, "mixed", "no", "Ann")
        .corrected(None, "black", "0", "Ann")
        .corrected(1, "temperatureDrift", 0, "Ann")
    )
    assert record.advice.action == "relight"
    assert record.corrected(None, "drift", "1.5", "Ann").advice.action == "grade"


@pytest.fixture(scope="module")
def record(clip: Clip) -> ShotRecord:
    return drained(analyse_clip(clip, PreprocessSettings(), Seeing()))


@pytest.mark.parametrize(
    ("field", "value", "shot", "by", "wrong"),
    [
        ("cameraMove", "Fly", None, "Ann", "value"), ("luma", "bright", None, "Ann", "value"),
        ("luma", float("nan"), None, "Ann", "value"),
        ("mixed", "maybe", None, "Ann", "value"), ("Iptc4xmpCore:Scene", "12", None, "Ann", "value"),
        ("LightSource", 8, None, "Ann", "value"),
        ("LightSource", "0000000019999", None, "Ann", "value"), ("luma", 10**400, None, "Ann", "value"),
        ("client", {"a": 1}, None, "Ann", "value"), ("shotName", " ", None, "Ann", "value"),
        ("nothing", 1, None, "Ann", "field"),
        ("moves", 1, None, "Ann", "field"), ("cuts", 3, None, "Ann", "field"), ("luma", 0.5, 2, "Ann", "shot"),
        ("luma", 0.5, 1, "analysis", "by"), ("luma", 0.5, 1, " ", "by"),
    ],
)  # fmt: skip
def test_what_nobody_may_say(record: ShotRecord, field: str, value: Any, shot: int | None, by: str, wrong: str) -> None:
    with pytest.raises(InputError) as refused:
        record.corrected(shot, field, value, by)
    assert refused.value.field == wrong


def test_words_of_either_standard_are_told_apart(record: ShotRecord) -> None:
    assert record.find(None, "scene")[1] == "xmpDM:scene"
    assert record.find(None, "Scene")[1] == "Iptc4xmpCore:Scene"
    assert record.find(None, "lens")[:2] == (None, "aux:Lens")
    with pytest.raises(InputError, match="no value yet"):
        record.confirmed(None, "cameraAngle", "Ann")


class Seeing(FakePeople):
    """Sees one person at the same place in every frame."""

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        return [PersonPose(_figure(150, 60, 150), True)]


def test_a_clip_by_itself_is_cut_into_its_shots(tmp_path: Path) -> None:
    from fractions import Fraction

    from wanimate.media.video import LosslessWriter

    rng = np.random.default_rng(3)
    places = [
        np.kron(rng.integers(lo, hi, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        for lo, hi in ((0, 90), (150, 255))
    ]
    with LosslessWriter(tmp_path / "two.mkv", Fraction(12), 320, 240) as writer:
        for i in range(24):
            writer.write(np.roll(places[i // 12], 4 * i, axis=1))
    record = drained(analyse_clip(probe(tmp_path / "two.mkv", None), detector=Seeing()))
    assert [(shot.first, shot.stop) for shot in record.shots] == [(0, 12), (12, 24)]
    assert (record.advice.action, record.clip["cuts"].value) == ("split", [12])
    with pytest.raises(InputError, match="2 shots"):
        record.confirmed(None, "luma", "Ann")
    changed = record.confirmed(2, "luma", "Ann")
    assert [shot.values["luma"].by for shot in changed.shots] == ["analysis", "Ann"]


def test_lens_and_timecode_come_from_the_file_alone(tmp_path: Path, clip: Clip) -> None:
    assert set(of_file(clip, "now")) == set()
    path = tmp_path / "shot.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update({"lens": "Prime 35", "focal_length": "35.0 mm", "fnumber": "28/10", "make": "Maker"})
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.metadata.update({"timecode": "01:00:00:00", "reel_name": "A001"})
        for i in range(10):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 10 * i, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode())
    found = {name: value.value for name, value in of_file(probe(path, None), "now").items()}
    assert found["xmpDM:startTimecode"] == "01:00:00:00"
    assert {name: found.get(name) for name in ("aux:Lens", "exif:FocalLength", "exif:FNumber", "tiff:Make")} == {
        "aux:Lens": "Prime 35", "exif:FocalLength": 35.0, "exif:FNumber": 2.8, "tiff:Make": "Maker",
    }  # fmt: skip


def test_strangers_records_are_not_believed(clip: Clip, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    _run(clip, folder, FakePeople())
    manifest = json.loads((folder / "manifest.json").read_text())
    for damage in ({"version": 9}, {"shots": []}, {"clip": {"x": 1}}, {"shots": [{"first": 3, "stop": 1}]}):
        bad = manifest | {"shot": manifest["shot"] | damage}
        (folder / "manifest.json").write_text(json.dumps(bad))
        with pytest.raises(InputError, match="shot record is damaged"):
            read_record(folder)
        assert told_record(bad) is None
        assert load_guides(folder).count == COUNT, "the guides can be used all the same"


def test_the_analysis_can_be_left_out(clip: Clip, tmp_path: Path) -> None:
    with_it, _ = _run(clip, tmp_path / "a", FakePeople())
    without, _ = _run(clip, tmp_path / "b", FakePeople(), shot_record=False)
    assert "shot" not in without.manifest
    assert with_it.manifest["sha256"] == without.manifest["sha256"], "no pixel of the guides differs"
    with pytest.raises(InputError, match="not analysed"):
        read_record(tmp_path / "b")
    with pytest.raises(InputError, match="no such folder"):
        read_record(tmp_path / "c")
