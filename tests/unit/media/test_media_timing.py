"""Rates, resampling by time stamps, and the published sampling rule."""

from __future__ import annotations

from fractions import Fraction

import pytest

from golden import read_json
from wanimate.config.values import snap_rate
from wanimate.media.timing import cap_rate, published_count, published_indices, resample

GOLDEN = read_json("media/frame_indices.json")


@pytest.mark.parametrize(
    "case", GOLDEN["index_cases"], ids=lambda c: f"{c['frame_num']}@{c['video_fps']}->{c['fps_arg']}"
)
def test_published_indices_equal_the_golden_cases(case: dict) -> None:
    indices, used = published_indices(case["frame_num"], case["video_fps"], case["fps_arg"])
    assert list(indices) == case["indices"]
    assert len(indices) == case["target_num"]
    assert used == case["fps_used"]


@pytest.mark.parametrize("case", GOLDEN["count_mismatch_cases"], ids=lambda c: str(c["ratio"]))
def test_published_count_equals_the_golden_cases(case: dict) -> None:
    count = published_count(case["decoder_frames"], case["last_pts_end_s"], case["avg_fps"])
    assert count == case["frame_num_used"]
    by_time = published_count(10 * case["decoder_frames"], case["last_pts_end_s"], case["avg_fps"])
    assert by_time == case["expected"]
    assert abs(case["decoder_frames"] - by_time) / case["decoder_frames"] == pytest.approx(case["ratio"])
    assert (count == by_time) == (case["ratio"] > 0.1 or by_time == case["decoder_frames"])


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (Fraction(2997, 100), Fraction(30000, 1001)),
        (Fraction(23976, 1000), Fraction(24000, 1001)),
        (Fraction(29999, 1000), Fraction(30)),
        (Fraction(24), Fraction(24)),
        (Fraction(137, 10), Fraction(137, 10)),
    ],
)
def test_rates_snap_to_standards_only_when_close(measured: Fraction, expected: Fraction) -> None:
    assert snap_rate(measured) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(24, 24), (30, 30), (60, 30), (Fraction(60000, 1001), Fraction(30000, 1001)), (120, 30), (50, 30), (48, 30)],
)
def test_cap_keeps_whole_divisions_and_never_exceeds(rate: Fraction, expected: Fraction) -> None:
    assert cap_rate(Fraction(rate), Fraction(30)) == expected


def even(n: int, fps: float, digits: int = 9) -> list[float]:
    return [round(i / fps, digits) for i in range(n)]


def test_same_rate_is_the_identity_even_with_millisecond_stamps() -> None:
    times = even(90, 30, digits=3)
    assert resample(times, 3.0, Fraction(30)) == tuple(range(90))


def test_halving_takes_every_second_frame() -> None:
    assert resample(even(120, 60), 2.0, Fraction(30)) == tuple(range(0, 120, 2))


def test_upsampling_repeats_and_stays_within_half_a_source_frame() -> None:
    times = even(48, 24)
    indices = resample(times, 2.0, Fraction(30))
    assert len(indices) == 60
    assert set(indices) == set(range(48))
    assert all(abs(times[j] - i / 30) <= 0.5 / 24 + 1e-9 for i, j in enumerate(indices))


def test_a_pause_is_held_and_not_skipped() -> None:
    # 10 frames at 30/s, one second of pause, 10 more: assuming a constant rate would spread them evenly.
    times = [i / 30 for i in range(10)] + [1.3 + i / 30 for i in range(10)]
    indices = resample(times, 1.3 + 10 / 30, Fraction(30))
    assert len(indices) == 49
    assert list(indices[:10]) == list(range(10))
    assert set(indices[10:38]) == {9}
    assert list(indices[39:]) == list(range(10, 20))


def test_one_frame() -> None:
    assert resample([0.0], 1 / 30, Fraction(30)) == (0,)
