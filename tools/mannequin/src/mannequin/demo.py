"""The clip and the character pictures that the package ships, so that a first run needs nothing from outside.

    python -m mannequin.demo --out src/wanimate/weights/embedded/demo

Everybody in them is a held-out body at full mesh; clothes, lights, motion and sound are set here or drawn from fixed
seeds, so the same machine writes the same files.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mannequin.world.appearance import COLUMNS, push_out, sample_appearances
from mannequin.world.assets import Mannequins, load
from mannequin.world.body import AT, DOF, Posed, Rig, skin
from mannequin.world.camera import Camera, look_at
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.render import Quality, Subjects, render
from mannequin.world.scene import sample_backgrounds
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.types import Frame

RATE, FRAMES, SIDE = 16, 53, 384
SAMPLE_RATE = 48_000
_CRF = 20
_BATCH = 2
"""Views drawn at once: bounds memory, and lets other work on the machine through."""

Keys = tuple[tuple[float, float], ...]
"""Key values of one angle: seconds, degrees (or weight of an expression)."""
Colour = tuple[float, float, float]

_CALM: dict[str, float] = {
    "arm_side": 21, "arm_twist": -28, "elbow": 30, "arm_forward": 3, "pronation": -8, "wrist": 0,
    "knuckle1": 2, "knuckle2": 10, "knuckle3": 11, "knuckle4": 12, "knuckle5": 13,
    "finger1": 6, "finger2": 12, "finger3": 13, "finger4": 14, "finger5": 15, "spread": 9,
}  # fmt: skip
"""Degrees of both arms when nothing happens: a little away from the body, seen at full length from the front."""

_OPEN: dict[str, float] = {
    "knuckle1": -6, "knuckle2": -3, "knuckle3": -3, "knuckle4": -2, "knuckle5": -2,
    "finger1": -2, "finger2": 2, "finger3": 2, "finger4": 3, "finger5": 3, "spread": 14,
}  # fmt: skip

_BEATS = (0.42, 0.66, 0.98, 1.22, 1.54, 1.70, 2.02, 2.26, 2.50, 2.78)
"""Seconds of the syllables: a note of the sound, and an opening of the mouth."""
_LOUD = (0.7, 0.9, 0.6, 1.0, 0.55, 0.8, 0.95, 0.6, 0.85, 0.7)

# The right arm rises, waves and sinks; then the left hand shows its fingers.
_WAVE: dict[str, Keys] = {
    "arm_side_R": ((0.3, 21), (0.95, 50), (1.8, 50), (2.2, 21)),
    "arm_forward_R": ((0.3, 3), (0.7, 16), (0.95, 14), (1.85, 14), (2.1, 16), (2.5, 3)),
    "arm_twist_R": ((0.5, -28), (1.0, -78), (1.2, -56), (1.42, -84), (1.64, -58), (1.82, -70), (2.15, -28)),
    "elbow_R": ((0.25, 30), (0.8, 112), (1.2, 102), (1.42, 114), (1.64, 102), (1.95, 112), (2.55, 30)),
    "wrist_side_R": ((0.5, 0), (0.95, 8), (1.2, -10), (1.42, 10), (1.64, -10), (1.85, 8), (2.3, 0)),
    "wrist_R": ((0.4, 0), (0.95, -4), (1.85, -4), (2.4, 0)),
    "pronation_R": ((0.3, -8), (0.95, 0), (1.85, 0), (2.45, -8)),
}
_SHOW: dict[str, Keys] = {
    "arm_side_L": ((1.2, 21), (1.8, 24), (2.6, 24), (3.05, 21)),
    "arm_forward_L": ((1.2, 3), (1.6, 12), (1.8, 8), (2.6, 8), (2.8, 10), (3.1, 3)),
    "arm_twist_L": ((1.4, -28), (1.85, -52), (2.5, -52), (2.85, -28)),
    "elbow_L": ((1.15, 30), (1.65, 120), (2.6, 120), (3.1, 30)),
    "pronation_L": ((1.2, -8), (1.8, 0), (2.6, 0), (3.05, -8)),
}
_TRUNK: dict[str, Keys] = {
    "lean": ((0.4, 0), (1.2, 5), (1.7, 3), (2.25, -4), (2.95, 0)),
    "bend": ((0.0, 2), (1.1, 0), (2.1, 4), (3.0, 2)),
    "twist": ((0.4, 0), (1.2, 5), (2.1, -6), (2.95, 0)),
    "nod": ((0.0, 0), (0.5, 4), (0.8, -2), (1.5, 2), (2.1, 5), (2.5, -1), (3.0, 0)),
    "tilt": ((0.3, 0), (1.2, -6), (2.1, 6), (2.95, 0)),
    "turn": ((0.3, 0), (1.2, -6), (2.1, 9), (2.95, 0)),
    "clavicle_up_R": ((0.4, 0), (0.95, 4), (1.85, 4), (2.4, 0)),
    "leg_side_L": ((0.0, 5), (3.3, 5)),
    "leg_side_R": ((0.0, 5), (3.3, 5)),
}
_FACE: dict[str, Keys] = {
    "blink_left": ((0.78, 0), (0.87, 1), (0.91, 1), (1.02, 0), (2.1, 0), (2.19, 1), (2.23, 1), (2.34, 0)),
    "blink_right": ((0.78, 0), (0.87, 1), (0.91, 1), (1.02, 0), (2.1, 0), (2.19, 1), (2.23, 1), (2.34, 0)),
    "smile": ((0.2, 0.25), (1.0, 0.5), (1.6, 0.35), (2.4, 0.2), (2.9, 0.45), (3.25, 0.25)),
    "brow_outer": ((0.3, 0), (0.9, 0.5), (1.5, 0.1), (2.0, 0.4), (2.8, 0)),
    "brow_inner": ((1.6, 0), (2.0, 0.5), (2.6, 0)),
}


def _curve(keys: Keys, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smooth curve through keys that never overshoots them (monotone cubic), constant outside."""
    t, v = np.array(keys, dtype=np.float64).T
    slope = np.diff(v) / np.diff(t)
    tangent = np.zeros(len(t))
    for i in range(1, len(t) - 1):
        if slope[i - 1] * slope[i] > 0:
            tangent[i] = 2 * slope[i - 1] * slope[i] / (slope[i - 1] + slope[i])
    clipped = np.clip(times, t[0], t[-1])
    at = np.clip(np.searchsorted(t, clipped, side="right") - 1, 0, len(t) - 2)
    width = t[at + 1] - t[at]
    s = (clipped - t[at]) / width
    start = (1 + 2 * s) * (1 - s) ** 2 * v[at] + s * (1 - s) ** 2 * width * tangent[at]
    return start + s * s * (3 - 2 * s) * v[at + 1] - s * s * (1 - s) * width * tangent[at + 1]


