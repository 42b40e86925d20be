"""Random motion of whole batches: key poses joined smoothly, rhythms and slow noise on every joint, within its limits.

Times are seconds; a clip of any frame rate samples the same motion. Angles are radians except in the tables (degrees).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mannequin.world.body import AT, DOF
from mannequin.world.clips import RATE
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS

_KEYS = 6
_RECORDED = 0.15
"""Share of performances that use recorded motion, where there is any."""
ARM_DOF = ("arm_forward", "arm_side", "arm_twist", "elbow", "pronation", "wrist", "wrist_side")
# weight while performing, weight at rest, then the angles of ARM_DOF
_ARMS: tuple[tuple[float, float, tuple[float, ...]], ...] = (
    (3.0, 6.0, (4, 14, 5, 14, 15, 5, 0)),  # hanging
    (1.5, 2.0, (12, 17, 12, 38, 25, 0, 0)),  # hanging, bent
    (1.2, 0.3, (85, 8, 0, 12, 10, 0, 0)),  # straight ahead
    (1.5, 0.5, (5, 82, 0, 10, 20, 0, 0)),  # straight to the side
    (1.2, 0.2, (135, 45, 0, 15, 0, 0, 0)),  # overhead
    (0.8, 0.1, (20, 150, 0, 20, 0, 0, 0)),  # overhead by the side
    (2.0, 0.4, (15, 55, -70, 105, 0, -5, 0)),  # waving
    (1.2, 0.2, (5, 85, -85, 88, 0, -5, 0)),  # hands up
    (1.8, 0.5, (48, 8, 30, 132, 10, 5, 0)),  # hand at the face
    (2.5, 0.8, (32, 16, 42, 98, 20, 0, 0)),  # before the chest
    (1.0, 0.4, (42, 4, 66, 98, 30, 5, 0)),  # across the chest
    (0.9, 0.7, (-18, 42, 55, 86, 30, 20, 0)),  # hand on the hip
    (1.0, 0.1, (105, 15, 5, 22, 30, 0, 0)),  # pointing ahead
    (2.5, 0.8, (10, 14, -5, 82, 10, -5, 0)),  # forearm ahead, gesturing
    (0.7, 0.1, (42, 95, -60, 128, 10, 0, 0)),  # touching the head
    (1.0, 0.7, (5, 42, 0, 16, 10, 0, 0)),  # low to the side
    (0.8, 0.1, (38, 16, 18, 124, 0, 0, 0)),  # guard
)
HANDS: tuple[tuple[float, tuple[float, ...]], ...] = (  # weight; knuckles 1-5, fingers 1-5, spread
    (4.0, (12, 18, 20, 22, 25, 15, 22, 25, 28, 30, 2)),  # relaxed
    (3.0, (0, 2, 0, 2, 4, 2, 4, 3, 4, 6, 8)),  # open
    (1.5, (0, -6, -6, -6, -4, -6, 0, 0, 0, 0, 14)),  # spread wide
    (1.5, (30, 78, 82, 84, 84, 45, 95, 98, 98, 92, 0)),  # fist
    (1.2, (25, 0, 75, 80, 80, 45, 4, 95, 95, 92, 2)),  # pointing
    (0.8, (30, 0, 2, 80, 82, 45, 4, 4, 95, 92, 8)),  # two fingers
    (0.8, (-6, 75, 80, 82, 82, -5, 92, 95, 95, 92, 0)),  # thumb up
    (0.8, (28, 42, 20, 12, 8, 30, 48, 25, 15, 12, 4)),  # pinch
)
_LIMITS = {  # degrees
    "bend": (-25, 60), "lean": (-30, 30), "twist": (-45, 45), "nod": (-35, 40), "tilt": (-28, 28), "turn": (-60, 60),
    "clavicle_up": (-5, 22), "clavicle_forward": (-12, 20), "arm_forward": (-45, 165), "arm_side": (-25, 160),
    "arm_twist": (-90, 80), "elbow": (2, 142), "pronation": (-75, 80), "wrist": (-55, 60), "wrist_side": (-20, 20),
    "leg_forward": (-30, 110), "leg_side": (-10, 50), "leg_twist": (-25, 25), "knee": (1, 135), "ankle": (-40, 30),
    "ankle_side": (-15, 15), "spread": (-4, 16),
}  # fmt: skip


def wobble(dice: Dice, times: Tensor, width: int, low: float, high: float) -> Tensor:
    """Slow noise of about unit spread, [n, F, width]: three sines of random frequency between `low` and `high` Hz."""
    frequency = dice.uniform(low, high, 1, width, 3)
    phase = dice.uniform(0, 2 * math.pi, 1, width, 3)
    return torch.sin(2 * math.pi * frequency * times[:, :, None, None] + phase).sum(-1) * 0.8


def between_keys(keys: Tensor, times: Tensor, interval: Tensor) -> Tensor:
    """Minimum-jerk moves from key to key: keys [n, K, D], times [n, F] -> [n, F, D]."""
    at = (times / interval.unsqueeze(1)).clamp(0, keys.shape[1] - 1.001)
    first = at.floor().long()
    part = at - first
    part = (part * 1.35).clamp(0, 1)  # arrive early, rest a little
    ease = part**3 * (10 - 15 * part + 6 * part**2)
    index = first.unsqueeze(-1).expand(-1, -1, keys.shape[2])
    a, b = keys.gather(1, index), keys.gather(1, index + 1)
    return a + (b - a) * ease.unsqueeze(-1)


def _arm_keys(dice: Dice, calm: bool) -> tuple[Tensor, Tensor]:
    """Key poses of both arms, [n, K, 2, 7] radians, and which prototype each is [n, K, 2]."""
    weights = [at_rest if calm else performing for performing, at_rest, _ in _ARMS]
    table = torch.tensor([row[2] for row in _ARMS], device=dice.device)
    choice = dice.pick(weights, _KEYS, 2)
    mirrored = dice.chance(0.4).view(-1, 1)
    choice[:, :, 1] = torch.where(mirrored, choice[:, :, 0], choice[:, :, 1])
    one_sided = dice.chance(0.25).view(-1, 1)  # the other arm hangs
    choice[:, :, 1] = torch.where(one_sided & ~mirrored, 0, choice[:, :, 1])
    swap = dice.chance(0.5).view(-1, 1, 1)
    choice = torch.where(swap, choice.flip(2), choice)
    for key in range(1, _KEYS):  # often stay, or go back
        stay = dice.chance(0.35, 2)
        choice[:, key] = torch.where(stay, choice[:, key - 1], choice[:, key])
        if key > 1:
            back = dice.chance(0.25, 2)
            choice[:, key] = torch.where(back, choice[:, key - 2], choice[:, key])
    spread = torch.tensor([10.0, 8, 12, 12, 18, 10, 6], device=dice.device)
    noise = dice.normal(1.0, _KEYS, 2, 7)
    shared = dice.normal(1.0, _KEYS, 1, 7)
    noise = torch.where(mirrored.view(-1, 1, 1, 1), shared + 0.15 * noise, noise)
    return torch.deg2rad(table[choice] + noise * spread), choice


def sample_motion(
    dice: Dice, times: Tensor, calm: bool = False, recorded: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Random performances.

    Args:
        times: [n, F] seconds from 0, any spacing. calm: mostly relaxed standing, as on a character picture.
        recorded: clips [C, T, len(DOF)] and their lengths [C], taken for some of the performances.

    Returns:
        Poses [n, F, len(DOF)] and expressions [n, F, E].
    """
    n, frames = times.shape
    pose = torch.zeros(n, frames, len(DOF), device=dice.device)

    def add(name: str, value: Tensor) -> None:
        pose[:, :, AT[name]] += value

    interval = torch.exp(dice.uniform(math.log(0.3), math.log(1.1)))
    clock = times + dice.uniform(0, 1, 1) * interval.unsqueeze(1)
    keys, _ = _arm_keys(dice, calm)
    arms = between_keys(keys.flatten(2), clock, interval).unflatten(2, (2, 7))
    beat = 2 * math.pi * dice.uniform(0.7, 2.6, 1) * times + dice.uniform(0, 6.3, 1)
    waving = dice.chance(0.15 if calm else 0.4, 1) * dice.uniform(0.1, 0.5, 1)
    offset = dice.uniform(0, 3.2, 1)
    for i, side in enumerate("LR"):
        for j, name in enumerate(ARM_DOF):
            add(f"{name}_{side}", arms[:, :, i, j])
        wave = torch.sin(beat + (offset if i else 0)) * waving
        add(f"arm_twist_{side}", wave * 0.8 * (arms[:, :, i, 3] / 1.5).clamp(0, 1))
        add(f"elbow_{side}", wave * 0.5)
        add(f"wrist_side_{side}", wave * 0.4)
        add(f"arm_forward_{side}", wave * 0.3)
        slow = wobble(dice, times, 9, 0.15, 0.9)
        for j, (name, size) in enumerate(
            zip((*ARM_DOF, "clavicle_up", "clavicle_forward"), (4, 4, 6, 6, 8, 7, 4, 2, 2), strict=True)
        ):
            add(f"{name}_{side}", slow[:, :, j] * math.radians(size))
        _fingers(dice, times, clock, interval, side, pose)
    _legs(dice, times, pose, calm)
    _trunk(dice, times, pose, calm)
    if recorded is not None and len(recorded[0]):
        _recorded(dice, times, pose, *recorded)
    for name, (low, high) in _LIMITS.items():
        for column in [AT[name]] if name in AT else [AT[f"{name}_L"], AT[f"{name}_R"]]:
            pose[:, :, column] = pose[:, :, column].clamp(math.radians(low), math.radians(high))
    return pose, sample_faces(dice, times, calm)


