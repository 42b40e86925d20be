"""Whether a body can be one, and whether body and face belong together (preprocess spec, section 17, corrections)."""

from __future__ import annotations

import numpy as np

from wanimate.preprocess.detect.landmarks import Mesh, Pose
from wanimate.preprocess.detect.litert import Square, Vectors

MIN_SCORE = 0.5
SURE, SUPPORTED = 0.6, 0.5
"""Supports of a body (`Pose.support`): right beyond doubt, and right if nothing else speaks against it."""
CLOSE, APART = 0.25, 0.5
"""Noses of body and face, in face widths: closer than the first they agree, beyond the second they contradict each other."""
_HIDDEN = -0.1
"""A nose that lies behind the ears by this share of the shoulders' width belongs to a face that looks away."""
_TIP = 4


def is_body(pose: Pose, mesh: Mesh | None = None) -> bool:
    """Whether the network's answer is a body whose parts agree with each other, and with the face if there is one."""
    if pose.score < MIN_SCORE or pose.support < SUPPORTED:
        return False
    return plausible(pose, mesh) if mesh is not None else pose.support >= SURE or plausible(pose, None)


def plausible(pose: Pose, mesh: Mesh | None) -> bool:
    """Whether the places of a body's parts can be right.

    With a face: the nose lies in it, the neck lies on its chin side, the shoulders are 0.9 to 4 face widths apart
    (0.2 from the side) and not mirrored, visible hips are below the shoulders. Without one: the head is on the other
    side of the neck than the hips.
    """
    p = pose.points[:, :2]
    neck, hips, nose = (p[11] + p[12]) / 2, (p[23] + p[24]) / 2, p[0]
    if mesh is None:
        return float((nose - neck) @ (hips - neck)) < 0
    width = mesh.width
    down = mesh.down / np.hypot(*mesh.down)
    across = mesh.points[263, :2] - mesh.points[33, :2]
    frontal = np.hypot(*across) > 0.5 * width
    shoulders = p[11] - p[12]
    apart = float(np.hypot(*shoulders)) / width
    return bool(
        np.hypot(*(nose - mesh.centre)) < 0.8 * width
        and (neck - mesh.centre) @ down > 0.3 * width
        and (0.9 if frontal else 0.2) <= apart <= 4.0
        and (not frontal or shoulders @ across > 0)
        and (pose.points[23:25, 2].max() < 0.5 or (hips - neck) @ down > 0)
    )


def noses_apart(pose: Pose, mesh: Mesh) -> float:
    """How far the face's nose is from the body's, in face widths."""
    return float(np.hypot(*(mesh.points[_TIP, :2] - pose.points[0, :2]))) / mesh.width


def looks_away(pose: Pose) -> bool:
    """Whether the camera sees the back of the head."""
    return pose.face_towards < _HIDDEN


def head_square(pose: Pose) -> Square:
    """Where a body's face is looked for: around its head, and rotated as the head is."""
    head = pose.points[[0, 7, 8], :2].mean(axis=0)
    shoulders = pose.points[[11, 12], :2]
    up = head - shoulders.mean(axis=0)
    reach = max(np.hypot(*up), np.hypot(*(shoulders[0] - shoulders[1])) / 2)
    return Square.at(head, 3.0 * float(reach), head_angle(pose))


def head_angle(pose: Pose) -> float:
    """Radians by which the head is rotated clockwise in the picture."""
    up: Vectors = pose.points[[0, 7, 8], :2].mean(axis=0) - pose.points[[11, 12], :2].mean(axis=0)
    return float(np.arctan2(up[0], -up[1]))
