"""Scenes of the mannequin world with a known camera and a known light, for shot records.

A performer is drawn once in neutral light, and stands as a picture in front of a plane that is larger than the frame. The
camera turns, moves, changes its focal length, or shakes. The light's colour is multiplied in as light, not as code values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.dice import Dice
from mannequin.world.render import Picture, Subjects
from mannequin.world.scene import sample_backgrounds
from mannequin.world.world import World, WorldSettings

SIZE = 640, 360
RATE = 24
SECONDS = 2.5
FRAMES = round(RATE * SECONDS)
STEP = 3
"""Every third frame is drawn: those that are looked at."""
FIRST_SEED = 5 * 10**12
_FOCAL = 1.2 * SIZE[0]
_WIDE = 2.4
"""The plane behind is so many times as wide and high as the picture."""
NEUTRAL = [0.3, -0.85, 0.43, *[0.55] * 3, *[0.45] * 3]
TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)
"""CIE XYZ to light RGB of BT.709."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Performer:
    """Frames of somebody who moves: colour times cover and cover, float32 [n, h, w, 4]; points [n, 133, 3]."""

    pictures: Floats
    points: npt.NDArray[np.float64]


class _Neutral(World):
    def __init__(self, people: Any) -> None:
        super().__init__(people, WorldSettings(replacement=0.0, disturb=False, supersample=1, face_size=16))
        self.first: Picture | None = None

    def _draw(self, posed: Posed, camera: Camera, subjects: Subjects, height: int, width: int) -> Picture:
        light = torch.tensor([NEUTRAL]).expand(len(subjects.light), -1)
        picture = super()._draw(posed, camera, Subjects(subjects.owner, subjects.appearance, light), height, width)
        self.first = self.first or picture
        return picture


def performer(people: Any, number: int) -> Performer:
    """Somebody of the held-out bodies, in every `STEP`th frame of a clip."""
    world = _Neutral(people)
    batch = world.sample_batch(1, FRAMES // STEP, *SIZE, FIRST_SEED + number, held_out=True)
    assert world.first is not None
    pictures = torch.cat([world.first.colour, world.first.cover[..., None]], -1)
    return Performer(pictures.numpy(), batch.keypoints[0].double().numpy())


def backdrop(number: int, white: float, detail: bool) -> Floats:
    """The plane behind, RGB in 0..1 as code values under neutral light. `white`: how often each of two white things is there;
    `detail`: pictures on the wall, so that there is something to follow."""
    dice = Dice(1, torch.Generator().manual_seed(FIRST_SEED + 10**6 + number))
    light = torch.tensor([NEUTRAL])
    width, height = (round(side * _WIDE) for side in SIZE)
    scene = sample_backgrounds(dice, light, height, width, white)[0].numpy()
    rng = np.random.default_rng(number)
    for _ in range(14 if detail else 0):
        w, h = rng.integers(40, 200, 2)
        x, y = rng.integers(0, width - w), rng.integers(0, height - h)
        colours = Dice(8, torch.Generator().manual_seed(int(rng.integers(2**31)))).colour().numpy()
        cells = rng.integers(0, 8, (rng.integers(2, 7), rng.integers(2, 7)))
        scene[y : y + h, x : x + w] = cv2.resize(colours[cells], (int(w), int(h)), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 0.8), np.float32)


@dataclass(frozen=True)
class Move:
    """A camera: `name` as the record should call it; `kind` of movement; amount a second (widths, logarithm of the scale,
    radians); `shake`: amplitude of a hand in widths; `follows`: the performer keeps their place in the picture."""

    name: str
    kind: str
    amount: float = 0.0
    shake: float = 0.0
    follows: bool = False