def _hands() -> dict[str, Keys]:
    """The waving hand opens; the fingers of the other one close one after the other and open again."""
    keys: dict[str, Keys] = {}
    for name, fist in (("knuckle", (18.0, 62.0, 66.0, 68.0, 68.0)), ("finger", (28.0, 74.0, 76.0, 76.0, 72.0))):
        for finger in range(1, 6):
            key = f"{name}{finger}"
            calm, wide = _CALM[key], _OPEN[key]
            keys[f"{key}_R"] = ((0.35, calm), (0.85, wide), (1.9, wide), (2.4, calm))
            late = 0.07 * (5 - finger)
            bent = fist[finger - 1] * 0.8
            keys[f"{key}_L"] = (
                (1.25, calm), (1.6, wide), (1.85 + late, wide), (2.02 + late, bent), (2.1 + late, bent),
                (2.3 + late, wide), (2.65, wide), (3.0, calm),
            )  # fmt: skip
    keys["spread_R"] = (
        (0.35, _CALM["spread"]),
        (0.85, _OPEN["spread"]),
        (1.9, _OPEN["spread"]),
        (2.4, _CALM["spread"]),
    )
    keys["spread_L"] = (
        (1.25, _CALM["spread"]),
        (1.6, _OPEN["spread"]),
        (2.65, _OPEN["spread"]),
        (3.0, _CALM["spread"]),
    )
    return keys


