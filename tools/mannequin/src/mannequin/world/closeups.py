"""People seen from near: head and shoulders to waist-up, hands before the camera and at the face, faces that speak.

Clips of `WorldSettings.near` get these motions in place of the common ones. Angles in the tables are degrees, of a left arm;
they were searched so that on an average body a palm or finger tip is where the name says.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mannequin.world.body import AT, DOF
from mannequin.world.camera import Camera, look_at
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.motion import ARM_DOF, HANDS, between_keys, wobble

SMALLEST, LARGEST = 50.0, 120.0
"""Height of a face box in pixels of a 256x256 picture; other pictures in proportion to the root of their area."""
_FACE = 0.16
"""Height of a face box, metres."""
_KEYS = 12
_OPEN, _RELAXED, _POINT, _TWO, _PINCH = 1, 0, 4, 5, 7  # rows of HANDS
# weight, tremble in degrees, angles of ARM_DOF, hand that goes with it
_GESTURES: tuple[tuple[float, float, tuple[float, ...], int], ...] = (
    (2.0, 8, (4, 14, 5, 14, 15, 5, 0), _RELAXED),  # hanging
    (1.5, 6, (53, 7, -17, 116, 49, -21, 13), _OPEN),  # palm beside the face
    (0.8, 6, (53, 7, -17, 116, 49, -21, 13), _TWO),  # two fingers beside the face
    (1.2, 6, (74, -11, -2, 53, 77, -55, -9), _OPEN),  # palm to the camera
    (1.0, 4, (79, -13, 1, 33, 16, -17, -18), _POINT),  # pointing at the camera
    (0.7, 4, (30, 56, 50, 121, -54, 34, -16), _POINT),  # pointing at oneself
    (0.9, 3, (34, -15, 43, 141, 6, -18, -4), _OPEN),  # at the cheek
    (0.9, 3, (40, -3, 14, 131, 80, -55, 8), _PINCH),  # at the chin
    (0.6, 3, (67, 33, 16, 136, -60, -25, -16), _OPEN),  # over the mouth
    (0.6, 3, (69, -16, 22, 126, -33, -20, -18), _OPEN),  # at the forehead
    (0.8, 3, (66, 28, 7, 142, -51, -33, -10), _POINT),  # at the temple
    (1.3, 8, (35, -1, -14, 93, -42, -46, -19), _OPEN),  # open palm
    (1.0, 5, (31, -2, 36, 85, 8, -55, 20), _OPEN),  # hands together
    (1.0, 8, (28, 7, 26, 92, -25, 35, -20), _RELAXED),  # across the chest
    (1.2, 6, (50, 37, -36, 119, 39, -12, -17), _OPEN),  # waving
    (1.0, 8, (32, 16, 42, 98, 20, 0, 0), _PINCH),  # before the chest
)
_VISEMES: tuple[tuple[float, dict[str, float]], ...] = (
    (1.6, {"jaw": 0.85, "lower_down": 0.2}),  # a
    (1.2, {"jaw": 0.45, "stretch": 0.6, "upper_up": 0.2}),  # e
    (1.1, {"jaw": 0.2, "stretch": 0.9, "smile": 0.2}),  # i
    (1.1, {"jaw": 0.6, "funnel": 0.75}),  # o
    (1.0, {"jaw": 0.25, "pucker": 0.9}),  # u
    (1.6, {"pucker": 0.12}),  # m, b, p
    (0.7, {"jaw": 0.08, "upper_up": 0.35}),  # f, v
    (1.0, {"jaw": 0.35, "upper_up": 0.3, "lower_down": 0.35}),  # l, th
    (1.2, {}),  # a rest
)


def near_cameras(dice: Dice, nose: Tensor, height: int, width: int, wider: Tensor | float = 1.0) -> Camera:
    """Cameras [n] that show a face of SMALLEST to LARGEST pixels.

    Args:
        nose: [n, 3] where it is on average, metres. wider: how many times as much is shown.
    """
    pixels = torch.exp(dice.uniform(math.log(SMALLEST), math.log(LARGEST))) * math.sqrt(width * height) / 256
    tall = _FACE * height / pixels.clamp(max=0.5 * width) * wider
    distance = dice.uniform(1.2, 2.6)
    above = (0.17 / tall + dice.uniform(-0.02, 0.1)).clamp(0.2, 0.52)  # share of the picture over the nose
    x = nose[:, 0] + dice.uniform(-0.12, 0.12) * tall * width / height
    target = torch.stack([x, nose[:, 1], nose[:, 2] - (0.5 - above) * tall], dim=-1)
    centre = torch.tensor([width / 2, height / 2], device=dice.device).expand(dice.count, 2)
    focal = distance / tall * height
    return look_at(target, distance, dice.normal(0.07), dice.normal(0.06), dice.normal(0.02), focal, centre)


def perform_near(dice: Dice, times: Tensor, pose: Tensor, near: Tensor, calm: bool = False) -> Tensor:
    """Poses [n, F, len(DOF)], in which the clips `near` [n] stand before the camera and move arms and hands there."""
    own = pose.clone()
    own[:, :, AT["yaw"]] = 0.6 * torch.tanh(pose[:, :, AT["yaw"]] / 0.6) * (0.5 if calm else 1.0)
    for name, share in {"x": 0.3, "y": 0.0, "z": 0.0, "pitch": 0.3, "lean": 0.5}.items():
        own[:, :, AT[name]] *= share
    own[:, :, AT["bend"]] = own[:, :, AT["bend"]].clamp(-0.08, 0.2)
    for name in DOF:
        if name.startswith(("leg", "knee", "ankle")):
            own[:, :, AT[name]] *= 0.1
    gaze = _saccades(dice, times)
    own[:, :, AT["gaze_x"]], own[:, :, AT["gaze_y"]] = gaze[..., 0] * 0.4, gaze[..., 1] * 0.2
    if not calm:
        _gestures(dice, times, own)
    return torch.where(near.view(-1, 1, 1), own, pose)


def _gestures(dice: Dice, times: Tensor, pose: Tensor) -> None:
    """Arms and hands go from gesture to gesture."""
    table = torch.tensor([row[2] for row in _GESTURES], device=dice.device)
    tremble = torch.tensor([row[1] for row in _GESTURES], dtype=torch.float32, device=dice.device)
    fitting = torch.tensor([row[3] for row in _GESTURES], device=dice.device)
    shapes = torch.deg2rad(torch.tensor([row[1] for row in HANDS], device=dice.device))
    choice = dice.pick([row[0] for row in _GESTURES], _KEYS, 2)
    for key in range(1, _KEYS):  # often stay
        choice[:, key] = torch.where(dice.chance(0.35, 2), choice[:, key - 1], choice[:, key])
    manner = dice.pick([3, 1.5, 2, 1]).view(-1, 1)  # one hand, both alike, each its own, neither
    choice[:, :, 1] = torch.where(manner == 0, 0, torch.where(manner == 1, choice[:, :, 0], choice[:, :, 1]))
    choice = torch.where((manner == 3).unsqueeze(-1), 0, choice)
    choice = torch.where(dice.chance(0.5).view(-1, 1, 1), choice.flip(2), choice)
    arms = torch.deg2rad(table[choice] + dice.normal(1.0, _KEYS, 2, len(ARM_DOF)) * tremble[choice].unsqueeze(-1))
    usual = dice.pick([row[0] for row in HANDS], _KEYS, 2)
    shape = torch.where(dice.chance(0.65, _KEYS, 2), fitting[choice], usual)
    hands = shapes[shape] + dice.normal(0.07, _KEYS, 2, shapes.shape[1])
    interval = torch.exp(dice.uniform(math.log(0.35), math.log(1.0)))
    clock = (times / interval.unsqueeze(1) + dice.uniform(0, 1, 1)) * interval.unsqueeze(1)
    moved = between_keys(torch.cat([arms, hands], dim=-1).flatten(2), clock, interval).unflatten(2, (2, -1))
    slow = wobble(dice, times, 2 * len(ARM_DOF), 0.2, 0.9).unflatten(2, (2, -1)) * math.radians(2)
    beat = torch.sin(2 * math.pi * dice.uniform(1.2, 3.0, 1) * times + dice.uniform(0, 6.3, 1))
    wave = beat * (dice.chance(0.3, 1) * dice.uniform(0.1, 0.4, 1))
    rhythm = 2 * math.pi * dice.uniform(0.8, 2.5, 1, 1) * times.unsqueeze(-1)
    order = torch.arange(5, device=dice.device) * dice.uniform(-1.2, 1.2, 1, 1)
    play = torch.sin(rhythm + order) * (dice.chance(0.3, 1, 1) * dice.uniform(0.1, 0.45, 1, 1))
    count = len(ARM_DOF)
    for i, side in enumerate("LR"):
        raised = (moved[:, :, i, 3] / 1.5).clamp(0, 1)
        for j, name in enumerate(ARM_DOF):
            pose[:, :, AT[f"{name}_{side}"]] = moved[:, :, i, j] + slow[:, :, i, j]
        pose[:, :, AT[f"arm_twist_{side}"]] += wave * raised
        pose[:, :, AT[f"wrist_side_{side}"]] += 0.5 * wave * raised
        first, second = AT[f"knuckle1_{side}"], AT[f"finger1_{side}"]
        pose[:, :, first : first + 5] = (moved[:, :, i, count : count + 5] + 0.6 * play).clamp(-0.25, 1.5)
        pose[:, :, second : second + 5] = (moved[:, :, i, count + 5 : count + 10] + play).clamp(-0.12, 1.7)
        pose[:, :, AT[f"spread_{side}"]] = moved[:, :, i, count + 10]


def _saccades(dice: Dice, times: Tensor) -> Tensor:
    """Where eyes look, about -1..1 [n, F, 2]: they jump, rest, and come back to the camera."""
    keys = dice.normal(0.6, _KEYS, 2).clamp(-1, 1)
    keys = torch.where(dice.chance(0.4, _KEYS, 1), keys * 0.1, keys)
    interval = dice.uniform(0.35, 1.3)
    at = times / interval.unsqueeze(1) + dice.uniform(0, 1, 1)
    part = ((at - at.floor()) * interval.unsqueeze(1) / 0.06).clamp(0, 1).unsqueeze(-1)
    index = at.long().unsqueeze(-1).expand(-1, -1, 2)
    a, b = keys.gather(1, index % _KEYS), keys.gather(1, (index + 1) % _KEYS)
    return a + (b - a) * part


def speak(dice: Dice, times: Tensor, expression: Tensor, chosen: Tensor, calm: bool = False) -> Tensor:
    """Expressions [n, F, E] in which the faces of the clips `chosen` [n] speak in visemes, blink often and move their brows."""
    names = list(EXPRESSIONS)
    keys = 48
    table = torch.zeros(len(_VISEMES), len(names), device=dice.device)
    for row, (_, shape) in enumerate(_VISEMES):
        for name, weight in shape.items():
            table[row, names.index(name)] = weight
    size = 0.0 if calm else 1.0
    manner = dice.pick([7, 1.2, 1.2]).view(-1, 1, 1)  # speaks, is silent, opens slowly and wide
    loud = dice.uniform(0.45, 1.15, keys, 1) * dice.uniform(0.6, 1.0, 1, 1) * size
    said = table[dice.pick([weight for weight, _ in _VISEMES], keys)] * loud
    interval = dice.uniform(0.1, 0.24)
    mouth = _around(said, times / interval.unsqueeze(1) + dice.uniform(0, 48, 1))
    phrase = (0.75 + 0.7 * wobble(dice, times, 1, 0.2, 0.7)).clamp(0, 1)
    wide = (0.5 + 0.6 * wobble(dice, times, 1, 0.2, 0.9)).clamp(0, 1) * dice.uniform(0.5, 1.0, 1, 1) * size
    slow = torch.zeros_like(mouth)
    slow[:, :, names.index("jaw")] = wide[..., 0]
    mouth = torch.where(manner == 0, mouth * phrase, torch.where(manner == 2, slow, torch.zeros_like(mouth)))
    own = expression.clone()
    for name in ("jaw", "pucker", "funnel", "stretch", "lower_down", "upper_up"):
        own[:, :, names.index(name)] = mouth[:, :, names.index(name)].clamp(0, 1)
    smile = names.index("smile")
    own[:, :, smile] = (own[:, :, smile] * 0.7 + mouth[:, :, smile]).clamp(0, 1)
    brows = (_around(dice.uniform(-0.9, 1.0, keys, 4), times / dice.uniform(0.4, 1.2, 1))).clamp(0, 1) * size
    for i, name in enumerate(("brow_inner", "brow_outer", "brow_down", "squint")):
        share = dice.chance(0.5, 1) * dice.uniform(0.3, 1.0, 1)
        own[:, :, names.index(name)] = (own[:, :, names.index(name)] * 0.5 + brows[:, :, i] * share).clamp(0, 1)
    shut = _blinks(dice, times) if not calm else torch.zeros_like(times)
    wink = dice.pick([20, 1, 1]).view(-1, 1)
    own[:, :, names.index("blink_left")] = torch.where(wink == 2, torch.zeros_like(shut), shut)
    own[:, :, names.index("blink_right")] = torch.where(wink == 1, torch.zeros_like(shut), shut)
    return torch.where(chosen.view(-1, 1, 1), own, expression)


def _around(keys: Tensor, at: Tensor) -> Tensor:
    """Smooth moves through keys [n, K, D] that come again after the last; at [n, F] in keys -> [n, F, D]."""
    part = (at - at.floor()).unsqueeze(-1)
    ease = part * part * (3 - 2 * part)
    index = at.long().unsqueeze(-1).expand(-1, -1, keys.shape[2])
    a, b = keys.gather(1, index % keys.shape[1]), keys.gather(1, (index + 1) % keys.shape[1])
    return a + (b - a) * ease


def _blinks(dice: Dice, times: Tensor) -> Tensor:
    """How far lids are shut, 0..1 [n, F]: blinks every 0.8 to 3 seconds, some held, and lids that droop a while."""
    period = torch.exp(dice.uniform(math.log(0.8), math.log(3.0), 1))
    at = times / period + dice.uniform(0, 1, 1) + 0.25 * wobble(dice, times, 1, 0.1, 0.3)[..., 0] * 0.5
    since = (at - at.floor()) * period
    held = torch.where(dice.chance(0.3, 1), dice.uniform(0.1, 0.7, 1), dice.uniform(0.02, 0.08, 1))
    shut = torch.minimum(since / 0.07, (held + 0.19 - since) / 0.12).clamp(0, 1)
    droop = (wobble(dice, times, 1, 0.15, 0.5)[..., 0] * 0.5 - 0.25).clamp(0, 0.6) * dice.chance(0.4, 1)
    return torch.maximum(shut, droop)


def eye_opening(keypoints: Tensor, rest: Tensor) -> Tensor:
    """How open the eyes are, mean of both: 0 shut, 1 as at rest, more when opened wide.

    Args:
        keypoints, rest: [..., 133, 3] metres of a posed body and of the same body without expression.
    """

    def ratio(points: Tensor) -> Tensor:
        both = points[..., 23 + 36 : 23 + 48, :].unflatten(-2, (2, 6))
        upright = (both[..., 1, :] - both[..., 5, :]).norm(dim=-1) + (both[..., 2, :] - both[..., 4, :]).norm(dim=-1)
        return upright / (2 * (both[..., 0, :] - both[..., 3, :]).norm(dim=-1))

    return ((ratio(keypoints) / ratio(rest) - _SHUT) / (1 - _SHUT)).clamp_min(0).mean(-1)


_SHUT = 0.255
"""Of the distance between the points of a lid at rest, what is left in shut eyes."""
