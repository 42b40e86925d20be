"""Comments for other programs: JSON with everything, marker CSV, and EDL with Resolve's markers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from wanimate.errors import InputError
from wanimate.review.markers import Count, Marker, markers_csv, markers_edl
from wanimate.review.records import Shot, Version

Format = Literal["json", "csv", "edl"]
FORMATS: tuple[Format, ...] = ("json", "csv", "edl")
SCHEMA = "wanimate.review/1"


def as_json(shot: Shot) -> str:
    """The whole shot. Times are milliseconds since 1970; `record` of a decision is what its hash was made of."""
    return json.dumps({"format": SCHEMA, **shot.model_dump(mode="json")}, ensure_ascii=False, indent=1) + "\n"


def as_csv(shot: Shot, version: Version, start: str | None = None) -> str:
    """Comments on one version, as `markers.markers_csv` writes them.

    Args:
        start: timecode of the file's first frame; without it frames are counted from 0.

    Raises:
        InputError: nobody knows the version's rate.
    """
    count = Count.of(_rate(version), start)
    return markers_csv(f"{shot.name}, version {version.number}", count, comments_of(shot, version))


def as_edl(shot: Shot, version: Version, start: str | None = None) -> str:
    """Comments on one version, as `markers.markers_edl` writes them; otherwise as `as_csv`."""
    count = Count.of(_rate(version), start)
    return markers_edl(f"{shot.name} version {version.number}", count, comments_of(shot, version))


def exported(shot: Shot, format: Format, version: Version, start: str | None = None) -> str:
    """Any of the three. JSON holds all versions."""
    if format == "json":
        return as_json(shot)
    return as_csv(shot, version, start) if format == "csv" else as_edl(shot, version, start)


def comments_of(shot: Shot, version: Version) -> Sequence[Marker]:
    """Comments on one version with their answers, by frame."""
    said = sorted((one for one in shot.comments if one.job == version.job), key=lambda one: (one.frame, one.at))
    return [
        Marker(
            one.frame, one.author, one.text, one.duration, "Red" if one.resolved is None else "Green",
            one.resolved is not None, tuple(f"{reply.author}: {reply.text}" for reply in one.replies),
        )
        for one in said
    ]  # fmt: skip


def _rate(version: Version) -> Fraction:
    if version.exact_rate is None:
        rule = "nobody knows the frames a second of this version"
        raise InputError("version", version.number, rule, "Export as JSON, which counts frames.")
    return version.exact_rate
