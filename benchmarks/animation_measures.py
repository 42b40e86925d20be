"""What is measured on each clip of the mannequin benchmark, and the tables made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from mannequin.world.appearance import REGIONS
from wanimate.measure.metrics import (
    colour_error,
    correlation,
    eye_opening,
    flicker,
    mouth_opening,
    pck,
    psnr,
    seam,
    ssim,
    steps,
)  # fmt: skip
from wanimate.preprocess.detect.landmarks import Networks, face_square
from wanimate.preprocess.detect.litert import Picture, Square
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.types import Frames, Segment

JOINTS = [0, *range(5, 17)]
HANDS = range(91, 133)
TIPS = [start + tip for start in (91, 112) for tip in (4, 8, 12, 16, 20)]
POINTS = [*JOINTS, *TIPS]
CLOTHES = tuple(REGIONS[name] for name in ("top", "bottom", "shoes", "hair"))
DETECTED_SIDE, FACE_SIDE = 384, 256
LEAST_JAW, LEAST_EYES, MEASURABLE = 0.05, 0.05, 0.7

Row = dict[str, dict[str, float]]


Kept = TypeVar("Kept")


def read_kept(kind: type[Kept], path: Path) -> Kept:
    """A dataclass of arrays, from a file of arrays of the same names."""
    with np.load(path) as kept:
        return kind(**{f.name: kept[f.name] for f in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Truth:
    """One clip with its ground truth (`WorldBatch` without the first axis), and the reference picture's own mask [H, W],
    regions [H, W] and points [133, 2]."""

    video: np.ndarray
    skeleton: np.ndarray
    face: np.ndarray
    reference: np.ndarray
    cover: np.ndarray
    region: np.ndarray
    keypoints: np.ndarray
    face_box: np.ndarray
    jaw: np.ndarray
    eyes: np.ndarray
    reference_cover: np.ndarray
    reference_region: np.ndarray
    reference_points: np.ndarray
    body: np.ndarray
    rate: np.ndarray

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **vars(self))

    @property
    def person_size(self) -> float:
        """Nose to the middle of the hips in pixels, median over the clip."""
        hips = self.keypoints[:, 11:13, :2].mean(1)
        return float(np.median(np.linalg.norm(self.keypoints[:, 0, :2] - hips, axis=-1)))

    @property
    def hand_size(self) -> float:
        """Wrist to the tip of the middle finger in pixels, largest of both hands over the clip: as long as it is when stretched
        out across the view."""
        hands = self.keypoints[:, HANDS, :2].reshape(-1, 2, 21, 2)
        return float(np.linalg.norm(hands[:, :, 12] - hands[:, :, 0], axis=-1).max())


class Detectors:
    """The default pose backend on enlarged frames, and its face mesh on enlarged crops."""

    def __init__(self, models: Path | None) -> None:
        folder = find(models)
        self.backend, self.networks = MediapipeBackend(folder), Networks(folder)

    def points(self, frames: Frames) -> np.ndarray:
        """[n, len(POINTS), 2] pixels of the frames as they are; NaN where nobody, or no hand, is found."""
        if (frames == frames[:1]).all():
            frames = frames[:1].repeat(len(frames), axis=0)
        height, width = frames.shape[1:3]
        scale = DETECTED_SIDE / max(height, width)
        size = (round(width * scale), round(height * scale))
        large = (cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in frames)
        people = list(self.backend.track(large))
        points = np.stack([p.keypoints[POINTS, :2] / scale for p in people])
        points[[not p.valid for p in people]] = np.nan
        unseen = np.stack([p.keypoints[POINTS, 2] <= 0 for p in people])
        unseen[:, : len(JOINTS)] = False
        points[unseen] = np.nan
        return points

    def mouths(self, frames: Frames, boxes: np.ndarray) -> np.ndarray:
        """Opening of the mouth, [n]: the first column of `expressions`."""
        return self.expressions(frames, boxes)[:, 0]

    def expressions(self, frames: Frames, boxes: np.ndarray) -> np.ndarray:
        """Opening of mouth and eyes, [n, 2], from crops twice as wide as the true face boxes; NaN where no face is found."""
        return np.array([self._expression(f, b) for f, b in zip(frames, boxes, strict=True)])

    def _expression(self, frame: np.ndarray, box: np.ndarray) -> tuple[float, float]:
        centre, side = (box[:2] + box[2:]) / 2, 2.0 * float((box[2:] - box[:2]).max())
        scale = FACE_SIDE / side
        shift = FACE_SIDE / 2 - scale * centre
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = cv2.warpAffine(
            frame, matrix, (FACE_SIDE, FACE_SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        picture = Picture(crop)
        found = self.networks.find_faces(picture, Square(FACE_SIDE / 2, FACE_SIDE / 2, FACE_SIDE, 0.0))
        places = [face_square(max(found, key=lambda f: f.area))] if found else []
        # Small faces are too coarse for the detector and not for the mesh: the true box, which is half the crop, will do.
        for place in (*places, Square(FACE_SIDE / 2, FACE_SIDE / 2, 0.75 * FACE_SIDE, 0.0)):
            mesh = self.networks.face(picture, place)
            if mesh.score >= 0.5:
                return mouth_opening(mesh.points), eye_opening(mesh.points)
        return float("nan"), float("nan")


def measure(truth: Truth, videos: Mapping[str, Frames], detectors: Detectors, segments: Sequence[Segment]) -> Row:
    """All numbers of one clip, for every video of it."""
    cover = truth.cover / 255
    height, width = cover.shape[1:]
    outside = cv2.dilate(truth.cover.max(0), np.ones((9, 9), np.uint8)) < 3
    background = np.broadcast_to(outside, truth.cover.shape)
    person = truth.cover > 250
    x, y, seen = np.moveaxis(truth.keypoints[:, POINTS], -1, 0)
    inside = (seen > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    body, tips = slice(0, len(JOINTS)), slice(len(JOINTS), None)
    true_points = truth.keypoints[:, POINTS, :2]
    true_found = detectors.points(truth.video)
    detected = inside & ~np.isnan(true_found[..., 0])
    joins = [s.start + s.overlap for s in segments[1:]]
    out: Row = {}
    for name, video in videos.items():
        found = true_found if name == "truth" else detectors.points(video)
        mouths, eyes = detectors.expressions(video, truth.face_box).T
        changes, calm = steps(video), steps(video, background)
        row = {
            "psnr": psnr(video, truth.video), "ssim": ssim(video, truth.video),
            "body psnr": psnr(video, truth.video, cover), "body ssim": ssim(video, truth.video, cover),
            "jaw": correlation(mouths, truth.jaw), "faces": float(np.mean(~np.isnan(mouths))),
            "eyes": correlation(eyes, truth.eyes), "people": float(np.mean(~np.isnan(found[:, 0, 0]))),
            "colour": colour_error(video, truth.region, truth.reference, truth.reference_region, CLOTHES),
            "flicker background": flicker(video, background), "flicker person": flicker(video, person),
            "seam": seam(changes, joins), "seam background": seam(calm, joins),
            "jaw range": float(truth.jaw.std()), "eyes range": float(truth.eyes.std()),
        }  # fmt: skip
        for word, right, counted in (("detected", true_found, detected), ("true", true_points, inside)):
            row[f"right {word}"], row[f"of {word}"] = pck(
                found[:, body], right[:, body], counted[:, body], truth.person_size
            )
        row["right tips"], row["of tips"] = pck(
            found[:, tips], true_points[:, tips], inside[:, tips], truth.hand_size, within=0.2
        )
        if joins:
            first, rest = slice(0, joins[0]), slice(joins[0], None)
            row["body psnr first"] = psnr(video[first], truth.video[first], cover[first])
            row["body psnr rest"] = psnr(video[rest], truth.video[rest], cover[rest])
        out[name] = row
    return out


NAMES = {
    "ours": "ours", "cut-out": "moved cut-out", "still": "still reference", "codec": "true frames through our VAE",
    "truth": "true frames",
}  # fmt: skip


def summarise(rows: Sequence[Row], long_rows: Sequence[Row]) -> list[str]:
    """Markdown: the table of all clips, the table of long clips, and what the numbers are."""
    lines = []
    if rows:
        table = {label: {v: value(rows, v) for v in NAMES} for label, value in _LINES.items()}
        lines += ["| | " + " | ".join(NAMES.values()) + " |", "|---" * (len(NAMES) + 1) + "|"]
        lines += [f"| {label} | " + " | ".join(cells.values()) + " |" for label, cells in table.items()]
        lines += ["", *_EXPLAINED]
    if long_rows:
        lines += ["", f"Joins of segments, {len(long_rows)} clips:", "", "| | ours | true frames |", "|---|---|---|"]
        for label, key in (
            ("step at a join above its neighbours, levels", "seam"),
            ("the same in the background", "seam background"),
            ("background flicker, levels", "flicker background"),
            ("body PSNR of the first segment, dB", "body psnr first"),
            ("body PSNR of the later ones, dB", "body psnr rest"),
        ):
            cells = [_mean(long_rows, v, key) if "psnr" not in key or v == "ours" else "" for v in ("ours", "truth")]
            lines.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return lines


def _mean(rows: Sequence[Row], video: str, key: str, digits: int = 2) -> str:
    values = np.array([r[video][key] for r in rows])
    return "" if np.isnan(values).all() else f"{np.nanmean(values):.{digits}f}"


def _share(rows: Sequence[Row], video: str, against: str) -> str:
    right, of = (sum(r[video][f"{word} {against}"] for r in rows) for word in ("right", "of"))
    return f"{right / max(of, 1):.3f}"


def _following(part: str, least: float) -> Any:
    """Correlation of jaw or eyes over the clips that move them and whose own true frames show it to the detector."""

    def cell(rows: Sequence[Row], video: str) -> str:
        fit = [r for r in rows if r["truth"][f"{part} range"] >= least and r["truth"][part] >= MEASURABLE]
        return f"{np.mean([r[video][part] for r in fit]):.3f} ({len(fit)} clips)" if fit else ""

    return cell


def _unless_truth(key: str, digits: int) -> Any:
    return lambda rows, video: "" if video == "truth" else _mean(rows, video, key, digits)


_LINES: dict[str, Any] = {
    "PSNR, dB": _unless_truth("psnr", 2),
    "SSIM": _unless_truth("ssim", 3),
    "body PSNR, dB": _unless_truth("body psnr", 2),
    "body SSIM": _unless_truth("body ssim", 3),
    "PCK@0.1 against joints detected in the true frames": lambda rows, v: "" if v == "truth" else _share(rows, v, "detected"),
    "PCK@0.1 against true joints": lambda rows, v: _share(rows, v, "true"),
    "people found, share of frames": lambda rows, v: _mean(rows, v, "people", 3),
    "fingertips, PCK@0.2 of the hand's length against true ones": lambda rows, v: _share(rows, v, "tips"),
    "jaw correlation": _following("jaw", LEAST_JAW),
    "eye-opening correlation": _following("eyes", LEAST_EYES),
    "faces found, share of frames": lambda rows, v: _mean(rows, v, "faces", 3),
    "colour error of clothes and hair, CIE76": lambda rows, v: _mean(rows, v, "colour"),
    "background flicker, levels": lambda rows, v: _mean(rows, v, "flicker background", 3),
    "person flicker, levels": lambda rows, v: _mean(rows, v, "flicker person", 3),
}  # fmt: skip

_EXPLAINED = [
    "PSNR and SSIM are means over clips; body: weighted by the true mask. PCK@0.1: nose, shoulders, elbows, wrists, hips,",
    f"knees and ankles that are truly in the picture, detected by the default backend on frames enlarged to {DETECTED_SIDE}",
    "pixels; a joint is right within a tenth of the distance from nose to hips (median over the clip of the true points); a",
    "frame without a person is all wrong. Jaw: Pearson correlation of the mouth's opening (gap of the inner lips over the",
    "height of the face, face mesh on an enlarged crop around the true face) with the world's jaw value, mean over clips whose",
    f"jaw moves and whose true frames reach {MEASURABLE} themselves; eye opening likewise. Fingertips that are not found are",
    "wrong; a hand's length is that of the clip's longest view. Colour: median colour of each region against the reference",
    "picture. Flicker: mean absolute second difference in time. The moved cut-out is the reference's person (true mask),",
    "placed by the similarity that fits nose, shoulders and hips of each frame over the reference's filled-in",
    "background.",
]
