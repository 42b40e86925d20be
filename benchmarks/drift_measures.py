"""What `drift.py` measures on a long clip with known true frames, its table and its plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mannequin.world.appearance import REGIONS
from wanimate.conditions.segments import reflect
from wanimate.measure.metrics import colour_error, flicker, psnr, seam, steps
from wanimate.types import Frames, Segment

CLOTHES = tuple(REGIONS[name] for name in ("top", "bottom", "shoes", "hair"))


@dataclass(frozen=True)
class Drawn:
    """A drawn motion with its truth: frames [n, H, W, 3], `cover` [n, H, W] of 0..255, `region` [n, H, W], the character's
    picture and its regions, and `mask` [n, H, W, 3], white where replacement draws."""

    video: np.ndarray
    skeleton: np.ndarray
    face: np.ndarray
    reference: np.ndarray
    cover: np.ndarray
    region: np.ndarray
    reference_region: np.ndarray
    mask: np.ndarray


def fresh(segments: Sequence[Segment], count: int) -> Iterator[slice]:
    """The frames that each segment adds."""
    for s in segments:
        yield slice(s.start + s.overlap, min(s.stop, count))


def mean_lab(frames: Frames, mask: np.ndarray) -> list[float]:
    """Mean CIE L*a*b* of the pixels in `mask` [n, H, W] of all frames."""
    values = [cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[m] for f, m in zip(frames, mask, strict=True)]
    return [float(x) for x in np.concatenate(values).mean(0, dtype=np.float64)]


def sharpness(frames: Frames, mask: np.ndarray) -> float:
    """Mean absolute Laplacian in `mask`, in levels of 255."""
    grey = (cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_32F) for f in frames)
    return float(np.concatenate([np.abs(g)[m] for g, m in zip(grey, mask, strict=True)]).mean())


def by_segment(made: Frames, drawn: Drawn, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Colours of body and scene (ours and true), sharpness, PSNR and colour distance to the character's picture."""
    count = len(made)
    inner, outer = np.ones((5, 5), np.uint8), np.ones((9, 9), np.uint8)
    bodies = np.stack([cv2.erode((c > 250).astype(np.uint8), inner) > 0 for c in drawn.cover])
    scenes = np.stack([cv2.dilate((c > 2).astype(np.uint8), outer) == 0 for c in drawn.cover])
    rows = []
    for part in fresh(segments, count):
        at = [reflect(i, len(drawn.video)) for i in range(part.start, part.stop)]
        ours, true = made[part], drawn.video[at]
        row: dict[str, Any] = {"start": part.start, "stop": part.stop}
        for name, masks in (("body", bodies[at]), ("scene", scenes[at])):
            row[name] = mean_lab(ours, masks)
            row[f"true {name}"] = mean_lab(true, masks)
            row[f"sharpness {name}"] = sharpness(ours, masks) / sharpness(true, masks)
        row["psnr"], row["body psnr"] = psnr(ours, true), psnr(ours, true, drawn.cover[at] / 255)
        row["identity"] = colour_error(ours, drawn.region[at], drawn.reference, drawn.reference_region, CLOTHES)
        rows.append(row)
    return rows


