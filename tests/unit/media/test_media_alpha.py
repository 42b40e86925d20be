"""Transparent parts of clips are flattened on white, as those of pictures are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_clips import make_clip

from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames

QUICK = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
FORMS = {
    "VP9": ("a.webm", "libvpx-vp9", "yuva420p", QUICK),
    "VP8": ("a.webm", "libvpx", "yuva420p", QUICK),
    "VP9 in Matroska": ("a.mkv", "libvpx-vp9", "yuva420p", QUICK),
    "ProRes 4444": ("a.mov", "prores_ks", "yuva444p10le", {"profile": "4"}),
    "QuickTime animation": ("a.mov", "qtrle", "argb", {}),
    "PNG": ("a.mov", "png", "rgba", {}),
    "APNG": ("a.apng", "apng", "rgba", {}),
    "FFV1": ("a.mkv", "ffv1", "bgra", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_transparent_parts_are_white(tmp_path: Path, form: str) -> None:
    name, codec, pixels, options = FORMS[form]
    frame = np.full((240, 320, 4), (40, 160, 60, 255), np.uint8)
    frame[:, 160:, 3] = 0
    frame[120:, :160, 3] = 128
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, pixels
        for i in range(6):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=pixels)
            picture.pts, picture.time_base = i, Fraction(1, 10)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    clip = probe(tmp_path / name, None)
    assert clip.notices == ("the clip has transparent parts; they are shown white",)
    frames = list(iter_frames(clip))
    assert len(frames) == 6
    for shown, wanted in (
        (frames[4][60, 80], (40, 160, 60)),
        (frames[4][60, 240], 255),
        (frames[4][180, 80], (147, 207, 157)),
    ):
        assert np.abs(shown.astype(int) - wanted).max() <= 4
    assert (VideoFrames(tmp_path / name).take([4])[0] == frames[4]).all()


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_opacity_that_a_tag_tells(tmp_path: Path, name: str) -> None:
    """`-metadata:s:v alpha_mode=1`, as guides to FFmpeg have it, becomes the tag ALPHA_MODE."""
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream("libvpx-vp9", rate=10, options=QUICK)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for i in range(4):
            picture = av.VideoFrame.from_ndarray(np.zeros((240, 320, 4), np.uint8), format="rgba")
            picture = picture.reformat(format="yuva420p")
            picture.pts, picture.time_base = i, Fraction(1, 10)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    clip = probe(tmp_path / name, None)
    assert clip.notices == ("the clip has transparent parts; they are shown white",)
    assert all((frame >= 251).all() for frame in iter_frames(clip))


def test_opaque_clips_with_an_alpha_channel_are_not_told(tmp_path: Path) -> None:
    assert probe(make_clip(tmp_path / "a.mov", codec="qtrle", pixels="argb", options={})).notices == ()
