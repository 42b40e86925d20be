"""Whatever colours a clip is stored in, its frames are BT.709 RGB, and stay so through guides, results and sheets."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_clips import make_clip
from make_patches import PATCHES, Said, make_patches, read_patches, spread

from wanimate.config import OutputSettings
from wanimate.errors import InputError
from wanimate.finish.encode import OutputWriter
from wanimate.media.colour import HLG, PQ, Colours, conversion_of, tone_mapped
from wanimate.media.levels import from_levels
from wanimate.media.png import png_bytes
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, VideoFrames, iter_frames

SDR = {
    "BT.709": (Said(), 8, (320, 240)),
    "BT.601 PAL": (Said(5, 6, 5), 8, (320, 240)),
    "BT.601 NTSC": (Said(6, 6, 6), 8, (320, 240)),
    "full range": (Said(full=True), 8, (320, 240)),
    "10 bits": (Said(), 10, (320, 240)),
    "untagged HD": (Said(2, 2, 2), 8, (1280, 720)),
    "untagged HD upright": (Said(2, 2, 2), 8, (720, 1280)),
    "untagged SD": (Said(2, 2, 2, stored=6), 8, (720, 576)),
    "BT.2020": (Said(9, 14, 9), 10, (320, 240)),
    "Display P3": (Said(1, 13, 12), 10, (320, 240)),
    "linear light": (Said(1, 8, 1), 10, (320, 240)),
}
HDR = {
    "HLG": Said(9, 18, 9),
    "PQ": Said(9, 16, 9),
    "PQ, full range": Said(9, 16, 9, full=True),
    "HLG alone": Said(2, 18, 2, stored=9),
}


@pytest.mark.parametrize("kind", SDR)
def test_colours_of_standard_range(tmp_path: Path, kind: str) -> None:
    said, bits, size = SDR[kind]
    clip = probe(make_patches(tmp_path / "a.mkv", said, bits, size), None)
    frame = next(iter_frames(clip))
    most = 6 if kind == "linear light" else 2  # 10 bits of light are few in the dark
    assert np.abs(read_patches(frame) - PATCHES).max() <= most
    converted = kind in ("BT.2020", "Display P3", "linear light")
    assert [kind in text and "converted" in text for text in clip.notices] == [True] * converted
    assert clip.hdr == ""


@pytest.mark.parametrize("kind", HDR)
def test_high_dynamic_range_is_tone_mapped_and_told(tmp_path: Path, kind: str) -> None:
    clip = probe(make_patches(tmp_path / "a.mkv", HDR[kind], 10), None)
    found = read_patches(next(iter_frames(clip)))
    assert np.abs(found - PATCHES).max() <= 4
    (told,) = clip.notices
    assert f"colours are {kind[:2]}" in told
    assert "tone mapped to BT.709" in told
    assert clip.hdr == told


def test_highlights_roll_off_and_reference_white_stays_white() -> None:
    light = np.linspace(0, 8, 2000)
    shown = tone_mapped(light)
    assert (np.diff(shown) >= 0).all()
    assert (shown[light <= 0.75] == light[light <= 0.75]).all()
    assert shown[-1] <= 1
    white = np.full((1, 1, 3), round(0.5806888 * 65535), np.uint16)  # 203 cd/m2 in PQ
    assert conversion_of(Colours(9, PQ, 9))(white).tolist() == [[[248, 248, 248]]]
    brightest = np.full((1, 1, 3), 65535, np.uint16)
    for transfer in (PQ, HLG):
        assert conversion_of(Colours(9, transfer, 9))(brightest).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(("number", "name"), [(8, "YCgCo"), (14, "ICtCp"), (10, "constant luminance")])
def test_colours_that_cannot_be_read_are_named(tmp_path: Path, number: int, name: str) -> None:
    with pytest.raises(InputError, match=rf"stored as .*{name}, which cannot be read. Export it again"):
        probe(make_patches(tmp_path / "a.mkv", Said(number), 8))


def test_dolby_vision_is_taken_by_its_base_layer(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "x265-params": "log-level=none"}
    path = make_clip(tmp_path / "a.mp4", codec="libx265", options=options)
    whole = path.read_bytes()
    assert whole.count(b"hev1") + whole.count(b"hvc1") == 1
    path.write_bytes(whole.replace(b"hev1", b"dvhe").replace(b"hvc1", b"dvh1"))
    with pytest.raises(InputError, match=r"Dolby Vision without a base layer \(profile 5\)"):
        probe(path)
    tagged = {
        "preset": "ultrafast",
        "x265-params": "log-level=none:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc",
    }
    path = make_clip(tmp_path / "b.mp4", codec="libx265", pixels="yuv420p10le", options=tagged)
    path.write_bytes(path.read_bytes().replace(b"hev1", b"dvhe").replace(b"hvc1", b"dvh1"))
    assert "HLG in BT.2020" in probe(path).notices[0]


def test_the_published_set_is_bt601_whatever_its_size(tmp_path: Path) -> None:
    path = make_patches(tmp_path / "a.mkv", Said(2, 2, 2, stored=6), 8, (1280, 720))
    assert np.abs(read_patches(VideoFrames(path, sd=True).take([0])[0]) - PATCHES).max() <= 2
    assert np.abs(read_patches(VideoFrames(path).take([0])[0]) - PATCHES).max() > 8


def tags(path: Path) -> tuple[int, ...]:
    """Primaries, transfer, matrix, range."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range


