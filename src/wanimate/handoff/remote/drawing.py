"""Drawn marks as Frame.io keeps them: a JSON text of shapes in shares of the picture.

Frame.io documents lines, arrows and rectangles. A stroke becomes lines from point to point. Shapes come back as strokes;
those that are not documented are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from wanimate.media.json_file import parse_json
from wanimate.review.records import POINTS, STROKES, Stroke

_COLUMNS = 1280
"""Columns of a picture on which the size of a line is counted."""
_LINES = 400
"""Lines of one comment."""
_HEX = frozenset("0123456789abcdef")

Point = tuple[float, float]


def written(strokes: Sequence[Stroke]) -> str | None:
    """The marks of a comment; None where there are none."""
    shapes: list[dict[str, Any]] = []
    for stroke in strokes:
        points = _thinned(stroke.points, max(2, _LINES // len(strokes) + 1))
        size = max(1, round(stroke.width * _COLUMNS))
        for (x1, y1), (x2, y2) in pairwise(points):
            shapes.append(
                {"tool": "line", "color": stroke.colour, "size": size, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
            )
    return json.dumps(shapes, separators=(",", ":")) if shapes else None


def read(text: object) -> tuple[Stroke, ...]:
    """The strokes of a text or of what it stands for. Lines that follow each other are one stroke."""
    try:
        shapes = parse_json(text) if isinstance(text, str) else text
    except ValueError:
        return ()
    found: list[tuple[list[Point], str, float]] = []
    for shape in shapes if isinstance(shapes, list) else ():
        points = _points(shape) if isinstance(shape, dict) else []
        if not points:
            continue
        colour, width = _colour(shape.get("color")), _width(shape.get("size"))
        if found and shape.get("tool") == "line" and found[-1][0][-1] == points[0] and found[-1][1:] == (colour, width):
            found[-1][0].append(points[1])
        else:
            found.append((points, colour, width))
    kept, room = [], POINTS
    for points, colour, width in found[:STROKES]:
        points = points[: min(2000, room)]
        room -= len(points)
        if points:
            kept.append(Stroke(points=tuple(points), colour=colour, width=width))
    return tuple(kept)


def _points(shape: Mapping[str, Any]) -> list[Point]:
    names: Sequence[str] = ("x1", "y1", "x2", "y2") if shape.get("tool") == "line" else ("x", "y", "w", "h")
    values = [shape.get(name) for name in names]
    if shape.get("tool") not in ("line", "arrow", "rect") or not all(
        isinstance(value, int | float) for value in values
    ):
        return []
    a, b, c, d = (float(value) for value in values if value is not None)
    if shape["tool"] == "line":
        points = [(a, b), (c, d)]
    elif shape["tool"] == "arrow":
        points = [(a, b), (a + c, b + d)]
    else:
        points = [(a, b), (a + c, b), (a + c, b + d), (a, b + d), (a, b)]
    return [(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)) for x, y in points]


def _thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most so many points, both ends among them. A single point becomes a dot."""
    if len(points) == 1:
        return (points[0], points[0])
    if len(points) <= most:
        return points
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def _colour(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    return text if len(text) == 7 and text[0] == "#" and set(text[1:]) <= _HEX else "#ff3b30"


def _width(value: object) -> float:
    pixels = float(value) if isinstance(value, int | float) else 8.0
    return min(max(pixels / _COLUMNS, 0.001), 0.05)
