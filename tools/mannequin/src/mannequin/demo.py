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
from wanimate.preprocess.pose.keypoints import FACE
from wanimate.types import Frame

RATE, FRAMES, SIDE = 16, 53, 384
SAMPLE_RATE = 48_000
_CRF = 20
_DISTANCE = 1.6
"""Metres from the camera to a person."""
_BATCH = 2
"""Views drawn at once: bounds memory, and lets other work on the machine through."""

Keys = tuple[tuple[float, float], ...]
"""Key values of one angle: seconds, degrees (or weight of an expression)."""
Colour = tuple[float, float, float]

_CALM: dict[str, float] = {
    "arm_side": 9, "arm_twist": 9, "elbow": 78, "arm_forward": 4, "pronation": 30, "wrist": 0, "wrist_side": 0,
    "knuckle1": 2, "knuckle2": 10, "knuckle3": 11, "knuckle4": 12, "knuckle5": 13,
    "finger1": 6, "finger2": 12, "finger3": 13, "finger4": 14, "finger5": 15, "spread": 9,
}  # fmt: skip
"""Degrees of both arms when nothing happens: forearms are bent, and the hands wait below the picture."""

_RAISED: dict[str, float] = {
    "arm_side": -4, "arm_twist": 4, "elbow": 137, "arm_forward": 45, "pronation": 64, "wrist": -2, "wrist_side": -7,
    "knuckle1": 2, "knuckle2": -3, "knuckle3": -3, "knuckle4": -2, "knuckle5": -2,
    "finger1": 4, "finger2": 2, "finger3": 2, "finger4": 3, "finger5": 3, "spread": 9,
}  # fmt: skip
"""An open hand beside the face, its palm to the camera."""

_THREE: dict[str, float] = {"knuckle1": 34, "finger1": 52, "knuckle5": 74, "finger5": 92}
"""What three fingers need: the thumb lies over the little finger."""

_RIGHT, _LEFT = (0.06, 0.48, 1.50, 1.92), (1.84, 2.24, 2.86, 3.25)
"""Seconds when an arm leaves its rest, is up, goes down, is at rest."""
_COUNT = (0.56, 0.88)
"""Seconds in which the right hand's open fingers become three."""

_BEATS = (0.42, 0.66, 0.98, 1.22, 1.54, 1.70, 2.02, 2.26, 2.50, 2.78)
"""Seconds of the syllables: a note of the sound, and an opening of the mouth."""
_LOUD = (0.7, 0.9, 0.6, 1.0, 0.55, 0.8, 0.95, 0.6, 0.85, 0.7)
_VOWELS = "aoeaieaoae"
_MOUTHS: dict[str, dict[str, float]] = {
    "a": {"jaw": 0.75, "lower_down": 0.25},
    "e": {"jaw": 0.55, "stretch": 0.5, "upper_up": 0.2},
    "i": {"jaw": 0.35, "stretch": 0.8},
    "o": {"jaw": 0.65, "funnel": 0.7},
}