def _recorded(dice: Dice, times: Tensor, pose: Tensor, clips: Tensor, lengths: Tensor) -> None:
    """Replace the large joints of some performances by recorded motion; hands, wrists and gaze stay."""
    chosen = dice.chance(_RECORDED, 1)
    clip = dice.integer(0, len(clips))
    at = times * RATE * dice.uniform(0.6, 1.15, 1)
    room = (lengths[clip].unsqueeze(1) - 1 - at[:, -1:]).clamp_min(0)
    at = (at + dice.uniform(0, 1, 1) * room).clamp(max=clips.shape[1] - 1.001)
    first = at.floor().long()
    part = (at - first).unsqueeze(-1)
    moved = clips[clip.unsqueeze(1), first] * (1 - part) + clips[clip.unsqueeze(1), first + 1] * part
    moved[:, :, AT["yaw"]] += pose[:, :1, AT["yaw"]]
    moved[:, :, AT["x"]] *= 0.3
    moved[:, :, AT["y"]] *= 0.3
    limbs = ("clavicle", "arm", "elbow", "leg", "knee", "ankle")
    trunk = ("x", "y", "yaw", "pitch", "roll", "bend", "lean", "twist", "nod", "tilt", "turn")
    kept = [not (name in trunk or name.startswith(limbs)) for name in DOF]
    keep = torch.tensor(kept, device=pose.device) | ~chosen.unsqueeze(-1)
    pose.copy_(torch.where(keep, pose, moved))


