"""Recorded motion for the mannequins: the `humanoid3d_*` files of pybullet's data package, as degrees of freedom.

A file is JSON: frames of 44 numbers, duration, root position and quaternion (w first), then joints; x forward, y up,
z to the right, and hanging arms at zero, as here. Flips, rolls, crawls and getting up are left out: people who
lie or stand on their hands are not what the network is for.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mannequin.world.body import AT, DOF

Array = npt.NDArray[np.float64]
RATE = 30
"""Stored frames a second."""
NAMES = ("walk", "run", "jump", "kick", "punch", "dance_a", "dance_b", "spinkick")
_AXES = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
"""Their axes in ours: x to the body's left, y back, z up."""


def _ours(quaternion: Array) -> Array:
    """Quaternions [F, 4] (w first) in our axes, without sign jumps."""
    q = np.concatenate([quaternion[:, :1], quaternion[:, 1:] @ _AXES.T], axis=1)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    q *= np.sign(q[:1, :1]) or 1.0
    for i in range(1, len(q)):
        if q[i] @ q[i - 1] < 0:
            q[i] = -q[i]
    return q


def _product(a: Array, b: Array) -> Array:
    w, v = a[:, :1], a[:, 1:]
    x, u = b[:, :1], b[:, 1:]
    scalar = w * x - (v * u).sum(1, keepdims=True)
    return np.concatenate([scalar, w * u + x * v + np.cross(v, u)], axis=1)


def _vector(q: Array) -> Array:
    """Rotation vectors [F, 3]."""
    length = np.linalg.norm(q[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(length, q[:, :1])
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    return q[:, 1:] / np.maximum(length, 1e-9) * angle


def _split_twist(q: Array, twist_first: bool) -> tuple[Array, Array]:
    """q as swing * turn about z (`twist_first`: the turn acts first), or as turn * swing: swing [F, 3], angle [F]."""
    twist = np.zeros_like(q)
    twist[:, 0], twist[:, 3] = q[:, 0], q[:, 3]
    twist /= np.maximum(np.linalg.norm(twist, axis=1, keepdims=True), 1e-9)
    inverse = twist * np.array([1, -1, -1, -1])
    swing = _product(q, inverse) if twist_first else _product(inverse, q)
    return _vector(swing), np.unwrap(2 * np.arctan2(twist[:, 3], twist[:, 0]))


def read_clip(path: Path) -> Array:
    """One file as poses [frames, len(DOF)] at `RATE`, radians and metres."""
    raw = np.asarray(json.loads(path.read_text())["Frames"], dtype=float)
    pose = np.zeros((len(raw), len(DOF)))

    def put(name: str, value: Array) -> None:
        pose[:, AT[name]] = value

    place = raw[:, 1:4] @ _AXES.T
    put("x", place[:, 0])
    put("y", place[:, 1])
    swing, yaw = _split_twist(_ours(raw[:, 4:8]), twist_first=False)
    put("yaw", yaw)
    put("pitch", swing[:, 0])
    put("roll", swing[:, 1])
    for first, names in ((8, ("bend", "lean", "twist")), (12, ("nod", "tilt", "turn"))):
        vector = _vector(_ours(raw[:, first : first + 4]))
        for i, name in enumerate(names):
            put(name, vector[:, i])
    for side, out, hip in (("R", -1.0, 16), ("L", 1.0, 30)):
        swing, twist = _split_twist(_ours(raw[:, hip : hip + 4]), twist_first=True)
        put(f"leg_forward_{side}", -swing[:, 0])
        put(f"leg_side_{side}", -out * swing[:, 1])
        put(f"leg_twist_{side}", -out * twist)
        put(f"knee_{side}", -raw[:, hip + 4])
        ankle = _vector(_ours(raw[:, hip + 5 : hip + 9]))
        put(f"ankle_{side}", -ankle[:, 0])
        put(f"ankle_side_{side}", -out * ankle[:, 1])
        swing, twist = _split_twist(_ours(raw[:, hip + 9 : hip + 13]), twist_first=True)
        put(f"arm_forward_{side}", -swing[:, 0])
        put(f"arm_side_{side}", -out * swing[:, 1])
        put(f"arm_twist_{side}", -out * twist)
        put(f"elbow_{side}", raw[:, hip + 13])
    times = np.concatenate([[0.0], raw[:-1, 0].cumsum()])
    wanted = np.arange(0, times[-1] + 1e-6, 1 / RATE)
    return np.stack([np.interp(wanted, times, column) for column in pose.T], axis=1)


def read_clips(folder: Path) -> tuple[Array, npt.NDArray[np.int64]]:
    """All clips of `NAMES` in pybullet's motion folder: [C, longest, len(DOF)], the last pose repeated, and lengths.

    Each is centred on its mean place and its mean direction is "ahead".
    """
    clips = [read_clip(folder / f"humanoid3d_{name}.txt") for name in NAMES]
    lengths = np.array([len(clip) for clip in clips])
    for clip in clips:
        clip[:, [AT["x"], AT["y"]]] -= clip[:, [AT["x"], AT["y"]]].mean(0)
        clip[:, AT["yaw"]] -= np.median(clip[:, AT["yaw"]])
    longest = int(lengths.max())
    padded = [np.concatenate([c, np.repeat(c[-1:], longest - len(c), axis=0)]) for c in clips]
    return np.stack(padded), lengths