def of_whole(made: Frames, drawn: Drawn, segments: Sequence[Segment]) -> dict[str, float]:
    """Joins and flicker of a clip, above those of the true frames."""
    at = [reflect(i, len(drawn.video)) for i in range(len(made))]
    true, body = drawn.video[at], drawn.cover[at] > 250
    still = np.stack([cv2.dilate((c > 2).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0 for c in drawn.cover])[at]
    joins = [s.start + s.overlap for s in segments[1:]]
    out: dict[str, float] = {}
    for name, mask in (("whole", None), ("body", body), ("scene", still)):
        out[f"join {name}"] = seam(steps(made, mask), joins) - seam(steps(true, mask), joins)
    for name, mask in (("body", body), ("scene", still)):
        out[f"flicker {name}"] = flicker(made, mask) - flicker(true, mask)
    return out


def drift(rows: Sequence[Mapping[str, Any]], place: str) -> list[float]:
    """CIE76 by segment: how far `place` has moved from the true colours since the first segment."""
    off = [np.subtract(row[place], row[f"true {place}"]) for row in rows]
    return [float(np.linalg.norm(o - off[0])) for o in off]


def summary(rows: Sequence[Mapping[str, Any]], clip: Mapping[str, float]) -> dict[str, float]:
    """One clip in numbers. "end": mean over its last third."""
    end = slice(-max(1, len(rows) // 3), None)
    out = {}
    for place in ("body", "scene"):
        moved = drift(rows, place)
        out[f"drift {place}, worst"], out[f"drift {place}, end"] = max(moved), float(np.mean(moved[end]))
        sharp = [row[f"sharpness {place}"] for row in rows]
        out[f"sharpness {place}, first"], out[f"sharpness {place}, end"] = sharp[0], float(np.mean(sharp[end]))
    for key in ("identity", "psnr", "body psnr"):
        out[f"{key}, first"], out[f"{key}, end"] = rows[0][key], float(np.mean([row[key] for row in rows[end]]))
    return out | dict(clip)


LINES = {
    "drift of the body, worst segment, CIE76": ("drift body, worst", 2), "... last third": ("drift body, end", 2),
    "drift of the scene, worst segment, CIE76": ("drift scene, worst", 2), "... of the last third": ("drift scene, end", 2),
    "step at a join above its neighbours, whole picture, levels": ("join whole", 2), "... body": ("join body", 2),
    "... scene": ("join scene", 2), "flicker of the body above the true one, levels": ("flicker body", 2),
    "flicker of the scene above the true one, levels": ("flicker scene", 3),
    "colours of clothes and hair against the picture, first segment, CIE76": ("identity, first", 2),
    "... colours, last third": ("identity, end", 2),
    "sharpness of the body, first segment, share of the true one": ("sharpness body, first", 3),
    "... sharpness of the body, last third": ("sharpness body, end", 3),
    "sharpness of the scene, first segment": ("sharpness scene, first", 3),
    "... sharpness of the scene, last third": ("sharpness scene, end", 3),
    "PSNR, first segment, dB": ("psnr, first", 2), "... PSNR, last third": ("psnr, end", 2),
    "PSNR of the body, first segment, dB": ("body psnr, first", 2), "... PSNR of the body, last third": ("body psnr, end", 2),
}  # fmt: skip


def table(columns: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Markdown: means over clips, one column a setting."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, (key, digits) in LINES.items():
        cells = (f"{np.mean([row[key] for row in rows]):.{digits}f}" for rows in columns.values())
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


_PANEL, _MARGIN = (620, 300), (60, 50)
_COLOURS = ((60, 60, 200), (200, 110, 30), (40, 150, 40), (150, 40, 150), (90, 90, 90))
Curve = tuple[list[float], list[float]]


def plot(panels: Mapping[str, Mapping[str, Sequence[Curve]]], path: Path, columns: int = 2) -> None:
    """Curves (seconds, values) by panel and setting, as a PNG; the dotted line is the aim of 1.5."""
    drawn = [_panel(title, curves) for title, curves in panels.items()]
    rows = [np.concatenate(drawn[i : i + columns], axis=1) for i in range(0, len(drawn), columns)]
    cv2.imwrite(str(path), np.concatenate(rows))


def _panel(title: str, curves: Mapping[str, Sequence[Curve]]) -> np.ndarray:
    (width, height), (left, top) = _PANEL, _MARGIN
    picture = np.full((height + 2 * top, width + left + 20, 3), 255, np.uint8)
    last = max(x[-1] for several in curves.values() for x, _ in several)
    most = max(2.0, 1.05 * max(max(y) for several in curves.values() for _, y in several))

    def write(text: str, x: float, y: float, colour: tuple[int, ...] = (0, 0, 0)) -> None:
        cv2.putText(picture, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(left + width * x / last), round(top + height * (1 - y / most))

    write(title, left, 20)
    for k in range(5):
        value, second = most * k / 4, last * k / 4
        cv2.line(picture, at(0, value), at(last, value), (225, 225, 225), 1)
        write(f"{value:.1f}", 20, at(0, value)[1] + 5)
        write(f"{second:.0f} s", at(second, 0)[0] - 15, top + height + 20)
    for x in np.arange(0, last, last / 100):
        cv2.line(picture, at(x, 1.5), at(x + last / 250, 1.5), (0, 0, 0), 1)
    for number, ((name, several), colour) in enumerate(zip(curves.items(), _COLOURS, strict=False)):
        for x, y in several:
            points = np.array([at(a, b) for a, b in zip(x, y, strict=True)], np.int32)
            cv2.polylines(picture, [points], False, colour, 1, cv2.LINE_AA)
        write(name, left + 160 + 130 * number, 40, colour)
    return picture
