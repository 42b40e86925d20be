"""The 133 keypoints (preprocess spec, section 8.1) as weighted means of mesh vertices and bone heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]

BODY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip


def _face_targets() -> Array:
    """Where the 68 face points lie on the template seen from the front, (x, z) in metres; x > 0 is the subject's left.

    The first 17 (jaw) and the mirrored halves follow iBUG order: from the subject's right to the left.
    """
    jaw = [(-0.073, 0.726), (-0.073, 0.712), (-0.072, 0.697), (-0.069, 0.682), (-0.064, 0.666)]
    jaw += [(-0.055, 0.651), (-0.043, 0.638), (-0.026, 0.629), (0.0, 0.626)]
    jaw += [(-x, z) for x, z in reversed(jaw[:-1])]
    brow = [(-0.055, 0.744), (-0.047, 0.752), (-0.036, 0.756), (-0.025, 0.754), (-0.014, 0.749)]
    brows = brow + [(-x, z) for x, z in reversed(brow)]
    bridge = [(0.0, 0.732), (0.0, 0.720), (0.0, 0.708), (0.0, 0.697)]
    base = [(-0.015, 0.690), (-0.008, 0.687), (0.0, 0.686), (0.008, 0.687), (0.015, 0.690)]
    right = [(-0.045, 0.727), (-0.037, 0.733), (-0.027, 0.733), (-0.018, 0.726), (-0.027, 0.723), (-0.037, 0.723)]
    left = [(-right[i][0], right[i][1]) for i in (3, 2, 1, 0, 5, 4)]
    outer = [(-0.026, 0.663), (-0.016, 0.668), (-0.006, 0.671), (0, 0.670), (0.006, 0.671), (0.016, 0.668)]
    outer += [(0.026, 0.663), (0.016, 0.656), (0.007, 0.653), (0, 0.652), (-0.007, 0.653), (-0.016, 0.656)]
    inner = [(-0.023, 0.663), (-0.008, 0.664), (0, 0.664), (0.008, 0.664), (0.023, 0.663)]
    inner += [(0.008, 0.662), (0, 0.662), (-0.008, 0.662)]
    return np.asarray(jaw + brows + bridge + base + right + left + outer + inner)


_LOWER_LIP = (54, 55, 56, 57, 58, 59, 65, 66, 67)
_UPPER_LIP = (49, 50, 51, 52, 53, 61, 62, 63)


def keypoint_weights(template: Array, weights: Array, bones: list[str], heads: Array, data: Path, jaw: Array) -> Array:
    """Rows: the 133 keypoints; columns: the V vertices, then the J bone heads. Every row sums to 1.

    Args:
        jaw: [V, 3], how vertices move when the jaw opens: tells the lower lip from the upper.
    """
    count, at = len(template), {name: i for i, name in enumerate(bones)}
    rows = np.zeros((133, count + len(bones)))
    regressors = torch.load(data / "keypoints/coco.pth", weights_only=True)
    for i, name in enumerate(BODY):
        rows[i, :count] = regressors[name].numpy()
    owner = weights.argmax(1)
    skin = np.arange(count) < 13380  # the body proper; helpers come after it in the base mesh
    opening = np.linalg.norm(jaw, axis=1)
    head = skin & np.isin(owner, [at["head"], at["neck03"], at["neck02"]])
    for i, (x, z) in enumerate(_face_targets()):
        distance = (template[:, 0] - x) ** 2 + (template[:, 2] - z) ** 2
        near = head & (distance < 0.006**2) & (template[:, 1] < -0.02)
        if i in _LOWER_LIP:
            near &= opening > 0.6 * opening[near].max()
        elif i in _UPPER_LIP:
            near &= opening < 0.2 * opening.max()
        if not near.any():
            near = head & (distance <= distance[head].min() + 1e-9)
        depth = np.where(near, template[:, 1] * 0.5 + np.sqrt(distance) * 2, np.inf)  # the frontmost of the close ones
        rows[23 + i, int(depth.argmin())] = 1
    for side, first in (("L", 91), ("R", 112)):
        rows[first, count + at[f"wrist.{side}"]] = 1
        for finger in range(1, 6):
            for joint in (1, 2, 3):
                rows[first + 4 * (finger - 1) + joint, count + at[f"finger{finger}-{joint}.{side}"]] = 1
            last, before = at[f"finger{finger}-3.{side}"], at[f"finger{finger}-2.{side}"]
            reach = (template - heads[last]) @ (heads[last] - heads[before])
            tip = np.where(skin & (owner == last), reach, -np.inf).argmax()
            rows[first + 4 * finger, int(tip)] = 1
    rows /= rows.sum(1, keepdims=True)
    return rows