def _fingers(dice: Dice, times: Tensor, clock: Tensor, interval: Tensor, side: str, pose: Tensor) -> None:
    table = torch.deg2rad(torch.tensor([row[1] for row in HANDS], device=dice.device))
    choice = dice.pick([row[0] for row in HANDS], _KEYS)
    for key in range(1, _KEYS):
        choice[:, key] = torch.where(dice.chance(0.4), choice[:, key - 1], choice[:, key])
    hands = between_keys(table[choice] + dice.normal(0.08, _KEYS, table.shape[1]), clock, interval)
    lively = torch.where(dice.chance(0.4, 1, 1), dice.uniform(0.15, 0.6, 1, 1), dice.uniform(0, 0.08, 1, 1))
    rhythm = 2 * math.pi * dice.uniform(0.8, 2.5, 1, 1) * times.unsqueeze(-1) + dice.uniform(0, 6.3, 1, 1)
    order = torch.arange(5, device=dice.device) * dice.uniform(-1.2, 1.2, 1, 1)
    play = torch.sin(rhythm + order) * lively  # [n, F, 5]
    first, second = AT[f"knuckle1_{side}"], AT[f"finger1_{side}"]
    pose[:, :, first : first + 5] += hands[:, :, :5] + play * 0.6
    pose[:, :, second : second + 5] += hands[:, :, 5:10] + play
    pose[:, :, AT[f"spread_{side}"]] += hands[:, :, 10]
    pose[:, :, first : first + 5] = pose[:, :, first : first + 5].clamp(-0.25, 1.5)
    pose[:, :, second : second + 5] = pose[:, :, second : second + 5].clamp(-0.12, 1.7)