_TRUNK: dict[str, Keys] = {
    "lean": ((0.2, 0), (0.8, 1.5), (1.6, 1.5), (2.4, -1.5), (3.2, 0)),
    "bend": ((0.0, 2), (1.1, 0), (2.1, 3), (3.2, 2)),
    "twist": ((0.2, 0), (0.8, -3), (1.6, -2), (2.4, 3), (3.2, 0)),
    "nod": ((0.0, 0), (0.5, 4), (0.8, -1), (1.3, 3), (1.7, 0), (2.1, 4), (2.6, 1), (3.2, 0)),
    "tilt": ((0.2, 0), (0.9, 5), (1.6, 3), (2.3, -5), (3.2, 0)),
    "turn": ((0.1, 0), (0.6, -5), (1.2, 2), (1.8, 0), (2.3, 13), (2.7, 11), (3.15, 0)),
    "gaze_x": ((2.1, 0), (2.2, 20), (2.6, 20), (2.7, 0)),
    "clavicle_up_R": ((0.06, 0), (0.55, 5), (1.45, 5), (1.95, 0)),
    "clavicle_up_L": ((1.8, 0), (2.3, 5), (2.8, 5), (3.2, 0)),
}
_BLINKS = (0.26, 1.12, 1.98, 2.92)
"""Seconds when lids begin to close."""
_FACE: dict[str, Keys] = {
    "smile": ((0.2, 0.5), (0.9, 0.75), (1.6, 0.5), (2.4, 0.4), (2.9, 0.7), (3.25, 0.5)),
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


def _arms() -> dict[str, Keys]:
    """Each arm rises, holds, and sinks; meanwhile the right hand closes thumb and little finger."""
    keys: dict[str, Keys] = {}
    for side, (leaves, up, down, back) in (("R", _RIGHT), ("L", _LEFT)):
        for name, calm in _CALM.items():
            high = shown = _RAISED[name]
            held: Keys = ()
            if side == "R":
                shown = _THREE.get(name, high)
                held = ((_COUNT[0], high), (_COUNT[1], shown))
            keys[f"{name}_{side}"] = ((leaves, calm), (up, high), *held, (down, shown), (back, calm))
    return keys


def perform(times: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """The performance at `times` [F] in seconds: poses [F, len(DOF)] in radians, expressions [F, E]."""
    pose, face = still(len(times))
    for name, keys in (_arms() | _TRUNK).items():
        pose[:, AT[name]] = torch.from_numpy(np.radians(_curve(keys, times))).float()
    names = list(EXPRESSIONS)
    for name, keys in _FACE.items():
        face[:, names.index(name)] = torch.from_numpy(_curve(keys, times)).float()
    shut = np.zeros(len(times))
    for start in _BLINKS:
        shut += _curve(((start, 0), (start + 0.08, 1), (start + 0.15, 1), (start + 0.27, 0)), times)
    for name in ("blink_left", "blink_right"):
        face[:, names.index(name)] = torch.from_numpy(shut).float()
    for beat, loud, vowel in zip(_BEATS, _LOUD, _VOWELS, strict=True):
        opening = torch.from_numpy(loud * np.exp(-(((times - beat - 0.05) / 0.085) ** 2))).float()
        for name, weight in _MOUTHS[vowel].items():
            column = names.index(name)
            face[:, column] = torch.maximum(face[:, column], weight * opening)
    return pose, face


def still(count: int) -> tuple[Tensor, Tensor]:
    """The calm stand of the first frame, `count` times: poses and expressions."""
    pose, face = torch.zeros(count, len(DOF)), torch.zeros(count, len(EXPRESSIONS))
    for name, degrees in _CALM.items():
        for side in "LR":
            pose[:, AT[f"{name}_{side}"]] = math.radians(degrees)
    pose[:, AT["bend"]] = math.radians(2)
    face[:, list(EXPRESSIONS).index("smile")] = 0.5
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
    "skirt": 0, "long_hair": 0, "bald": 0, "hem": 0.02, "hairline": 0.0, "neck_width": 0.06, "top_loose": 0.013,
    "blush": 0.05, "brow_width": 0.0036, "glossy": 0.05,
}  # fmt: skip
"""What all of them share."""
PERFORMER = Role(
    body=141, seed=1, light=_SOFT, studio=(0.62, 0.68, 0.72),
    appearance={
        "skin": (0.93, 0.73, 0.60), "hair": (0.24, 0.14, 0.08), "brow": (0.16, 0.10, 0.07), "beard": 0.0,
        "iris": (0.2, 0.3, 0.4), "lips": (0.78, 0.46, 0.42), "cap": 0.02, "top_a": (0.16, 0.26, 0.46), "top_kind": 0,
        "sleeve": 0.55, "neck_depth": 0.03,
        **_PLAIN,
    },
)  # fmt: skip
CHARACTERS = (
    Role(
        body=155, seed=125, light=((-0.2, -0.9, 0.6), (0.44, 0.45, 0.48), (0.56, 0.57, 0.60)),
        appearance={
            "skin": (0.50, 0.33, 0.23), "hair": (0.07, 0.05, 0.04), "brow": (0.04, 0.03, 0.02), "beard": 0.0,
            "iris": (0.20, 0.11, 0.05), "lips": (0.55, 0.26, 0.24), "cap": 0.05, "top_a": (0.95, 0.74, 0.16),
            "top_kind": 0, "sleeve": 0.45, "neck_depth": 0.03,
            **_PLAIN,
        },
    ),
    Role(
        body=148, seed=150, light=((-0.5, -0.8, 0.5), (0.42, 0.41, 0.42), (0.56, 0.56, 0.57)),
        appearance={
            "skin": (0.97, 0.80, 0.69), "hair": (0.55, 0.22, 0.09), "brow": (0.33, 0.14, 0.06), "beard": 0.0,
            "iris": (0.22, 0.36, 0.26), "lips": (0.80, 0.42, 0.40), "cap": 0.03, "top_a": (0.93, 0.89, 0.80),
            "top_b": (0.78, 0.20, 0.20), "top_kind": 1, "top_period": 0.075, "top_angle": 0.0, "top_duty": 0.1,
            "sleeve": 1.5, "neck_depth": 0.03,
            **_PLAIN,
        },
    ),
    Role(
        body=157, seed=123, light=((0.5, -0.8, 0.4), (0.48, 0.45, 0.40), (0.52, 0.52, 0.54)),
        appearance={
            "skin": (0.86, 0.64, 0.50), "hair": (0.10, 0.07, 0.05), "brow": (0.06, 0.04, 0.03), "beard": 0.85,
            "iris": (0.22, 0.13, 0.06), "lips": (0.68, 0.40, 0.34), "cap": 0.022, "top_a": (0.10, 0.50, 0.47),
            "top_kind": 0, "sleeve": 0.6, "neck_depth": 0.02,
            **_PLAIN,
        },
    ),
    Role(
        body=130, seed=162, light=((0.7, -0.6, 0.3), (0.50, 0.46, 0.42), (0.50, 0.51, 0.54)), size=(288, 504),
        appearance={
            "skin": (0.94, 0.75, 0.63), "hair": (0.74, 0.57, 0.32), "brow": (0.45, 0.32, 0.17), "beard": 0.0,
            "iris": (0.22, 0.38, 0.56), "lips": (0.76, 0.46, 0.42), "cap": 0.034, "top_a": (0.52, 0.20, 0.45),
            "top_kind": 0, "sleeve": 1.93, "neck_depth": 0.04,
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


def _camera(role: Role, points: Tensor) -> Camera:
    """A frontal view from the chest to above the head. An upright picture shows less to the sides and more above and below.

    Args:
        points: [133, 3] metres, of the calm person.
    """
    width, height = role.size
    face = float(points[FACE, 2].max() - points[FACE, 2].min())
    upright = math.sqrt(height / width)
    metres = 4 * face / math.sqrt(upright) / width  # of one pixel
    middle = float(points[0, 2]) + 1.6 * face * upright - metres * height / 2
    one = torch.ones(1)
    return look_at(
        torch.tensor([[0.0, -0.03, middle]]), _DISTANCE * one, 0.0 * one, 0.0 * one, 0.0 * one,
        _DISTANCE / metres * one, torch.tensor([[width / 2, height / 2]]),
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
    camera = _camera(role, skin(rig, body, quiet, mask, push).keypoints[0])
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
