"""What a package tells of its frames: segments and warnings of the job, and comments of the review, as markers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from wanimate.config.values import parse_rate
from wanimate.handoff.source import Source
from wanimate.review.exports import comments_of
from wanimate.review.markers import Marker
from wanimate.review.records import Shot, Version


def markers_of(source: Source, review: tuple[Shot, Version] | None) -> Sequence[Marker]:
    """All markers of a result, in frames of its file."""
    said = comments_of(*review) if review is not None else ()
    found = [*_segments(source), *_warnings(source), *said]
    last = source.master.count - 1
    return [
        Marker(
            min(one.frame, last), one.name, one.text, min(one.duration, source.master.count - min(one.frame, last)),
            one.colour, one.done, one.answers,
        )
        for one in found
    ]  # fmt: skip


def _segments(source: Source) -> Iterator[Marker]:
    """Where the network began anew, at the rate and behind the slate of the file."""
    record = source.history[-1].record
    segments, rate, frames = record.get("segments"), _rate(record), record.get("frames")
    if not isinstance(segments, list) or rate is None or not isinstance(frames, int):
        return
    slate = sum(bool(told.record.get("slate")) for told in source.history)
    scale = source.master.fps / rate
    redraws = record.get("redraws") if isinstance(record.get("redraws"), Mapping) else {}
    for number, one in enumerate(segments, 1):
        if not (isinstance(one, list) and len(one) == 3 and all(isinstance(value, int) for value in one)):
            continue
        start, length, overlap = one
        first, stop = round((start + overlap) * scale), round((start + length) * scale)
        last = min(start + length, frames) - 1
        text = f"frames {start} to {last} of the job, of which {overlap} are those of the segment before"
        again = ", drawn again" if str(number) in redraws else ""  # type: ignore[operator]
        yield Marker(slate + first, f"segment {number}", text + again, max(stop - first, 1), "Blue")


def _warnings(source: Source) -> Iterator[Marker]:
    """What the jobs warned of. It belongs to the whole of the file, so that it stands at its first frame."""
    for told in reversed(source.history):
        for text in told.record.get("warnings") or ():
            if isinstance(text, str):
                yield Marker(source.slate, "warning", text, 1, "Yellow")


def _rate(record: Mapping[str, Any]) -> Fraction | None:
    """Of the frames that the network made."""
    try:
        return parse_rate(str(record.get("fps")))
    except ValueError:
        return None
