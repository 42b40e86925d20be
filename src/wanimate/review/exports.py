"""Comments for other programs: JSON with everything, marker CSV, and EDL with Resolve's markers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal
from unicodedata import category

from wanimate.errors import InputError
from wanimate.media import timecode
from wanimate.review.records import Comment, Shot, Version

Format = Literal["json", "csv", "edl"]
FORMATS: tuple[Format, ...] = ("json", "csv", "edl")
SCHEMA = "wanimate.review/1"
COLUMNS = ("name", "comment", "in", "out", "duration", "colour")
_OPEN, _RESOLVED = "Red", "Green"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_json(shot: Shot) -> str:
    """The whole shot. Times are milliseconds since 1970; `record` of a decision is what its hash was made of."""
    return json.dumps({"format": SCHEMA, **shot.model_dump(mode="json")}, ensure_ascii=False, indent=1) + "\n"


def as_csv(shot: Shot, version: Version, start: int = 0) -> str:
    """Markers of one version for a spreadsheet or an editing program.

    The first line names the exact rate and how frames are counted, the second the columns. `in`, `out` (the frame behind the
    last) and `duration` are timecode; frame numbers where the rate has none. Cells that a spreadsheet would compute begin
    with an apostrophe.

    Args:
        start: the number of the file's first frame, from its timecode.

    Raises:
        InputError: nobody knows the version's rate.
    """
    rate = _rate(version)
    exact = timecode.is_exact(rate)
    told = f"# {_plain(shot.name)}, version {version.number}, rate {rate} frames/s, {_counting(rate)}"
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([told])
    writer.writerow(COLUMNS)
    for comment in _of(shot, version):
        first, last = start + comment.frame, start + comment.frame + comment.duration
        places = [_label(first, rate), _label(last, rate)] if exact else [str(first), str(last)]
        length = timecode.format(comment.duration, rate) if exact else str(comment.duration)
        cells = (comment.author, _text(comment, "\n"), *places, length, _RESOLVED if comment.resolved else _OPEN)
        writer.writerow([safe_cell(cell) for cell in cells])
    return file.getvalue()


def as_edl(shot: Shot, version: Version, start: int = 0) -> str:
    """Markers of one version as an edit decision list (CMX 3600) with Resolve's marker lines.

    Source times are the file's own. Record times begin at 01:00:00:00, where timelines do.

    Args:
        start: the number of the file's first frame, from its timecode.

    Raises:
        InputError: nobody knows the version's rate.
    """
    rate = _rate(version)
    hour = timecode.parse(f"01:00:00{';' if timecode.may_drop(rate) else ':'}00", rate)
    title = _plain(f"{shot.name} version {version.number}")
    lines = [f"TITLE: {title}", f"FCM: {'DROP FRAME' if timecode.may_drop(rate) else 'NON-DROP FRAME'}", ""]
    if not timecode.is_exact(rate):
        lines += [f"* RATE {rate} HAS NO TIMECODE. LABELS ARE COUNTED AT {timecode.counted(rate)} FRAMES A SECOND.", ""]
    for number, comment in enumerate(_of(shot, version), 1):
        frames = (comment.frame, comment.frame + comment.duration)
        times = [_label(base + frame, rate) for base in (start, hour) for frame in frames]
        colour = _RESOLVED if comment.resolved else _OPEN
        text = _plain(f"{comment.author}: {_text(comment, ' / ')}")
        lines += [
            f"{number:03}  AX       V     C        {' '.join(times)}",
            f" |C:ResolveColor{colour} |M:{text} |D:{comment.duration}", "",
        ]  # fmt: skip
    return "\n".join(lines)


def exported(shot: Shot, format: Format, version: Version) -> str:
    """Any of the three. JSON holds all versions."""
    if format == "json":
        return as_json(shot)
    return as_csv(shot, version) if format == "csv" else as_edl(shot, version)


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _of(shot: Shot, version: Version) -> Iterator[Comment]:
    return iter(sorted((one for one in shot.comments if one.job == version.job), key=lambda one: (one.frame, one.at)))


def _text(comment: Comment, between: str) -> str:
    """What was said, and what was answered."""
    return between.join([comment.text, *(f"{reply.author}: {reply.text}" for reply in comment.replies)])


def _plain(text: str) -> str:
    """A text in one line, without the sign that parts the fields of a marker."""
    return "".join(letter for letter in " ".join(text.replace("|", "/").split()) if category(letter) != "Cc")


def _label(frame: int, rate: Fraction) -> str:
    return timecode.format(frame, rate, timecode.may_drop(rate))


def _counting(rate: Fraction) -> str:
    if timecode.may_drop(rate):
        return "drop-frame timecode"
    return "non-drop timecode" if timecode.is_exact(rate) else "frame numbers: the rate has no timecode"


def _rate(version: Version) -> Fraction:
    if version.exact_rate is None:
        rule = "nobody knows the frames a second of this version"
        raise InputError("version", version.number, rule, "Export as JSON, which counts frames.")
    return version.exact_rate
