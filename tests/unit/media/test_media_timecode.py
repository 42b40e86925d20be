"""Timecode: labels of frames, drop-frame, rates that have none."""

from __future__ import annotations

from fractions import Fraction

import pytest

from wanimate.errors import InputError
from wanimate.media import timecode

NTSC, DOUBLE, FILM = Fraction(30000, 1001), Fraction(60000, 1001), Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("frame", "rate", "drop", "text"),
    [
        (107_892, NTSC, True, "01:00:00;00"),
        (107_892, NTSC, False, "00:59:56:12"),
        (108_000, NTSC, False, "01:00:00:00"),
        (1799, NTSC, True, "00:00:59;29"),
        (1800, NTSC, True, "00:01:00;02"),
        (17_981, NTSC, True, "00:09:59;29"),
        (17_982, NTSC, True, "00:10:00;00"),
        (3599, DOUBLE, True, "00:00:59;59"),
        (3600, DOUBLE, True, "00:01:00;04"),
        (215_784, DOUBLE, True, "01:00:00;00"),
        (86_400, FILM, False, "01:00:00:00"),
        (90_000, Fraction(25), False, "01:00:00:00"),
        (15 * 60, Fraction(15), False, "00:01:00:00"),
        (13, Fraction(25, 2), False, "00:00:01:00"),
        (119, Fraction(120), False, "00:00:00:119"),
    ],
)  # fmt: skip
def test_frames_and_labels_are_each_others(frame: int, rate: Fraction, drop: bool, text: str) -> None:
    assert timecode.format(frame, rate, drop) == text
    assert timecode.parse(text, rate) == frame


def test_an_hour_of_drop_frame_is_an_hour_of_the_clock() -> None:
    """The exact time of frame 107892 is what FCPXML calls 107999892/30000s."""
    assert Fraction(107_892) / NTSC == Fraction(107_999_892, 30_000)


@pytest.mark.parametrize("rate", [NTSC, DOUBLE])
def test_every_frame_of_twenty_minutes_has_a_label_of_its_own(rate: Fraction) -> None:
    labels = [timecode.format(frame, rate, True) for frame in range(20 * 60 * 60)]
    assert len(set(labels)) == len(labels)
    assert labels == sorted(labels)
    assert [timecode.parse(label, rate) for label in labels[::7]] == list(range(0, len(labels), 7))


def test_labels_begin_again_after_a_day() -> None:
    assert timecode.format(25 * 86_400 + 3, Fraction(25)) == "00:00:00:03"
    assert timecode.format(107_892 * 24, NTSC, True) == "00:00:00;00"


def test_only_two_rates_drop() -> None:
    rates = [FILM, Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), DOUBLE, Fraction(60), Fraction(15)]
    assert [rate for rate in rates if timecode.may_drop(rate)] == [NTSC, DOUBLE]


@pytest.mark.parametrize("rate", [Fraction(15), Fraction(16), Fraction(25, 2), Fraction(2997, 100)])
def test_a_rate_without_timecode_says_so(rate: Fraction) -> None:
    assert not timecode.is_exact(rate)
    assert timecode.is_exact(NTSC)


@pytest.mark.parametrize(
    ("text", "rate", "said"),
    [
        ("00:01:00;00", NTSC, "first 2 labels"),
        ("00:01:00;03", DOUBLE, "first 4 labels"),
        ("01:00:00;00", FILM, "30000/1001 and 60000/1001 only"),
        ("00:00:00:30", NTSC, "23:59:59:29"),
        ("24:00:00:00", Fraction(25), "23:59:59:24"),
        ("00:61:00:00", Fraction(25), "23:59:59:24"),
        ("1:2:3:4", Fraction(25), "no timecode"),
        ("00:00:00:0१", Fraction(25), "no timecode"),
        ("107892", NTSC, "no timecode"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused(text: str, rate: Fraction, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        timecode.parse(text, rate)
    assert error.value.field == "timecode"


def test_what_has_no_label_is_refused() -> None:
    with pytest.raises(InputError, match="from 0"):
        timecode.format(-1, NTSC)
    with pytest.raises(InputError, match="only"):
        timecode.format(0, Fraction(24), True)
    for rate in (Fraction(0), Fraction(-25), Fraction(2000)):
        with pytest.raises(InputError, match="rate"):
            timecode.format(0, rate)
