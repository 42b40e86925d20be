"""Markers of a video for other programs, whatever they tell: as CSV, and as EDL with Resolve's marker lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal
from unicodedata import category

from wanimate.errors import InputError
from wanimate.media import timecode

Colour = Literal["Red", "Green", "Blue", "Yellow"]
COLUMNS = ("name", "comment", "in", "out", "duration", "colour")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Marker:
    """Something said of frames of a video. frame: from 0. name: who or what says it. text: may have several lines. duration:
    in frames. done: whether it is settled. answers: to the text."""

    frame: int
    name: str
    text: str
    duration: int = 1
    colour: Colour = "Red"
    done: bool = False
    answers: tuple[str, ...] = ()

    def whole(self, between: str) -> str:
        """Text and answers."""
        return between.join([self.text, *self.answers])


@dataclass(frozen=True)
class Count:
    """How the frames of a file are counted.

    rate: frames a second, exact. start: the number of its first frame. drop: whether labels are dropped. `of` makes one.
    """

    rate: Fraction
    start: int = 0
    drop: bool = False

    @classmethod
    def of(cls, rate: Fraction, label: str | None = None) -> Count:
        """From the timecode of the first frame. Without one the count begins at 0, with dropped labels where the rate has them.
        A label that does not exist at the rate counts as none."""
        counts = timecode.is_exact(rate)
        if label and counts:
            try:
                return cls(rate, timecode.parse(label, rate), ";" in label)
            except InputError:
                pass
        return cls(rate, 0, timecode.may_drop(rate))

    @property
    def exact(self) -> bool:
        """Whether the rate has timecode."""
        return timecode.is_exact(self.rate)

    @property
    def hour(self) -> int:
        """The number of 01:00:00:00, where timelines begin."""
        return timecode.parse(f"01:00:00{';' if self.drop else ':'}00", self.rate)

    def label(self, frame: int) -> str:
        """The label of a frame number, `start` counted in. At a rate without timecode, labels are those of the rounded rate."""
        return timecode.format(frame, self.rate, self.drop)

    @property
    def words(self) -> str:
        """What kind of labels these are."""
        if not self.exact:
            return "frame numbers: the rate has no timecode"
        return "drop-frame timecode" if self.drop else "non-drop timecode"

    @property
    def fcm(self) -> str:
        """The line of an EDL that tells it."""
        return f"FCM: {'DROP FRAME' if self.drop else 'NON-DROP FRAME'}"


def markers_csv(title: str, count: Count, markers: Sequence[Marker]) -> str:
    """Markers for a spreadsheet or an editing program.

    The first line names the exact rate and how frames are counted, the second the columns. `in`, `out` (the frame behind the
    last) and `duration` are timecode; frame numbers where the rate has none. Cells that a spreadsheet would compute begin
    with an apostrophe.
    """
    rate, exact = count.rate, count.exact
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([f"# {plain(title)}, rate {rate} frames/s, {count.words}"])
    writer.writerow(COLUMNS)
    for one in in_order(markers):
        first, last = count.start + one.frame, count.start + one.frame + one.duration
        places = [count.label(first), count.label(last)] if exact else [str(first), str(last)]
        length = timecode.format(one.duration, rate) if exact else str(one.duration)
        cells = (one.name, one.whole("\n"), *places, length, one.colour)
        writer.writerow([safe_cell(cell) for cell in cells])
    return file.getvalue()


def markers_edl(title: str, count: Count, markers: Sequence[Marker]) -> str:
    """Markers as an edit decision list (CMX 3600) with Resolve's marker lines: an event for each.

    Source times are the file's own. Record times begin at 01:00:00:00, where timelines do.
    """
    lines = _head(title, count)
    for number, one in enumerate(in_order(markers), 1):
        text = plain(f"{one.name}: {one.whole(' / ')}")
        lines += [
            event(number, "AX", count, one.frame, one.frame + one.duration),
            f" |C:ResolveColor{one.colour} |M:{text} |D:{one.duration}", "",
        ]  # fmt: skip
    return "\n".join(lines)


def cut_edl(title: str, count: Count, reel: str, frames: int, clip: str) -> str:
    """An edit decision list (CMX 3600) of one event: the whole of a file, cut in at 01:00:00:00.

    Args:
        reel: of the file, cut to the eight letters that the form has; without one it is AX.
        clip: the file's name, in a comment from which programs find it.
    """
    short = "".join(letter for letter in reel.upper() if letter.isalnum() and letter.isascii())[:8] or "AX"
    lines = [*_head(title, count), event(1, short, count, 0, frames), f"* FROM CLIP NAME: {plain(clip)}"]
    if reel and short != reel:
        lines.append(f"* REEL NAME: {plain(reel)}")
    return "\n".join([*lines, ""])


def event(number: int, reel: str, count: Count, first: int, stop: int) -> str:
    """The line of an event: frames `first` to `stop` of the file, at the same frames of a timeline."""
    times = " ".join(count.label(base + frame) for base in (count.start, count.hour) for frame in (first, stop))
    return f"{number:03}  {reel:<8} V     C        {times}"


def in_order(markers: Sequence[Marker]) -> Iterator[Marker]:
    """By frame; those of one frame as they were given."""
    return iter(sorted(markers, key=lambda one: one.frame))


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def plain(text: str) -> str:
    """A text in one line, without the sign that parts the fields of a marker."""
    return "".join(letter for letter in " ".join(text.replace("|", "/").split()) if category(letter) != "Cc")


def _head(title: str, count: Count) -> list[str]:
    lines = [f"TITLE: {plain(title)}", count.fcm, ""]
    if not count.exact:
        labels = timecode.counted(count.rate)
        lines += [f"* RATE {count.rate} HAS NO TIMECODE. LABELS ARE COUNTED AT {labels} FRAMES A SECOND.", ""]
    return lines
