"""Masters as they come: turned, with other pixels, with fields, numbered in odd ways. What is shown is what is finished."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from make_clips import make_clip

from wanimate.errors import InputError
from wanimate.media.master import open_master
from wanimate.media.orientation import as_shown

SIZE = (64, 48)
Frame = np.ndarray


def picture(level: int = 90) -> Frame:
    """[48, 64, 3] with a bright upper left corner."""
    made = np.full((SIZE[1], SIZE[0], 3), level, np.uint8)
    made[:12, :16] = 230
    return made


def video(
    path: Path, rotation: int = 0, mirrored: bool = False, aspect: Fraction | None = None, **options: str
) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "4", **options})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        out.mux(stream.encode(None))
    return path


def refusal(path: Path, fps: Fraction | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        torch.cat(list(open_master(path, fps).with_opacity()))
    return caught.value


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_master_is_upright(tmp_path: Path, rotation: int) -> None:
    path = video(tmp_path / "a.mov", rotation)
    master = open_master(path)
    assert master.clip is not None
    shown = as_shown(picture(), master.clip.orientation)
    assert master.size == (shown.shape[1], shown.shape[0]) == (master.clip.width, master.clip.height)
    found = torch.cat(list(master.frames()))
    assert found.shape == (3, 3, *shown.shape[:2])
    want = torch.from_numpy(np.ascontiguousarray(shown)).permute(2, 0, 1) / 255
    assert float((found - want).abs().mean()) < 0.02
    corner = shown[2:10, 2:10].mean() > 200
    assert (float(found[0, :, 2:10, 2:10].mean()) > 0.7) == corner


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    error = refusal(video(tmp_path / "a.mov", aspect=Fraction(16, 11)))
    assert (error.field, "16:11" in error.rule) == ("master", True)


def test_fields_are_refused(tmp_path: Path) -> None:
    error = refusal(video(tmp_path / "a.mp4", **{"x264-params": "tff=1:interlaced=1"}))
    assert (error.field, "interlaced" in error.rule) == ("master", True)


def test_the_rate_of_a_video_is_its_own(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 3, 24, SIZE)
    error = refusal(path, Fraction(25))
    assert (error.field, error.value) == ("fps", Fraction(25))


def folder(path: Path, **pictures: Any) -> Path:
    """Names without their ending -> pictures; None is a folder."""
    path.mkdir()
    for name, content in pictures.items():
        file = path / f"{name.removeprefix('n')}.png"
        if content is None:
            file.mkdir()
        else:
            cv2.imwrite(str(file), content)
    return path


def test_pictures_without_opacity_are_opaque_among_others(tmp_path: Path) -> None:
    """Writers of PNG leave opacity out where a picture is opaque."""
    clear = np.dstack((picture(), np.full(SIZE[::-1], 128, np.uint8)))
    found = torch.cat(list(open_master(folder(tmp_path / "a", n1=clear, n2=picture())).with_opacity()))
    assert found.shape[1] == 4
    assert found[0, 3].unique().tolist() == [pytest.approx(128 / 255)]
    assert found[1, 3].unique().tolist() == [1]


def test_opacity_that_comes_late_is_not_lost(tmp_path: Path) -> None:
    clear = np.dstack((picture(), np.full(SIZE[::-1], 128, np.uint8)))
    error = refusal(folder(tmp_path / "a", n1=picture(), n2=clear))
    assert error.value == tmp_path / "a" / "2.png"
    whole = np.dstack((picture(), np.full(SIZE[::-1], 255, np.uint8)))
    found = torch.cat(list(open_master(folder(tmp_path / "b", n1=picture(), n2=whole)).with_opacity()))
    assert found.shape[:2] == (2, 3)


def test_two_pictures_of_one_number_are_refused(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path / "a", n1=picture(), n01=picture(), n2=picture()))
    assert "number 1" in error.rule


def test_numbers_far_apart_cost_no_time(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path / "a", n1=picture(), n20261130101500=picture()))
    assert "number 2 is missing, and 20261130101497 more" in error.rule
    assert refusal(folder(tmp_path / "b", n1=picture(), n3=picture())).rule == "number 2 is missing"


def test_folders_that_are_named_like_pictures_are_none(tmp_path: Path) -> None:
    assert open_master(folder(tmp_path / "a", n1=picture(), n2=None)).count == 1


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ({"pixelAspectRatio": 2.0}, "square"),
        ({"displayWindow": ((0, 0), (127, 95))}, "window"),
    ],
)
def test_openexr_that_is_no_whole_square_picture_is_refused(tmp_path: Path, header: dict[str, Any], rule: str) -> None:
    library = pytest.importorskip("OpenEXR")
    (tmp_path / "a").mkdir()
    told = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    for name, value in header.items():
        told[name] = tuple(np.array(part, np.int32) for part in value) if isinstance(value, tuple) else value
    light = np.full((SIZE[1], SIZE[0], 3), 0.2, np.float16)
    library.File(told, {"RGB": light}).write(str(tmp_path / "a" / "1.exr"))
    assert rule in refusal(tmp_path / "a").rule


def test_openexr_tells_timecode_and_reel(tmp_path: Path) -> None:
    library = pytest.importorskip("OpenEXR")
    (tmp_path / "a").mkdir()
    told = {
        "compression": library.ZIP_COMPRESSION, "type": library.scanlineimage, "framesPerSecond": (30000, 1001),
        "timeCode": library.TimeCode(1, 0, 59, 28, 1, *[0] * 13), "reelName": "A003",
    }  # fmt: skip
    light = np.full((SIZE[1], SIZE[0], 3), 0.2, np.float16)
    library.File(told, {"RGB": light}).write(str(tmp_path / "a" / "1001.exr"))
    master = open_master(tmp_path / "a")
    assert (master.timecode, master.reel, master.fps) == ("01:00:59;28", "A003", Fraction(30000, 1001))


@pytest.mark.parametrize("where", [0, 2])
def test_a_frame_that_cannot_be_decoded_is_an_error(tmp_path: Path, where: int) -> None:
    path = make_clip(tmp_path / "a.mov", 4, 24, SIZE, codec="png", pixels="rgb24")
    with av.open(str(path)) as container:
        held = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    place = content.index(held[where]) if where == 0 else content.rindex(held[where])
    content[place : place + 60] = bytes(60)
    path.write_bytes(content)
    assert refusal(path).field == "master"
