"""What becomes of finished frames: scene and seam, matte, slate, words on frames, timecode, names and versions."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Finished
from wanimate.finish import matte as mattes
from wanimate.finish.burnin import Take, slate
from wanimate.finish.composite import seam
from wanimate.finish.labels import asked, carried_of
from wanimate.finish.lock import OutputLock
from wanimate.finish.naming import named
from wanimate.jobs.delivery import Delivery, Order, Scene
from wanimate.jobs.workspace import workspace
from wanimate.media.exr import read_exr
from wanimate.media.master import Master, open_master
from wanimate.media.probe import probe
from wanimate.media.video import ArrayFrames
from wanimate.post.base import VideoSpec
from wanimate.preprocess.masks.offline import OfflineMasks
from wanimate.types import Guides

FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)
WIDTH, HEIGHT, COUNT = 96, 64, 7
BLACK = np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8)


def guides_of(fps: Fraction = FILM, replacement: bool = True) -> Guides:
    """The performer is a box that moves to the right; the scene is grey."""
    mask, scene = BLACK.copy(), np.full_like(BLACK, 90)
    for i in range(COUNT):
        mask[i, 20:44, 20 + 4 * i : 40 + 4 * i] = 255
    scene[mask > 0] = 0
    face, reference = np.zeros((COUNT, 16, 16, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    more = {"background": ArrayFrames(scene), "mask": ArrayFrames(mask)} if replacement else {}
    mode = "replacement" if replacement else "animation"
    return Guides(mode, fps, ArrayFrames(BLACK), ArrayFrames(face), reference, **more)


def delivered(
    out: Path, guides: Guides, frames: torch.Tensor | None = None, clip: Any = None, **settings: Any
) -> Delivery:
    """All files of a result whose frames are white."""
    frames = torch.ones(COUNT, 3, HEIGHT, WIDTH) if frames is None else frames
    output = OutputSettings(**settings)
    carried, _ = carried_of(clip, guides.manifest, guides.fps, output)
    order = Order(VideoSpec(guides.size, guides.fps, guides.count), (), clip, carried, None, (0, 3))
    scene = Scene(guides, output)
    with OutputLock(out, output) as lock, Delivery(order, lock) as delivery:
        for start in (0, 4):
            for pair in scene.add(frames[start : start + 4], start):
                delivery.add(*pair)
        for pair in scene.rest():
            delivery.add(*pair)
        delivery.finish()
    return delivery


def whole(path: Path) -> torch.Tensor:
    return torch.cat(list(open_master(path).with_opacity()))


@pytest.mark.parametrize("kind", ["straight", "premultiplied"])
def test_the_seam_is_the_matte_of_a_replacement(tmp_path: Path, kind: str) -> None:
    guides = guides_of()
    assert guides.mask is not None
    share = seam(guides.mask.take(range(COUNT)), 8)
    delivered(tmp_path / "a.mkv", guides, codec="ffv1", depth=16, alpha=kind, matte=tmp_path / "m.mkv")
    found, matte = whole(tmp_path / "a.mkv"), whole(tmp_path / "m.mkv")
    step = 1 / 65535
    assert (found[:, 3:] - share).abs().max() <= step
    assert (matte - share).abs().max() <= step
    assert 0.1 < float(share[0, 0, 32, 16]) < 0.9, "it is soft"
    colour = share + 90 / 255 * (1 - share)
    wanted = colour if kind == "straight" else colour * share
    assert (found[:, :3] - wanted).abs().max() <= step


def test_the_scene_is_exact_in_eight_bits_and_finer_in_ten(tmp_path: Path) -> None:
    frames = torch.full((COUNT, 3, HEIGHT, WIDTH), 100.4 / 255)
    delivered(tmp_path / "a.mkv", guides_of(), frames, codec="ffv1")
    eight = whole(tmp_path / "a.mkv").mul(255).round()
    assert (eight[:, :, 54:] == 90).all()
    assert (eight[0, :, 30, 30] == 100).all()
    delivered(tmp_path / "b.mkv", guides_of(), frames, codec="ffv1", depth=12)
    assert whole(tmp_path / "b.mkv")[0, 0, 30, 30] == pytest.approx(100.4 / 255, abs=0.6 / 4095)


class Bright:
    """Takes what is bright for the person."""

    side = 64

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return (picture.mean(axis=2) > 0.5).astype(np.float32)


def test_the_matte_of_an_animation_follows_the_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mattes, "open_masks", lambda: OfflineMasks(Bright(), Bright()))
    frames = torch.full((COUNT, 3, HEIGHT, WIDTH), 0.1)
    for i in range(COUNT):
        frames[i, :, 16:48, 20 + 4 * i : 44 + 4 * i] = 0.9
    out = tmp_path / "a.mkv"
    delivery = delivered(
        out, guides_of(replacement=False), frames, codec="ffv1", alpha="straight", matte=tmp_path / "m.mkv"
    )
    found, matte = whole(out), whole(tmp_path / "m.mkv")
    assert torch.equal(found[:, :3], frames.mul(255).round() / 255), "frames stay in order and as they are"
    assert (found[:, 3:] - matte[:, :1]).abs().max() < 1e-6
    for i in range(COUNT):
        assert matte[i, 0, 20:44, 24 + 4 * i : 40 + 4 * i].min() > 0.9
        assert matte[i, 0, :12].max() < 0.1
    assert sorted(delivery.shown) == [0, 3]


def test_a_matte_without_the_segmenter_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MODELS", str(tmp_path))
    with pytest.raises(InputError, match=r"the matte needs the segmenter: .*not found. Run `.*` once") as caught:
        delivered(tmp_path / "a.mkv", guides_of(replacement=False), codec="ffv1", matte=tmp_path / "m.mkv")
    assert caught.value.field == "output.matte"
    assert list(tmp_path.iterdir()) == []


def clip_with(path: Path, timecode: str, fps: Fraction, reel: str = "", **more: Any) -> Any:
    """A clip whose file says a timecode."""
    plain = make_clip(path.with_name(f"plain{path.suffix}"), 60, fps, (320, 240), **more)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in (*source.streams.video, *source.streams.audio)}
        (first, *_) = streams.values()
        first.metadata.update({"timecode": timecode} | ({"reel_name": reel} if reel else {}))
        for packet in source.demux():
            if packet.dts is not None and packet.stream_index in streams:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return probe(path, None)


def told(path: Path) -> dict[str, str]:
    """Timecode and reel, as FFmpeg reads them from the track or the tags."""
    with av.open(str(path)) as container:
        pairs = {k.lower(): v for s in container.streams for k, v in s.metadata.items()}
        kinds = [s.type for s in container.streams]
    assert path.suffix == ".mkv" or "data" in kinds, "a tmcd track"
    return {key: pairs[key] for key in ("timecode", "reel_name") if key in pairs}


@pytest.mark.parametrize("name", ["a.mov", "a.mp4", "a.mkv"])
@pytest.mark.parametrize(("text", "fps", "first", "wanted"), [
    ("01:00:00:00", FILM, 12, "01:00:00:12"), ("00:59:59;28", NTSC, 3, "01:00:00;01"),
    ("23:59:59:23", Fraction(24), 1, "00:00:00:00"),
])  # fmt: skip
def test_the_clips_timecode_is_carried_over(
    tmp_path: Path, name: str, text: str, fps: Fraction, first: int, wanted: str
) -> None:
    clip = clip_with(tmp_path / "in.mov", text, fps, "A001C002")
    assert (clip.timecode, clip.reel) == (text, "A001C002")
    guides = guides_of(fps)
    guides.manifest["source"] = {"frames": [first + i for i in range(COUNT)]}
    delivery = delivered(tmp_path / name, guides, clip=clip)
    assert told(tmp_path / name)["timecode"] == wanted
    assert told(tmp_path / name).get("reel_name") == (None if name == "a.mp4" else "A001C002")
    facts = delivery.facts()
    assert (facts["timecode"], facts["reel"], facts["slate"]) == (wanted, "A001C002", False)


@pytest.mark.parametrize(("text", "fps", "to", "first", "wanted"), [
    ("01:00:00:30", Fraction(60), Fraction(30), 0, "01:00:00:15"), ("01:00:00;10", NTSC * 2, NTSC, 2, "01:00:00;06"),
    ("01:00:00:00", FILM, Fraction(24), 24, "01:00:01:00"), ("01:00:00;00", NTSC, Fraction(25), 0, "01:00:00:00"),
    ("01:00:00:00", Fraction(24), Fraction(16), 0, None), ("01:00:00:29", Fraction(25), Fraction(25), 0, None),
])  # fmt: skip
def test_timecode_at_another_rate(
    tmp_path: Path, text: str, fps: Fraction, to: Fraction, first: int, wanted: str | None
) -> None:
    clip = replace(probe(make_clip(tmp_path / "in.mp4", 60, fps), None), timecode=text)
    carried, notices = carried_of(clip, {"source": {"frames": [first]}}, to, OutputSettings())
    assert carried.label(0, to) == wanted
    assert [n.message.startswith(f"the clip's timecode {text} is not carried over: ") for n in notices] == [True] * (
        wanted is None
    )


def test_a_timecode_that_is_asked_for(tmp_path: Path) -> None:
    carried, _ = carried_of(None, {}, NTSC, OutputSettings(timecode="10:00:00;02", reel="B007"))
    assert (carried.label(0, NTSC), carried.reel) == ("10:00:00;02", "B007")
    for text, fps, rule in (
        ("01:00:00:00", Fraction(16), "timecode does not exist at 16 frames a second"),
        ("01:00:00;00", Fraction(25), "drop-frame exists for"),
        ("01:00:00:27", Fraction(25), "largest label"),
    ):
        with pytest.raises(OutputError, match=rule) as caught:
            asked(text, fps)
        assert (caught.value.field, caught.value.exit_code) == ("output.timecode", 2)


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_a_slate_is_one_frame_before_and_keeps_time(tmp_path: Path, name: str) -> None:
    clip = clip_with(tmp_path / "in.mov", "01:00:00:00", Fraction(24), sound="aac")
    guides = guides_of(Fraction(24))
    delivery = delivered(tmp_path / name, guides, clip=clip, slate=True, codec="h264", crf=4)
    assert told(tmp_path / name)["timecode"] == "00:59:59:23"
    facts = delivery.facts()
    assert (facts["timecode"], facts["reel"], facts["slate"]) == ("01:00:00:00", None, True)
    assert facts["delivered"]["frames"] == COUNT + 1
    frames = whole(tmp_path / name)
    assert len(frames) == COUNT + 1
    assert frames[0].mean() < 0.5 < frames[1, :, 30, 30].mean()
    with av.open(str(tmp_path / name)) as container, av.open(str(clip.path)) as source:
        ours, theirs = (next(p for p in c.demux(audio=0) if p.size) for c in (container, source))
        late = float(ours.pts * ours.time_base - theirs.pts * theirs.time_base)
    assert late == pytest.approx(1 / 24, abs=0.002)


def test_a_slate_tells_what_the_take_is() -> None:
    def frame(**more: Any) -> torch.Tensor:
        given = {
            "shot": "S010",
            "take": 3,
            "version": 2,
            "size": (640, 360),
            "fps": FILM,
            "count": 48,
            "label": lambda i: "01:00:00:00",
        }
        return slate(Take(**{**given, **more}))

    plain = frame()
    assert plain.shape == (1, 3, 360, 640)
    for more in ({"shot": "S020"}, {"take": 4}, {"version": 3}, {"count": 49}, {"label": lambda i: "02:00:00:00"}):
        assert (frame(**more) != plain).any(), more
    greys = plain[0, :, -10, ::58].mul(255).round()
    assert greys[0, 0] == 0
    assert (greys.diff(dim=1) >= 0).all()
    assert torch.equal(greys[0], greys[2])
    assert frame(size=(64, 48), shot="a very long name of a shot" * 3).shape == (1, 3, 48, 64)


def test_words_stand_on_a_band_and_count(tmp_path: Path) -> None:
    grey = torch.full((COUNT, 3, HEIGHT, WIDTH), 0.5)
    settings = {"codec": "ffv1", "burn_in": "name,frame", "start_number": 0}
    delivered(tmp_path / "a.mkv", guides_of(replacement=False), grey, **settings)
    found = whole(tmp_path / "a.mkv")
    assert (found[:, :, :40] == found[0, 0, 0, 0]).all()
    assert (found[:, :, -4] < 0.4).any(), "the band"
    assert (found[3] != found[4]).any(), "the frame's number"
    assert found[:, :, 45:].max() > 0.9, "the letters"


def test_a_sequence_starts_at_its_number_and_holds_light(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    frames = torch.full((COUNT, 3, HEIGHT, WIDTH), 0.5)
    out = tmp_path / "exr"
    delivered(
        out, guides_of(), frames, codec="exr", start_number=1001, alpha="premultiplied", timecode="01:00:00:22", reel="A1",
        matte=tmp_path / "matte",
    )  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == [f"{1001 + i:06d}.exr" for i in range(COUNT)]
    picture, header = read_exr(out / "001003.exr", "master")
    assert picture[30, 34] == pytest.approx([0.2598, 0.2598, 0.2598, 1], abs=2e-4), (
        "light of 0.5 by the curve of BT.709"
    )
    assert (picture[0, 0] == 0).all(), "nothing of the scene where the matte is 0"
    code = header["timeCode"]
    assert (code.hours, code.minutes, code.seconds, code.frame) == (1, 0, 1, 0)
    assert (header["reelName"], header["transferFunction"]) == ("A1", "ITU-R BT.709 camera curve undone")
    assert tuple(header["framesPerSecond"]) == (24000, 1001)
    assert header["chromaticities"] == pytest.approx((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    matte, _ = read_exr(tmp_path / "matte" / "001003.exr", "master")
    share = seam(guides_of().mask.take([2]), 8)[0, 0].numpy()  # type: ignore[union-attr]
    assert np.abs(matte[..., 0] - share).max() < 1e-3
    assert open_master(out) == Master(
        out, (WIDTH, HEIGHT), FILM, COUNT, 16, True, False, None, tuple(sorted(out.iterdir())), "01:00:00:22", "A1"
    )


def test_a_full_disk_in_an_exr_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("OpenEXR")
    real = library.File.write

    def full(self: Any, path: str) -> None:
        if path.endswith("000002.exr"):
            Path(path).write_bytes(b"half")
            raise RuntimeError(f'Failed to write pixel data to image file "{path}". No space left on device.')
        real(self, path)

    monkeypatch.setattr(library.File, "write", full)
    with pytest.raises(OutputError, match=r"the disk is full. Free some space or choose another folder\.") as caught:
        delivered(tmp_path / "exr", guides_of(), codec="exr")
    assert (caught.value.field, caught.value.exit_code) == ("out", 2)
    assert list(tmp_path.iterdir()) == [], "nothing is left, and nothing has its name"


def test_exr_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    held = workspace(tmp_path / "exr", OutputSettings(codec="exr"), [])
    with pytest.raises(OutputError, match=r"Install it with `pip install 'wanimate\[exr\]'`") as caught, held:
        pass
    assert caught.value.field == "output.codec"
    assert list(tmp_path.iterdir()) == []


def test_names_are_filled_in_and_versions_go_up(tmp_path: Path) -> None:
    output = OutputSettings(shot="S 010/a".replace("/", "-"), take=3)
    template = tmp_path / "{shot}" / "{shot}_t{take:02}_v{version:03}.mov"
    folder = tmp_path / "S_010-a"
    assert named(template, output).out == folder / "S_010-a_t03_v001.mov"
    folder.mkdir()
    for name in ("S_010-a_t03_v002.mov", "S_010-a_t03_v007.json", "S_010-a_t04_v011.mov", ".S_010-a_t03_v009.mov.work"):
        (folder / name).touch()
    assert named(template, output).version == 8
    assert named(template, output, skip=2).out.name == "S_010-a_t03_v010.mov"
    plain = tmp_path / "a{b}{0}.mp4"
    assert named(plain, output).out == plain
    for wrong in (tmp_path / "v{version}" / "a.mov", tmp_path / "{version}_{version}.mov"):
        with pytest.raises(OutputError, match=r"\{version\} has to stand once"):
            named(wrong, output)
    with pytest.raises(InputError, match=r"the result's name has \{shot\}. Give shot") as caught:
        named(template, OutputSettings())
    assert caught.value.field == "output.shot"


def test_versions_are_never_written_over(animator: Animator, guides: Any, tmp_path: Path) -> None:
    settings = GenerateSettings(steps=1, seed=1, clip_length=9, solver="euler")
    output = OutputSettings(codec="ffv1", shot="S010", matte=tmp_path / "m.mkv", alpha="straight", keep_segments=False)
    template = tmp_path / "{shot}_v{version:03}.mkv"
    folder = guides(11, replacement=True)
    for version in (1, 2):
        *_, last = animator.generate(folder, template, settings, output)
        assert isinstance(last, Finished)
        assert last.result.out.name == f"S010_v{version:03}.mkv"
        record = json.loads((tmp_path / f"S010_v{version:03}.json").read_text())
        assert record["version"] == version
        assert (record["matte"] or {}).get("name") == ("m.mkv" if version == 1 else None)
        output = output.model_copy(update={"matte": None})
    with workspace(template, output, []) as first, workspace(template, output, []) as second:
        assert (first.version, second.version) == (3, 4), "a version in work is passed over"
    with pytest.raises(OutputError, match="it is version 2, and a version is never written over"):
        OutputLock(tmp_path / "S010_v002.mkv", output)
    OutputLock(tmp_path / "S010_v002.mkv", output.model_copy(update={"overwrite": True})).release()


def test_a_matte_is_ours_or_is_left_alone(tmp_path: Path) -> None:
    matte = tmp_path / "m.mkv"
    output = OutputSettings(codec="ffv1", matte=matte)
    for place, rule in (
        (tmp_path / "a.mkv", "in each other's way"), (tmp_path / "frames" / "m.mkv", None),
        (tmp_path / ".a.mkv.work" / "m.mkv", "in each other's way"),
    ):  # fmt: skip
        wanted = output.model_copy(update={"matte": place})
        if rule is None:
            OutputLock(tmp_path / "a.mkv", wanted).release()
            continue
        with pytest.raises(OutputError, match=rule) as caught:
            OutputLock(tmp_path / "a.mkv", wanted)
        assert caught.value.field == "output.matte"
    matte.write_text("of the user")
    with pytest.raises(OutputError, match="nothing proves that this program made it") as caught:
        OutputLock(tmp_path / "a.mkv", output)
    assert caught.value.field == "output.matte"
    with pytest.raises(OutputError, match="input of the job"):
        OutputLock(tmp_path / "a.mkv", output, [matte])
    with OutputLock(tmp_path / "b.mkv", output.model_copy(update={"overwrite": True})):
        pass
    assert matte.read_text() == "of the user"
