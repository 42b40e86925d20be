"""Which frames of a clip are used between two times, told by their time stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_clips import make_clip, number_of

from wanimate.config import ClipLimits, PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.decode import Decoder
from wanimate.media.probe import probe
from wanimate.media.stretch import handles_of, missing_handles, probe_used, stretch_of
from wanimate.media.video import iter_indices
from wanimate.preprocess.layout import job_frames, plan_layout
from wanimate.types import Clip

NTSC = Fraction(30000, 1001)
SHORT = (64, 48)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Four seconds at 30000/1001, with frames that refer to later ones and few key frames."""
    options = {"preset": "veryfast", "g": "40", "bf": "2", "crf": "18"}
    return probe(make_clip(tmp_path_factory.mktemp("film") / "a.mp4", 120, NTSC, SHORT, options=options), None)


def used(clip: Clip, **settings: Any) -> list[int]:
    return list(job_frames(clip, PreprocessSettings(**settings))[0])


def test_frames_from_the_start_up_to_the_end(film: Clip) -> None:
    assert used(film) == list(range(120))
    assert used(film, start=1, end=2) == [i for i in range(120) if 1 <= film.times[i] < 2]
    assert used(film, start=film.times[37], end=film.times[91]) == list(range(37, 91))


@pytest.mark.parametrize("i", [1, 2, 37, 58, 119])
def test_a_time_in_milliseconds_means_the_frame_that_is_nearest(film: Clip, i: int) -> None:
    """Whichever way it was rounded."""
    for start in (film.times[i], round(film.times[i], 3), int(film.times[i] * 1000) / 1000):
        assert used(film, start=start)[0] == i
        assert used(film, end=start)[-1] == i - 1


def test_a_lower_rate_is_sampled_from_the_first_used_frame_on(film: Clip) -> None:
    assert used(film, start=film.times[31], end=film.times[61], fps=Fraction(NTSC, 2)) == list(range(31, 61, 2))
    settings = PreprocessSettings(start=film.times[31], end=film.times[61], fps="10")
    indices, fps = job_frames(film, settings)
    assert (len(indices), fps, indices[0]) == (10, 10, 31)
    assert all(31 <= i < 61 for i in indices)


def test_the_published_rule_samples_the_stretch_as_if_it_were_the_clip(film: Clip) -> None:
    assert used(film, start=film.times[30], end=film.times[60], compat=True) == list(range(30, 60))


def test_a_variable_rate_holds_and_ends_where_the_stretch_does(tmp_path: Path) -> None:
    times = [Fraction(i, 10) for i in range(20)] + [Fraction(3)] + [3 + Fraction(i, 10) for i in range(1, 11)]
    clip = probe(make_clip(tmp_path / "a.mkv", len(times), 10, SHORT, times=times), None)
    assert clip.variable_rate
    indices = used(clip, start=1.5, end=3.5, fps=10)
    assert indices == [15, 16, 17, 18, *[19] * 11, 20, 21, 22, 23, 24]
    assert used(clip, start=1.5, end=2.5, fps=10) == [15, 16, 17, 18, *[19] * 6]