def perform(times: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """The performance at `times` [F] in seconds: poses [F, len(DOF)] in radians, expressions [F, E]."""
    pose, face = still(len(times))
    for name, keys in (_WAVE | _SHOW | _TRUNK | _hands()).items():
        pose[:, AT[name]] = torch.from_numpy(np.radians(_curve(keys, times))).float()
    names = list(EXPRESSIONS)
    for name, keys in _FACE.items():
        face[:, names.index(name)] = torch.from_numpy(_curve(keys, times)).float()
    mouth = np.zeros(len(times))
    for beat, loud in zip(_BEATS, _LOUD, strict=True):
        mouth = np.maximum(mouth, loud * np.exp(-(((times - beat - 0.05) / 0.085) ** 2)))
    face[:, names.index("jaw")] = torch.from_numpy(mouth * 0.75).float()
    face[:, names.index("lower_down")] = torch.from_numpy(mouth * 0.35).float()
    return pose, face


def still(count: int) -> tuple[Tensor, Tensor]:
    """The calm stand of the first frame, `count` times: poses and expressions."""
    pose, face = torch.zeros(count, len(DOF)), torch.zeros(count, len(EXPRESSIONS))
    for name, degrees in _CALM.items():
        for side in "LR":
            pose[:, AT[f"{name}_{side}"]] = math.radians(degrees)
    for side in "LR":
        pose[:, AT[f"leg_side_{side}"]] = math.radians(5)
    pose[:, AT["bend"]] = math.radians(2)
    face[:, list(EXPRESSIONS).index("smile")] = 0.25
    return pose, face


@dataclass(frozen=True)
class Role:
    """One person to be drawn. `seed` draws what `appearance` (columns of `appearance.COLUMNS`) leaves open, and the background.

    body: a held-out body. light: direction towards it (x to the body's left, y back, z up), its colour, the ambient
    colour. studio: colour of a plain backdrop, or None for a drawn background. size: width, height in pixels.
    """

    body: int
    seed: int
    light: tuple[Colour, Colour, Colour]
    appearance: dict[str, float | Colour] = field(default_factory=dict)
    studio: Colour | None = None
    size: tuple[int, int] = (SIDE, SIDE)


_SOFT = ((0.3, -0.85, 0.5), (0.42, 0.41, 0.39), (0.56, 0.57, 0.58))
_PLAIN: dict[str, float | Colour] = {
    "bottom_kind": 0, "skirt": 0, "long_hair": 0, "bald": 0, "hem": 0.02, "waist": -0.2, "hairline": 0.0,
    "neck_width": 0.06, "top_loose": 0.013, "bottom_loose": 0.01, "blush": 0.05, "brow_width": 0.0036, "glossy": 0.05,
}  # fmt: skip
"""What all of them share."""
PERFORMER = Role(
    body=141, seed=1, light=_SOFT, studio=(0.62, 0.68, 0.72),
    appearance={
        "skin": (0.93, 0.73, 0.60), "hair": (0.24, 0.14, 0.08), "brow": (0.16, 0.10, 0.07), "beard": 0.0,
        "iris": (0.2, 0.3, 0.4), "lips": (0.78, 0.46, 0.42), "cap": 0.02, "top_a": (0.16, 0.26, 0.46), "top_kind": 0,
        "sleeve": 0.55, "neck_depth": 0.01, "bottom_a": (0.25, 0.24, 0.23), "trouser": 1.9,
        **_PLAIN,
    },
)  # fmt: skip
CHARACTERS = (
    Role(
        body=147, seed=123, light=((0.5, -0.8, 0.4), (0.48, 0.45, 0.40), (0.52, 0.52, 0.54)),
        appearance={
            "skin": (0.86, 0.64, 0.50), "hair": (0.10, 0.07, 0.05), "brow": (0.06, 0.04, 0.03), "beard": 0.55,
            "iris": (0.22, 0.13, 0.06), "lips": (0.68, 0.40, 0.34), "cap": 0.022, "top_a": (0.10, 0.50, 0.47),
            "top_kind": 0, "sleeve": 0.6, "neck_depth": 0.02, "bottom_a": (0.74, 0.65, 0.50), "trouser": 1.9,
            **_PLAIN,
        },
    ),
    Role(
        body=148, seed=150, light=((-0.5, -0.8, 0.5), (0.42, 0.41, 0.42), (0.56, 0.56, 0.57)),
        appearance={
            "skin": (0.97, 0.80, 0.69), "hair": (0.55, 0.22, 0.09), "brow": (0.33, 0.14, 0.06), "beard": 0.0,
            "iris": (0.22, 0.36, 0.26), "lips": (0.80, 0.42, 0.40), "cap": 0.03, "top_a": (0.93, 0.89, 0.80),
            "top_b": (0.78, 0.20, 0.20), "top_kind": 1, "top_period": 0.075, "top_angle": 0.0, "top_duty": 0.1,
            "sleeve": 1.5, "neck_depth": 0.01, "bottom_a": (0.14, 0.18, 0.34), "trouser": 1.9,
            **_PLAIN,
        },
    ),
    Role(
        body=155, seed=125, light=((-0.2, -0.9, 0.6), (0.44, 0.45, 0.48), (0.56, 0.57, 0.60)),
        appearance={
            "skin": (0.50, 0.33, 0.23), "hair": (0.07, 0.05, 0.04), "brow": (0.04, 0.03, 0.02), "beard": 0.0,
            "iris": (0.20, 0.11, 0.05), "lips": (0.55, 0.26, 0.24), "cap": 0.035, "top_a": (0.95, 0.74, 0.16),
            "top_kind": 0, "sleeve": 0.45, "neck_depth": 0.03, "bottom_a": (0.25, 0.38, 0.60), "trouser": 1.9,
            **_PLAIN,
        },
    ),
    Role(
        body=130, seed=124, light=((0.7, -0.6, 0.3), (0.50, 0.46, 0.42), (0.50, 0.51, 0.54)), size=(320, 480),
        appearance={
            "skin": (0.94, 0.75, 0.63), "hair": (0.74, 0.57, 0.32), "brow": (0.45, 0.32, 0.17), "beard": 0.0,
            "iris": (0.22, 0.38, 0.56), "lips": (0.76, 0.46, 0.42), "cap": 0.026, "top_a": (0.52, 0.20, 0.45),
            "top_b": (0.88, 0.72, 0.86), "top_kind": 3, "top_period": 0.11, "sleeve": 1.93, "neck_depth": 0.015,
            "bottom_a": (0.30, 0.30, 0.32), "trouser": 1.88, "shoes": (0.85, 0.84, 0.82),
            **_PLAIN,
        },
    ),
)  # fmt: skip


def _appearance(role: Role) -> Tensor:
    appearance = sample_appearances(Dice(1, torch.Generator().manual_seed(role.seed)))
    for name, value in role.appearance.items():
        appearance[:, COLUMNS[name]] = torch.tensor(value)
    return appearance


def _light(role: Role) -> Tensor:
    direction, strength, ambient = (torch.tensor(part) for part in role.light)
    return torch.cat([normalize(direction, dim=0), strength, ambient]).unsqueeze(0)


def _camera(people: Mannequins, role: Role, eyes: float) -> Camera:
    """A frontal view from the thighs to a little above the head; `eyes`: height of the nose in metres."""
    width, height = role.size
    scale = 1.27 * eyes / 1.6  # metres across a square picture
    tall = scale * height / width
    focal_ratio = 2.2
    centre_z = eyes + 0.19 * scale - tall / 2
    one = torch.ones(1)
    return look_at(
        torch.tensor([[0.0, -0.03, centre_z]]), tall * focal_ratio * one, 0.0 * one, 0.0 * one, 0.0 * one,
        focal_ratio * height * one, torch.tensor([[width / 2, height / 2]]),
    )  # fmt: skip


def _studio(colour: Colour, width: int, height: int) -> Tensor:
    """A plain backdrop, brighter behind the person: [1, height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    away = np.hypot((x / width - 0.5) * 1.1, y / height - 0.42)
    shade = (1.12 - 0.42 * away**1.3)[..., None] * np.array(colour)
    return torch.from_numpy(np.clip(shade, 0, 1)).float().unsqueeze(0)


def draw(people: Mannequins, role: Role, pose: Tensor, face: Tensor, supersample: int = 2) -> npt.NDArray[np.uint8]:
    """Pictures of one person, uint8 RGB [F, height, width, 3], from poses [F, len(DOF)] and expressions [F, E]."""
    width, height = role.size
    rig, appearance, light = Rig(people), _appearance(role), _light(role)
    push = push_out(people, appearance)
    body = torch.tensor([role.body])
    quiet, mask = still(1)
    camera = _camera(people, role, float(skin(rig, body, quiet, mask, push).keypoints[0, 0, 2]))
    if role.studio is not None:
        behind = _studio(role.studio, width, height)
    else:
        behind = sample_backgrounds(Dice(1, torch.Generator().manual_seed(role.seed)), light, height, width)
    pictures = []
    for some_pose, some_face in zip(pose.split(_BATCH), face.split(_BATCH), strict=True):
        n = len(some_pose)
        posed: Posed = skin(rig, body.expand(n), some_pose, some_face, push.expand(n, -1))
        views = Camera(
            camera.rotation.expand(n, -1, -1), camera.eye.expand(n, -1), camera.focal.expand(n, -1),
            camera.centre.expand(n, -1),
        )  # fmt: skip
        owner = torch.zeros(n, dtype=torch.int64)
        picture = render(people, posed, views, Subjects(owner, appearance, light), height, width, Quality(supersample))
        pictures.append((picture.over(behind) * 255 + 0.5).to(torch.uint8).numpy())
    return np.concatenate(pictures)


def sound(seconds: float) -> npt.NDArray[np.float32]:
    """A small tune, one plucked note a syllable over a soft beat: mono [samples] at `SAMPLE_RATE`, within -1..1."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(7).normal(0, 1, len(t))
    total = np.zeros(len(t))

    def since(start: float) -> npt.NDArray[np.float64]:
        return np.maximum(t - start, 0)

    notes = (0, 4, 7, 9, 7, 4, 12, 9, 7, 4)  # semitones above A3, a major pentatonic
    for beat, loud, note in zip(_BEATS, _LOUD, notes, strict=True):
        s, pitch = since(beat), 220 * 2 ** (note / 12)
        ring = np.exp(-s * 6) * (1 - np.exp(-s * 900)) * (t >= beat)
        tone = np.sin(2 * math.pi * pitch * s) + 0.35 * np.exp(-s * 14) * np.sin(2 * math.pi * 3.93 * pitch * s)
        total += 0.22 * loud * ring * tone
    for beat in np.arange(0.1, seconds - 0.25, 0.48):
        s = since(float(beat))
        total += 0.2 * np.exp(-s * 22) * np.sin(2 * math.pi * (52 * s - 3 * np.exp(-s * 30))) * (t >= beat)
        s = since(float(beat) + 0.24)
        total += 0.02 * np.exp(-s * 60) * noise * (t >= beat + 0.24)
    fade = np.clip(np.minimum(t, seconds - t) / 0.05, 0, 1)
    return (total * fade).astype(np.float32)


def write_clip(path: Path, frames: npt.NDArray[np.uint8], audio: npt.NDArray[np.float32]) -> None:
    """H.264 and AAC in mp4 from RGB frames [F, H, W, 3] at `RATE` and mono sound at `SAMPLE_RATE`."""
    _, height, width, _ = frames.shape
    options = {"crf": str(_CRF), "preset": "slow", "threads": "1"}
    encoding = Encoding("mp4", "libx264", "yuv420p", options, {"movflags": "+faststart"})
    with StreamWriter(path, Fraction(RATE), width, height, encoding) as writer:
        track = writer.container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        track.bit_rate = 96_000
        for frame in frames:
            writer.write(frame)
        block = 1024
        for start in range(0, len(audio), block):
            samples = av.AudioFrame.from_ndarray(audio[None, start : start + block], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = SAMPLE_RATE, start
            for packet in track.encode(samples):
                writer.mux(packet)
        for packet in track.encode(None):
            writer.mux(packet)


def _write_picture(path: Path, picture: Frame) -> None:
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data.tobytes())
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/wanimate/weights/embedded/demo"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    people = load(full=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for number, role in enumerate(CHARACTERS, 1):
        _write_picture(args.out / f"character-{number}.png", draw(people, role, *still(1))[0])
    times = np.arange(FRAMES) / RATE
    frames = draw(people, PERFORMER, *perform(times))
    write_clip(args.out / "performer.mp4", frames, sound(FRAMES / RATE))
    for path in sorted(args.out.iterdir()):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