def places(move: Move, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """For each drawn frame two homographies: of the plane (from its own pixels) and of the performer's picture."""
    rng = np.random.default_rng(seed)
    waves = [(rng.uniform(0.7, 4.5), rng.uniform(0, 2 * math.pi), rng.normal(0, 1, 2)) for _ in range(7)]
    width, height = SIZE
    lens = np.array([[_FOCAL, 0, width / 2], [0, _FOCAL, height / 2], [0, 0, 1]])
    near, far = 4.0, 9.0
    out = np.array([[1, 0, -(_WIDE - 1) * width / 2], [0, 1, -(_WIDE - 1) * height / 2], [0, 0, 1]])
    for i in range(FRAMES // STEP):
        t = i * STEP / RATE - SECONDS / 2
        go = move.amount * t
        zoom, turn, shift, forward = 1.0, np.eye(3), np.zeros(2), 0.0
        if move.kind == "pan":
            turn = _turned(go * width / _FOCAL, 0.0, 0.0)
        elif move.kind == "tilt":
            turn = _turned(0.0, go * width / _FOCAL, 0.0)
        elif move.kind == "roll":
            turn = _turned(0.0, 0.0, go)
        elif move.kind == "zoom":
            zoom = math.exp(go)
        elif move.kind == "dolly":
            forward = far * (1 - math.exp(-go))
        elif move.kind == "truck":
            shift = np.array([go * width / _FOCAL * far, 0.0])
        hand = sum(np.sin(2 * math.pi * f * t + p) * a / (1 + f) for f, p, a in waves) * move.shake * width / _FOCAL
        turn = _turned(float(hand[0]), float(hand[1]), 0.0) @ turn if move.shake else turn
        look = lens.copy()
        look[0, 0] = look[1, 1] = _FOCAL * zoom
        placed = []
        for depth in (far, near):
            left = depth - forward * (1.0 if depth == far else 0.4)
            plane = np.array([[1, 0, -shift[0] / depth], [0, 1, -shift[1] / depth], [0, 0, left / depth]])
            placed.append(look @ turn @ plane @ np.linalg.inv(lens))
        person = np.eye(3) if move.follows else placed[1]
        yield np.float32(placed[0] @ out), np.float32(person)


def _turned(right: float, down: float, clockwise: float) -> npt.NDArray[np.float64]:
    """The rotation of the world in the eyes of a camera that turns to the right, down and clockwise by these angles."""
    a, b, c = (np.array([[math.cos(v), -math.sin(v)], [math.sin(v), math.cos(v)]]) for v in (-right, -down, -clockwise))
    yaw, pitch, roll = np.eye(3), np.eye(3), np.eye(3)
    yaw[np.ix_([2, 0], [2, 0])], pitch[1:, 1:], roll[:2, :2] = a, np.linalg.inv(b), c
    return roll @ pitch @ yaw


def frames(
    who: Performer | None, behind: Floats, move: Move, seed: int, white: npt.NDArray[np.float64] | None = None,
    level: float = 1.0, drift: float = 0.0,
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float64] | None]]:  # fmt: skip
    """(frame [h, w, 3], where the performer is [h, w], their points) of every `STEP`th frame.

    Args:
        white: light RGB of a white surface; None is neutral. level: exposure. drift: stops that the light gains in a second.
    """
    for i, (plane, person) in enumerate(places(move, seed)):
        scene = cv2.warpPerspective(behind, plane, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        cover, points = np.zeros(SIZE[::-1], np.float32), None
        if who is not None:
            drawn = cv2.warpPerspective(who.pictures[i], person, SIZE, flags=cv2.INTER_LINEAR)
            cover = drawn[..., 3]
            scene = drawn[..., :3] + scene * (1 - cover[..., None])
            points = who.points[i].copy()
            moved = np.concatenate([points[:, :2], np.ones((len(points), 1))], 1) @ person.T.astype(np.float64)
            points[:, :2] = moved[:, :2] / moved[:, 2:]
        if white is not None or drift or level != 1.0:
            bright = level * 2 ** (drift * (i * STEP / RATE - SECONDS / 2))
            lit = coded_light(scene) * np.asarray(bright * (1.0 if white is None else white), np.float32)
            scene = light_coded(lit)
        noise = np.random.default_rng(seed + i).normal(0, 0.006, scene.shape)
        frame = ((scene + noise).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        yield frame, (cover > 0.02).astype(np.uint8), points


def coded_light(coded: Floats) -> Floats:
    """BT.709 code values as light."""
    return np.where(coded < 0.081, coded / 4.5, ((np.maximum(coded, 0.081) + 0.099) / 1.099) ** (1 / 0.45)).astype(
        np.float32
    )


def light_coded(light: Floats) -> Floats:
    """The other way."""
    return np.where(light < 0.018, light * 4.5, 1.099 * np.maximum(light, 0.018) ** 0.45 - 0.099).astype(np.float32)