@pytest.mark.parametrize(
    ("settings", "field", "rule"),
    [
        ({"start": -1}, "preprocess.start", "greater than or equal to 0"),
        ({"start": "soon"}, "preprocess.start", "it has to be a number"),
        ({"start": float("nan")}, "preprocess.start", "finite"),
        ({"end": 0}, "preprocess.end", "greater than 0"),
        ({"start": 2, "end": 1}, "preprocess.end", "the stretch begins at 2 s"),
        ({"start": 2, "end": 2}, "preprocess.end", "the stretch begins at 2 s"),
        ({"start": 9}, "preprocess.start", "the clip is 4.00 s long"),
        ({"end": 9}, "preprocess.end", "the clip is 4.00 s long"),
        ({"start": 1.01, "end": 1.02}, "preprocess.end", "no frame of the clip lies between 1.01 s and 1.02 s"),
        ({"start": 2.5}, "preprocess.start", "1.50 s of the clip are used, fewer than 2 s"),
        ({"start": 1, "end": 2}, "preprocess.end", "1.00 s of the clip are used, fewer than 2 s"),
        (
            {"end": 3, "limits": {"max_seconds": 2.5, "min_side": 1}}, "preprocess.end",
            "3.00 s of the clip are used, more than 2.5 s",
        ),
    ],
)  # fmt: skip
def test_bounds_are_told_by_field(film: Clip, settings: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        probe_used(film.path, PreprocessSettings(**({"limits": {"min_side": 1}} | settings)))
    assert caught.value.field == field
    assert rule in caught.value.rule


def test_limits_of_length_hold_for_what_is_used(film: Clip) -> None:
    limits = ClipLimits(min_side=1, max_seconds=3)
    with pytest.raises(InputError, match="longer than 3 s"):
        probe_used(film.path, PreprocessSettings(limits=limits))
    assert probe_used(film.path, PreprocessSettings(limits=limits, start=1, end=3.5)).count == 120
    with pytest.raises(InputError, match="short side"):
        probe_used(film.path, PreprocessSettings(start=1, end=3.5))


def test_the_last_frame_is_shown_to_the_end_of_the_clip(film: Clip) -> None:
    found = stretch_of(film, PreprocessSettings(start=film.times[90]))
    assert (found.first, found.stop) == (90, 120)
    assert found.seconds == pytest.approx(30 / NTSC, abs=1e-6)


def test_the_layout_keeps_the_index_of_every_used_frame(film: Clip) -> None:
    layout = plan_layout("replacement", film, SHORT, PreprocessSettings(start=1, end=3.5, face_size=64), 64 * 48)
    assert (layout.indices[0], layout.count) == (30, 75)


@pytest.mark.parametrize("first", [0, 1, 2, 39, 40, 41, 42, 79, 80, 81, 100, 119])
def test_frames_after_a_seek_are_those_of_a_whole_reading(film: Clip, first: int) -> None:
    indices = range(first, min(first + 4, 120))
    whole = list(iter_indices(film, [0, *indices]))[1:]
    found = list(iter_indices(film, indices))
    assert [number_of(frame) for frame in found] == list(indices)
    assert all((a == b).all() for a, b in zip(found, whole, strict=True))


def test_what_lies_before_the_stretch_is_not_decoded(film: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    pictures = Decoder._decoded

    def counted(decoder: Decoder) -> Any:
        for index, picture in pictures(decoder):
            decoded.append(index)
            yield index, picture

    monkeypatch.setattr(Decoder, "_decoded", counted)
    assert [number_of(frame) for frame in iter_indices(film, [90, 91])] == [90, 91]
    assert min(decoded) == 80


@pytest.mark.parametrize("first", [0, 1, 24, 25, 26, 30])
def test_interlaced_frames_after_a_seek_are_deinterlaced_alike(tmp_path: Path, first: int) -> None:
    options = {"preset": "veryfast", "g": "12", "x264-params": "tff=1", "flags": "+ildct+ilme"}
    clip = probe(make_clip(tmp_path / "a.mkv", 36, 25, SHORT, options=options), None)
    whole = list(iter_indices(clip, range(36)))
    found = list(iter_indices(clip, [first, first + 1]))
    assert np.array_equal(np.stack(found), np.stack(whole[first : first + 2]))


def test_handles_are_frames_around_the_stretch(film: Clip) -> None:
    stretch = {"start": film.times[30], "end": film.times[60]}
    assert used(film, **stretch, handles=8) == list(range(22, 68))
    assert stretch_of(film, PreprocessSettings(**stretch, handles=8)).handles == (8, 8)
    half = PreprocessSettings(**stretch, handles=8, fps=NTSC / 2)
    assert (handles_of(film, half), job_frames(film, half)[0][0]) == ((8, 8), 14)
    assert missing_handles(film, half) is None


@pytest.mark.parametrize(("first", "stop", "wanted"), [(3, 60, (3, 8)), (30, 118, (8, 2)), (0, 120, (0, 0))])
def test_handles_that_the_clip_has_not_are_told(film: Clip, first: int, stop: int, wanted: tuple[int, int]) -> None:
    settings = PreprocessSettings(
        start=film.times[first], end=None if stop == 120 else film.times[stop], handles=8, face_size=64
    )
    assert used(film, **settings.model_dump(include={"start", "end", "handles"})) == list(
        range(first - wanted[0], stop + wanted[1])
    )
    assert missing_handles(film, settings) == (
        f"the clip has {wanted[0]} frames for the handle before the stretch and {wanted[1]} for the one after, not 8"
    )
    assert plan_layout("replacement", film, SHORT, settings, 64 * 48).handles == wanted