@pytest.mark.parametrize(
    ("name", "codec", "width"),
    [("a.mp4", "h264", 320), ("a.mov", "h265", 320), ("a.mkv", "h264", 320), ("odd.mp4", "h264", 321), ("a.mkv", "ffv1", 320)],
)  # fmt: skip
def test_a_scene_keeps_its_colours_to_the_result(tmp_path: Path, name: str, codec: str, width: int) -> None:
    scene = spread(PATCHES, 240, width).astype(np.uint8)
    with LosslessWriter(tmp_path / "background.mkv", Fraction(30000, 1001), width, 240) as guide:
        for _ in range(8):
            guide.write(scene)
    assert tags(tmp_path / "background.mkv") == (1, 1, 0, 2)
    frames = VideoFrames(tmp_path / "background.mkv")
    assert (frames.take([3])[0] == scene).all()
    out = tmp_path / name
    with OutputWriter(out, frames.fps, width, 240, OutputSettings(codec=codec)) as writer:  # type: ignore[arg-type]
        writer.write(from_levels(frames.take(range(8))))
    assert tags(out) == ((1, 1, 0, 2) if codec == "ffv1" else (1, 1, 1, 1))
    result = VideoFrames(out)
    assert result.fps == Fraction(30000, 1001)
    assert np.abs(read_patches(result.take([5])[0]) - PATCHES).max() <= 2


@pytest.mark.parametrize("said", [Said(2, 2, 2), Said(6, 6, 6), Said(full=True), Said(9, 18, 9)], ids=str)
def test_the_whole_road_from_a_clip_to_a_result(tmp_path: Path, said: Said) -> None:
    size = (1280, 720) if said.matrix == 2 else (320, 240)
    clip = probe(make_patches(tmp_path / "a.mkv", said, 10 if said.matrix == 9 else 8, size), None)
    frames = np.stack(list(iter_frames(clip)))
    with OutputWriter(tmp_path / "out.mp4", clip.fps, *size, OutputSettings()) as writer:
        writer.write(from_levels(frames))
    with av.open(str(tmp_path / "out.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(read_patches(shown) - PATCHES).max() <= (4 if said.matrix == 9 else 3)  # its decoder takes up to 2
    assert np.abs(read_patches(VideoFrames(tmp_path / "out.mp4").take([0])[0]) - read_patches(frames[0])).max() <= 2


def test_pictures_that_are_written_say_srgb() -> None:
    data = png_bytes(np.zeros((40, 40, 3), np.uint8))
    assert data[8 + 25 + 4 : 8 + 25 + 8] == b"sRGB"
