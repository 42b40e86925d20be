"""Clips with true joints for `pose.py`: one rendered mannequin that stands, turns over, is far away, moves fast, is cut, ..."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mannequin.world.appearance import push_out, sample_appearances
from mannequin.world.assets import Mannequins
from mannequin.world.body import AT, Posed, Rig, skin
from mannequin.world.camera import Camera, look_at
from mannequin.world.dice import Dice
from mannequin.world.motion import sample_motion
from mannequin.world.render import Picture, Quality, Subjects, render
from mannequin.world.scene import sample_backgrounds, sample_lights
from wanimate.media.video import LosslessWriter

FIRST_SEED = 5 * 10**12
_FOCAL = 1.8
_FACING = 0.3
"""A head that looks towards the camera by this much (cosine) shows its face; one that looks away by this much hides it."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """One clip. Angles are degrees; `tall` is the standing person's height in picture heights, one value a shot.

    roll: rotation in the picture in the first frame, and how much more each frame adds. yaw: the same about the body's
    own axis. swing: how far the person swings to either side, in picture widths. other: somebody smaller walks past.
    """

    kind: str
    size: tuple[int, int] = (480, 480)
    frames: int = 16
    fps: int = 25
    tall: tuple[float, ...] = (0.85,)
    roll: tuple[float, float] = (0.0, 0.0)
    yaw: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    other: bool = False


@dataclass(frozen=True)
class Truth:
    """What is true of a clip.

    points [F, 133, 2] in pixels; inside [F, 133]; shoulders [F] their width as seen from the front, pixels; facing and
    hidden [F] whether the face is turned to the camera or away from it; cuts: frames that begin a shot.
    """

    points: Array
    inside: npt.NDArray[np.bool_]
    shoulders: Array
    facing: npt.NDArray[np.bool_]
    hidden: npt.NDArray[np.bool_]
    cuts: tuple[int, ...]


def scenes() -> list[Scene]:
    """The set."""
    out = [
        Scene("upright", tall=(t,), yaw=(y, 0))
        for t, y in zip((0.8, 0.9, 1.3, 1.6, 2.2, 0.7), (0, 25, -20, 10, -5, 40), strict=True)
    ]
    for start, step in ((0, 16.4), (90, -16.4), (200, 16.4), (0, -24), (45, 24), (300, 16.4)):
        out.append(Scene("turning", frames=22, fps=10, tall=(0.75,), roll=(start, step)))
    out += [Scene("lying", tall=(0.75,), roll=(r, 0.5)) for r in (90, -90, 80, -105)]
    out += [Scene("head down", tall=(t,), roll=(r, 0.5)) for r, t in ((180, 0.8), (170, 0.7), (-165, 0.75), (180, 0.6))]
    out += [Scene("oblique", tall=(0.75,), roll=(r, 0)) for r in (40, -50, 130, -140)]
    out += [
        Scene("small", (1280, 720), 12, tall=(t,), yaw=(y, 0))
        for t, y in ((0.28, 0), (0.22, 20), (0.17, 0), (0.17, -30), (0.2, 10), (0.25, -10))
    ]
    out += [
        Scene("quick", frames=20, fps=f, tall=(t,), swing=s)
        for f, t, s in ((10, 1.0, 0.2), (12, 1.3, 0.18), (15, 1.6, 0.2), (10, 0.8, 0.25), (12, 2.0, 0.15))
    ]
    out += [Scene("cut", frames=20, tall=t) for t in ((2.2, 0.7), (0.7, 2.2), (1.2, 0.6), (2.5, 1.2, 0.6), (0.8, 0.8))]
    out += [Scene("crossing", (640, 400), 24, 15, tall=(0.85,), other=True) for _ in range(4)]
    out += [Scene("back", tall=(0.85,), yaw=(y, 0)) for y in (180, 165, 200)]
    out += [Scene("back", frames=24, fps=12, tall=(t,), yaw=(0, 15)) for t in (0.85, 1.3)]
    out += [Scene("turning", frames=22, fps=10, tall=(0.75,), roll=(r, s)) for r, s in ((0, 30), (200, -36))]
    out += [Scene("profile", tall=(0.85,), yaw=(y, 0)) for y in (90, -80)]
    return out


def render_scene(people: Mannequins, scene: Scene, number: int) -> tuple[npt.NDArray[np.uint8], Truth]:
    """The frames, uint8 RGB [F, H, W, 3], and the truth."""
    dice = Dice(1, torch.Generator().manual_seed(FIRST_SEED + number))
    (width, height), count = scene.size, scene.frames
    rig, seconds = Rig(people), torch.arange(count) / scene.fps
    bodies = dice.integer(0, len(people.rest), 2)[0]
    light = sample_lights(dice)
    length = math.ceil(count / len(scene.tall))
    behind = torch.cat([sample_backgrounds(dice, light, height, width).expand(length, -1, -1, -1) for _ in scene.tall])[
        :count
    ]
    tall = torch.tensor(scene.tall).repeat_interleave(length)[:count]
    phase = 2 * math.pi * 1.1 * seconds
    across = scene.swing * torch.sin(phase)
    if scene.other:
        across = torch.linspace(-0.3, 0.3, count)
        far = _Cast(dice, rig, scene, bodies[1:], seconds)
        place = torch.stack([-across * width + width / 2, torch.full((count,), height * 0.52)], -1)
        behind = _drawn(far, 0.75 * tall * height, place, scene, light)[0].over(behind)
    middle = (0.06 + tall / 2).clamp_min(0.5)  # heads stay in the picture
    place = torch.stack([across * width + width / 2, middle * height], -1)
    if scene.kind == "small":
        place = place + dice.uniform(-0.3, 0.3, 2) * torch.tensor([width, height]) * torch.tensor([1.0, 0.6])
    cast = _Cast(dice, rig, scene, bodies[:1], seconds)
    picture, posed, camera = _drawn(cast, tall * height, place, scene, light)
    frames = (picture.over(behind) * 255 + 0.5).to(torch.uint8).numpy()
    flat = camera.project(posed.keypoints)[..., :2].numpy().astype(np.float64)
    depth = ((posed.keypoints.mean(1) - camera.eye) * camera.rotation[:, 2]).sum(-1)
    apart = (posed.keypoints[:, 5] - posed.keypoints[:, 6]).norm(dim=-1)
    inside = ((flat > 0) & (flat < (width, height))).all(-1)
    away = (posed.head_forward * camera.rotation[:, 2]).sum(-1).numpy()
    facing = (away < -_FACING) & inside[:, 23:91].all(1)
    shoulders = (apart / depth * camera.focal[:, 0]).numpy().astype(np.float64)
    cuts = tuple(range(length, count, length))
    return frames, Truth(flat, inside, shoulders, facing, away > _FACING, cuts)


class _Cast:
    """One person and what they do."""

    def __init__(self, dice: Dice, rig: Rig, scene: Scene, body: Tensor, seconds: Tensor) -> None:
        self.rig, self.body, self.appearance = rig, body, sample_appearances(dice)
        pose, self.expression = sample_motion(dice, seconds[None])
        self.pose = pose[0]
        self.expression = self.expression[0]
        steps = torch.arange(len(seconds))
        self.pose[:, AT["yaw"]] = torch.deg2rad(scene.yaw[0] + scene.yaw[1] * steps)
        for name in ("x", "y", "z"):
            self.pose[:, AT[name]] = 0
        if scene.swing:
            swing = 2 * math.pi * 1.1 * seconds
            self.pose[:, AT["tilt"]] = 0.4 * torch.sin(swing)
            self.pose[:, AT["turn"]] = 0.5 * torch.cos(1.3 * swing)
            self.pose[:, AT["lean"]] = 0.3 * torch.sin(swing)


def _drawn(cast: _Cast, tall: Tensor, place: Tensor, scene: Scene, light: Tensor) -> tuple[Picture, Posed, Camera]:
    """The person `tall` [F] pixels high around pixels `place` [F, 2]."""
    (width, height), count = scene.size, len(tall)
    people = cast.rig.people
    push = push_out(people, cast.appearance).expand(count, -1)
    posed = skin(cast.rig, cast.body.expand(count), cast.pose, cast.expression, push)
    metres = people.rest[cast.body, :, 2].amax() - people.rest[cast.body, :, 2].amin()
    focal = torch.full((count,), _FOCAL * height)
    target = torch.tensor([0.0, 0.0, 0.5]) * metres
    roll = torch.deg2rad(scene.roll[0] + scene.roll[1] * torch.arange(count))
    zero = torch.zeros(count)
    camera = look_at(target.expand(count, 3), focal * metres / tall, zero, zero, roll, focal, place)
    subjects = Subjects(torch.zeros(count, dtype=torch.int64), cast.appearance, light)
    return render(people, posed, camera, subjects, height, width, Quality(2)), posed, camera


@torch.no_grad()
def clip_of(people: Mannequins, scene: Scene, number: int, folder: Path) -> tuple[Path, Truth]:
    """The clip's file and its truth, rendered unless the folder holds them."""
    path = folder / f"{number:02}-{scene.kind.replace(' ', '-')}.mkv"
    beside = path.with_suffix(".npz")
    if not (path.is_file() and beside.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        frames, truth = render_scene(people, scene, number)
        with LosslessWriter(path, Fraction(scene.fps), *scene.size) as writer:
            for frame in frames:
                writer.write(frame)
        np.savez(beside, **vars(truth))
    with np.load(beside) as stored:
        truth = Truth(
            **{name: stored[name] for name in stored.files if name != "cuts"}, cuts=tuple(stored["cuts"].tolist())
        )
    return path, truth
