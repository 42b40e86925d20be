"""Guides of a stretch of a clip: they say which frames they are of, and mask videos follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_preprocess_drive import COUNT, FakePeople
from test_preprocess_mask_video import _mask, _opened, _write
from test_preprocess_replacement import _run
from test_preprocess_replacement import clip as clip

from wanimate.config import Job, PreprocessSettings
from wanimate.errors import InputError
from wanimate.finish.record import Hashes
from wanimate.jobs.resume import guides_key
from wanimate.media.video import iter_indices
from wanimate.preprocess.manifest import first_seconds, told_settings
from wanimate.preprocess.people.choice import parse_choice
from wanimate.preprocess.performer import frame_at
from wanimate.types import Clip

FIRST, STOP = 4, 9


class Walking(FakePeople):
    """Knows where everybody is in the frames from FIRST on."""

    def track(self, frames: Any, tracker: Any = None) -> Any:
        frames = list(frames)
        whole = super().track([frames[0]] * FIRST + frames, tracker)
        yield from list(whole)[FIRST:]


def test_the_manifest_names_every_used_frame_of_the_clip(clip: Clip, tmp_path: Path) -> None:
    stretch = {"start": clip.times[FIRST], "end": clip.times[STOP]}
    guides, _ = _run(clip, tmp_path / "g", Walking(), **stretch)
    source = guides.manifest["source"]
    assert source["frames"] == list(range(FIRST, STOP))
    assert source["times"] == [round(clip.times[i], 6) for i in range(FIRST, STOP)]
    settings = told_settings(guides.manifest)
    assert settings is not None
    assert (settings["start"], settings["end"]) == pytest.approx((clip.times[FIRST], clip.times[STOP]))
    assert first_seconds(clip, guides.manifest) == clip.times[FIRST]
    assert guides.background is not None
    scene, frames = guides.background.take(range(5)), np.stack(list(iter_indices(clip, range(FIRST, STOP))))
    assert np.abs(scene[:, :10].astype(int) - frames[:, :10]).max() == 0, "the scene is that of the same frames"


def test_a_mask_video_of_the_whole_clip_follows(clip: Clip, tmp_path: Path) -> None:
    path = _write(tmp_path / "mask.mkv", (_mask(i) for i in range(COUNT)))
    settings = {"mask": path, "start": clip.times[FIRST], "end": clip.times[STOP]}
    masks, _ = _opened(clip, PreprocessSettings(**settings))
    guides, _ = _run(clip, tmp_path / "g", Walking(), masks, iterations=0, **settings)
    assert guides.mask is not None
    left = [np.flatnonzero(mask.any(axis=(0, 2)))[0] for mask in guides.mask.take(range(5))]
    assert left == [60 + 5 * i for i in range(FIRST, STOP)]


def test_a_stretch_decides_the_guides(tmp_path: Path) -> None:
    def key(**settings: Any) -> dict[str, Any]:
        with Hashes() as hashes:
            return guides_key("animation", PreprocessSettings(**settings), 4096, {}, hashes)

    assert len({str(key()), str(key(start=1)), str(key(end=3)), str(key(start=1, end=3))}) == 4


def test_a_job_takes_it_by_name() -> None:
    job = Job.of("a.png", "a.mp4", "b.mp4", start=1.5, end="4")
    assert (job.preprocess.start, job.preprocess.end) == (1.5, 4.0)
    assert Job.model_validate(job.model_dump(mode="json")) == job
    with pytest.raises(InputError, match=r"preprocess.end|end = 1"):
        Job.of("a.png", "a.mp4", "b.mp4", start=1.5, end=1)


@pytest.mark.parametrize(("when", "frame"), [(0.16, 0), (0.2, 1), (0.32, 4), (0.47, 4)])
def test_a_person_is_chosen_at_a_time_of_the_clip(clip: Clip, when: float, frame: int) -> None:
    assert frame_at(clip, tuple(range(FIRST, STOP)), parse_choice(f"1@{when}")) == frame


def test_a_time_outside_of_the_stretch_is_refused() -> None:
    long = Clip(Path("a.mp4"), "mp4", "h264", 64, 48, 1, tuple(i / 10 for i in range(100)), 10.0, 10, False, (), 1)  # type: ignore[arg-type]
    for when in ("0.5", "8"):
        with pytest.raises(InputError, match=r"is used from 2.00 s to 4.90 s"):
            frame_at(long, tuple(range(20, 50)), parse_choice(f"1@{when}"))
    assert frame_at(long, tuple(range(20, 50)), parse_choice("1@3")) == 10