def _legs(dice: Dice, times: Tensor, pose: Tensor, calm: bool) -> None:
    """Standing, squats, walking in place, kicks, weight shifts. Feet stay level unless lifted."""
    kind = dice.pick([8, 0.3, 1.0, 0.1, 1.0] if calm else [4.5, 1.4, 1.8, 0.7, 1.2]).unsqueeze(1)
    pace = 2 * math.pi * dice.uniform(0.55, 1.4, 1) * times + dice.uniform(0, 6.3, 1)
    zero = torch.zeros_like(times)
    squat = torch.where(kind == 1, dice.uniform(0.3, 1.0, 1) * (0.5 - 0.5 * torch.cos(pace * 0.8)), zero)
    stride = torch.where(kind == 2, dice.uniform(0.2, 0.65, 1), zero[:, :1])
    marching = dice.chance(0.5, 1)
    kick_size = torch.where(kind == 3, dice.uniform(0.4, 1.5, 1), zero[:, :1])
    kick = kick_size * torch.sin(pace * 0.7).clamp_min(0) ** 1.5
    kick_left = dice.chance(0.5, 1)
    width = dice.uniform(0.02, 0.14, 1) + torch.where(kind == 4, dice.uniform(0.1, 0.3, 1), zero[:, :1])
    shift = torch.where(kind == 4, torch.sin(pace * 0.6) * dice.uniform(0.02, 0.12, 1), zero)
    slow = wobble(dice, times, 6, 0.1, 0.5)
    for i, side in enumerate("LR"):
        phase = pace + math.pi * i
        lifted = torch.sin(phase).clamp_min(0)
        step = stride * torch.where(marching, lifted * 1.4, torch.sin(phase))
        step_knee = stride * torch.where(marching, lifted * 2.4, torch.cos(phase).clamp_min(0) * 1.5 + 0.1)
        mine = kick_left if side == "L" else ~kick_left
        kicked = torch.where(mine, kick, zero)
        forward = step + kicked + squat * 1.15 + slow[:, :, i] * 0.015
        knee = 0.06 + step_knee + squat * 2.0 + kicked * 0.35 * (1 - kicked / 1.5) + slow[:, :, 2 + i].abs() * 0.02
        pose[:, :, AT[f"leg_forward_{side}"]] += forward
        pose[:, :, AT[f"knee_{side}"]] += knee
        pose[:, :, AT[f"leg_side_{side}"]] += width + (shift if side == "L" else -shift) + squat * 0.2
        pose[:, :, AT[f"leg_twist_{side}"]] += -0.1 - dice.uniform(0, 0.2, 1)
        off_ground = (lifted * stride * 2 + kicked).clamp(0, 1)
        pose[:, :, AT[f"ankle_{side}"]] += (knee - forward) * -1 * (1 - 0.8 * off_ground) - 0.35 * off_ground
        swing = -stride * torch.sin(phase) * dice.uniform(0.2, 1.0, 1)
        pose[:, :, AT[f"arm_forward_{side}"]] += torch.where(marching, 0.6 * swing, swing)
        pose[:, :, AT[f"ankle_side_{side}"]] += -width - (shift if side == "L" else -shift)
    pose[:, :, AT["x"]] += shift * 0.9
    pose[:, :, AT["pitch"]] += squat * 0.25
    pose[:, :, AT["bend"]] += squat * 0.3
    pose[:, :, AT["twist"]] += -stride * torch.sin(pace) * 0.25


def _trunk(dice: Dice, times: Tensor, pose: Tensor, calm: bool) -> None:
    """Turns, leans, head and gaze."""
    zero = torch.zeros_like(times)
    rate = 0.6 if calm else 1.0
    facing = dice.pick([8, 1.6, 0.25] if calm else [5, 3, 0.7]).unsqueeze(1)
    limits = torch.tensor([0.4, 1.05, math.pi], device=dice.device)[facing]
    yaw = dice.uniform(-1, 1, 1) * limits
    turning = dice.pick([9, 1, 0] if calm else [5, 4, 0.5]).unsqueeze(1)
    speed = torch.where(
        turning == 1, dice.uniform(0.3, 1.4, 1), torch.where(turning == 2, dice.uniform(2.5, 5.0, 1), zero[:, :1])
    )
    direction = torch.where(dice.chance(0.5, 1), 1.0, -1.0)
    swing = torch.sin(times * dice.uniform(0.8, 2.5, 1) + dice.uniform(0, 6.3, 1)) * 0.6
    yaw = yaw + direction * torch.where(turning == 2, speed * times, speed * swing)
    slow = wobble(dice, times, 12, 0.1, 0.8)
    lively = dice.uniform(0.3, 1.6, 1) * rate
    pose[:, :, AT["yaw"]] += yaw + slow[:, :, 0] * 0.05 * lively
    pose[:, :, AT["roll"]] += slow[:, :, 1] * 0.02 * lively
    pose[:, :, AT["pitch"]] += slow[:, :, 2] * 0.02 * lively
    pose[:, :, AT["x"]] += slow[:, :, 3] * 0.025 * lively
    leaning = torch.where(dice.chance(0.05 if calm else 0.2, 1), dice.uniform(0.1, 0.5, 1), zero[:, :1])
    lean = torch.sin(times * dice.uniform(1.0, 4.0, 1) + dice.uniform(0, 6.3, 1)) * leaning
    ahead = dice.chance(0.35, 1)
    pose[:, :, AT["bend"]] += slow[:, :, 4] * 0.05 * lively + torch.where(ahead, lean.abs(), zero) + 0.03
    pose[:, :, AT["lean"]] += slow[:, :, 5] * 0.05 * lively + torch.where(ahead, zero, lean)
    pose[:, :, AT["twist"]] += slow[:, :, 6] * 0.08 * lively
    for i, name in enumerate(("nod", "tilt", "turn")):
        base = dice.normal((0.09, 0.07, 0.2)[i] * rate, 1)
        pose[:, :, AT[name]] += base + slow[:, :, 7 + i] * (0.08, 0.07, 0.16)[i] * lively
    hop = torch.where(dice.chance(0.0 if calm else 0.05, 1), dice.uniform(0.05, 0.25, 1), zero[:, :1])
    pose[:, :, AT["z"]] += hop * torch.sin(times * dice.uniform(5, 9, 1) + dice.uniform(0, 6.3, 1)).clamp_min(0)
    for i, name in enumerate(("gaze_x", "gaze_y")):
        pose[:, :, AT[name]] += (dice.normal(0.12, 1) + slow[:, :, 10 + i] * 0.1) * (1.0, 0.5)[i]


