"""Small videos of guides: their frames are those of the job, one for one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wanimate.errors import Cancelled
from wanimate.jobs.cancel import CancelToken
from wanimate.media.video import ArrayFrames
from wanimate.media.writer import write_h264
from wanimate.serve.worker.previews import small, write_previews
from wanimate.types import Guides

COUNT, RATE = 9, Fraction(15)
TAKEN = [0, 2, 4, 6, 8, 10, 12, 14, 16]
"""A clip of twice the rate: every second frame."""


def greys(count: int, step: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.stack([np.full((height, width, 3), 20 + step * i, np.uint8) for i in range(count)])


@pytest.fixture
def guides(tmp_path: Path) -> tuple[Guides, Path]:
    clip = tmp_path / "clip.mp4"
    with write_h264(clip, 2 * RATE, 1280, 720) as writer:
        for frame in greys(18, 10, 1280, 720):
            writer.write(frame)
    pose, face = ArrayFrames(greys(COUNT, 20)), ArrayFrames(greys(COUNT, 20, 512, 512))
    found = Guides("animation", RATE, pose, face, greys(1, 0)[0], manifest={"source": {"frames": TAKEN}})
    return found, clip


def means(path: Path) -> tuple[list[float], Fraction, tuple[int, int]]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(stream)]
        return frames, stream.average_rate, (stream.width, stream.height)


def test_frame_i_of_each_is_frame_i_of_the_job(guides: tuple[Guides, Path], tmp_path: Path) -> None:
    folder = tmp_path / "previews"
    write_previews(*guides, folder, CancelToken())
    assert sorted(path.name for path in folder.iterdir()) == ["driver.mp4", "face.mp4", "pose.mp4"]
    for name, size in (("driver", (640, 360)), ("pose", (64, 48)), ("face", (512, 512))):
        found, rate, shape = means(folder / f"{name}.mp4")
        assert (len(found), rate, shape) == (COUNT, RATE, size)
        np.testing.assert_allclose(found, [20 + 20 * i for i in range(COUNT)], atol=3)


def test_a_cancelled_job_stops_and_leaves_no_half_file(guides: tuple[Guides, Path], tmp_path: Path) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        write_previews(*guides, tmp_path / "previews", token)
    assert list((tmp_path / "previews").iterdir()) == []


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((1280, 720), (640, 360)), ((719, 1281), (360, 640)), ((63, 47), (64, 48)), ((3000, 5), (640, 2))],
)
def test_sizes_are_even_and_small(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert small(*size) == wanted