def sample_faces(dice: Dice, times: Tensor, calm: bool = False) -> Tensor:
    """Expressions [n, F, E]: speech-like jaw, blinks, smiles, brows; all weights in 0..1."""
    n, frames = times.shape
    names = list(EXPRESSIONS)
    face = torch.zeros(n, frames, len(names), device=dice.device)

    def put(name: str, value: Tensor) -> None:
        face[:, :, names.index(name)] = value

    kind = dice.pick([6, 1, 1] if calm else [2.5, 6, 1.5]).unsqueeze(1)  # shut, speaking, slow and wide
    syllables = 2 * math.pi * dice.uniform(2.2, 5.0, 1) * times + 0.8 * wobble(dice, times, 1, 0.5, 1.5)[..., 0]
    envelope = (0.6 + 0.5 * wobble(dice, times, 1, 0.3, 1.2)[..., 0]).clamp(0, 1)
    speech = (0.5 + 0.5 * torch.sin(syllables)) ** 1.3 * envelope * dice.uniform(0.35, 1.0, 1)
    wide = (0.5 + 0.6 * wobble(dice, times, 1, 0.2, 1.0)[..., 0]).clamp(0, 1) * dice.uniform(0.5, 1.0, 1)
    jaw = torch.where(kind == 1, speech, torch.where(kind == 2, wide, torch.zeros_like(times)))
    put("jaw", jaw.clamp(0, 1))
    speaking = (kind == 1).float()
    lips = (wobble(dice, times, 4, 0.8, 2.5) * 0.45).clamp(0, 1) * speaking.unsqueeze(-1)
    for i, name in enumerate(("pucker", "funnel", "stretch", "lower_down")):
        put(name, lips[:, :, i] * dice.uniform(0.2, 0.8, 1))
    some = wobble(dice, times, 8, 0.1, 0.6)
    bases = {
        "smile": 0.35,
        "frown": 0.12,
        "brow_inner": 0.2,
        "brow_outer": 0.25,
        "brow_down": 0.2,
        "wide": 0.1,
        "squint": 0.15,
        "puff": 0.06,
    }
    for i, (name, often) in enumerate(bases.items()):
        active = dice.chance(often, 1) * dice.uniform(0.3, 1.0, 1)
        put(name, (active * (0.7 + 0.5 * some[:, :, i])).clamp(0, 1))
    smile, pucker = face[:, :, names.index("smile")], face[:, :, names.index("pucker")]
    put("pucker", pucker * (1 - smile))
    aside = dice.normal(0.12, 1) * wobble(dice, times, 1, 0.2, 0.8)[..., 0]
    put("mouth_left", aside.clamp(0, 0.5))
    put("mouth_right", (-aside).clamp(0, 0.5))
    when = dice.uniform(-0.5, 2.5, 3)
    length = dice.uniform(0.09, 0.16, 3)
    blink = torch.exp(-(((times.unsqueeze(-1) - when.unsqueeze(1)) / length.unsqueeze(1)) ** 4)).amax(-1)
    held = dice.chance(0.04, 1)
    blink = torch.where(held, torch.ones_like(blink), blink)
    wink = dice.pick([20, 1, 1]).unsqueeze(1)
    put("blink_left", torch.where(wink == 2, torch.zeros_like(blink), blink))
    put("blink_right", torch.where(wink == 1, torch.zeros_like(blink), blink))
    return face
