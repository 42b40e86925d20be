"""What a person looks like: skin, hair, face colours, clothes, as one row of numbers a person, and the paint from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mannequin.world.assets import Mannequins
from mannequin.world.dice import Dice
from mannequin.world.layout import MATERIALS

_COLOURS = ("skin", "lips", "hair", "iris", "top_a", "top_b", "bottom_a", "bottom_b", "shoes", "sole", "brow")
_PATTERN = ("kind", "period", "angle", "phase", "duty", "second")
_SCALARS = (
    "brow_width", "brow_lift", "hairline", "cap", "long_hair", "hair_end", "parting", "bald", "beard", "sleeve",
    "hem", "neck_depth", "neck_width", "trouser", "waist", "skirt", "skirt_end", "shoe_top", "glossy", "top_loose",
    "bottom_loose", "blush",
)  # fmt: skip
COLUMNS: dict[str, slice] = {}
for _name in _COLOURS:
    COLUMNS[_name] = slice(len(COLUMNS) * 3, len(COLUMNS) * 3 + 3)
_end = len(_COLOURS) * 3
for _name in [f"{part}_{p}" for part in ("top", "bottom") for p in _PATTERN] + list(_SCALARS):
    COLUMNS[_name] = slice(_end, _end + 1)
    _end += 1
WIDTH = _end

REGIONS = {
    "background": 0, "skin": 1, "face": 2, "hair": 3, "top": 4, "bottom": 5, "shoes": 6, "eye": 7, "mouth": 8, "hand": 9,
}  # fmt: skip

_WRIST = 1.95
"""Where a hand begins on the field `arm`."""


def sample_appearances(dice: Dice) -> Tensor:
    """Random appearances, [count, WIDTH]."""
    appearance = torch.zeros(dice.count, WIDTH, device=dice.device)

    def put(name: str, value: Tensor) -> None:
        appearance[:, COLUMNS[name]] = value if value.ndim == 2 else value.unsqueeze(1)

    def colour(*rgb: float) -> Tensor:
        return torch.tensor(rgb, device=dice.device)

    tone = dice.uniform(0, 1) ** 0.8
    tones = torch.stack(
        [colour(0.98, 0.82, 0.71), colour(0.90, 0.69, 0.55), colour(0.68, 0.47, 0.34), colour(0.36, 0.23, 0.16)]
    )
    at = tone * 2.999
    low = at.floor().long()
    part = (at - low).unsqueeze(1)
    skin = tones[low] * (1 - part) + tones[low + 1] * part
    skin = (skin * (1 + dice.normal(0.025, 3))).clamp(0.1, 1)
    put("skin", skin)
    red = dice.uniform(0.25, 0.95).unsqueeze(1)
    put("lips", skin * (1 - red) + red * (skin * colour(0.82, 0.45, 0.45) + colour(0.04, 0.0, 0.01)))
    natural = torch.stack(
        [
            colour(0.07, 0.05, 0.04),
            colour(0.2, 0.12, 0.07),
            colour(0.42, 0.26, 0.13),
            colour(0.75, 0.57, 0.3),
            colour(0.5, 0.2, 0.08),
            colour(0.62, 0.6, 0.58),
        ]
    )
    hair = natural[dice.pick([3, 3, 2, 1.5, 1, 0.7])] * dice.uniform(0.7, 1.25, 1)
    dyed = dice.chance(0.12).unsqueeze(1)
    hair = torch.where(dyed, dice.colour(), hair).clamp(0, 1)
    put("hair", hair)
    put("brow", hair * 0.6 * dice.uniform(0.5, 1.1, 1))
    irises = torch.stack(
        [colour(0.16, 0.09, 0.05), colour(0.3, 0.18, 0.08), colour(0.2, 0.36, 0.55), colour(0.25, 0.4, 0.25)]
    )
    put("iris", irises[dice.pick([3, 2, 1, 1])] * dice.uniform(0.7, 1.2, 1))
    dress = dice.chance(0.08)
    for part_name in ("top", "bottom"):
        first, second = dice.colour(), dice.colour()
        same = dice.chance(0.3).unsqueeze(1)  # a quiet pattern: two shades of one colour
        second = torch.where(same, first * dice.uniform(0.55, 0.8, 1), second)
        put(f"{part_name}_a", first)
        put(f"{part_name}_b", second)
        kinds = [4, 3, 2, 2, 1.5, 2] if part_name == "top" else [8, 1, 1.5, 0.7, 1, 0]
        put(f"{part_name}_kind", dice.pick(kinds).float())
        put(f"{part_name}_period", torch.exp(dice.uniform(math.log(0.05), math.log(0.16))))
        upright = dice.pick([3, 2, 1])
        angle = torch.where(upright == 0, torch.zeros(dice.count, device=dice.device), dice.uniform(0, math.pi))
        put(f"{part_name}_angle", torch.where(upright == 1, torch.full_like(angle, math.pi / 2), angle))
        put(f"{part_name}_phase", dice.uniform(0, 2 * math.pi))
        put(f"{part_name}_duty", dice.uniform(-0.5, 0.5))
        put(f"{part_name}_second", dice.uniform(0, 2 * math.pi))
    for p in ("a", "b", *_PATTERN):
        name = f"bottom_{p}"
        appearance[:, COLUMNS[name]] = torch.where(
            dress.unsqueeze(1), appearance[:, COLUMNS[f"top_{p}"]], appearance[:, COLUMNS[name]]
        )
    put("shoes", dice.colour() * 0.9)
    put(
        "sole",
        torch.where(
            dice.chance(0.5).unsqueeze(1),
            dice.uniform(0.7, 0.95, 1).expand(-1, 3),
            dice.uniform(0.05, 0.2, 1).expand(-1, 3),
        ),
    )
    put("brow_width", dice.uniform(0.0022, 0.0046))
    put("brow_lift", dice.normal(0.0015))
    put("hairline", dice.normal(0.06))
    bald = dice.chance(0.06)
    long_hair = dice.chance(0.3) & ~bald
    put("bald", bald.float())
    put(
        "cap",
        torch.where(
            bald, torch.zeros_like(tone), torch.where(long_hair, dice.uniform(0.014, 0.022), dice.uniform(0.006, 0.04))
        ),
    )
    put("long_hair", long_hair.float())
    put("hair_end", dice.uniform(0.36, 0.66))
    put("parting", dice.uniform(-0.03, 0.03))
    put("beard", torch.where(dice.chance(0.15), dice.uniform(0.3, 0.9), torch.zeros_like(tone)))
    lengths = torch.tensor([0.0, 0.35, 0.55, 0.95, 1.5, 1.93], device=dice.device)
    put("sleeve", lengths[dice.pick([0.7, 2, 2, 0.8, 1, 3])] + dice.normal(0.03))
    put("neck_depth", torch.where(dice.chance(0.4), dice.uniform(0.03, 0.12), dice.uniform(0.0, 0.03)))
    put("neck_width", dice.uniform(0.04, 0.085))
    legs = torch.tensor([0.35, 0.6, 0.95, 1.5, 1.9], device=dice.device)
    put("trouser", legs[dice.pick([0.6, 1, 1, 0.6, 5])] + dice.normal(0.03))
    waist = dice.uniform(-0.28, -0.16)
    put("waist", waist)
    put("hem", torch.maximum(dice.uniform(-0.22, 0.12), waist + 0.03))
    skirt = dress | dice.chance(0.12)
    put("skirt", skirt.float())
    put("skirt_end", dice.uniform(0.45, 1.5))
    put("shoe_top", torch.where(dice.chance(0.25), dice.uniform(1.55, 1.8), dice.uniform(1.9, 1.97)))
    put("glossy", dice.uniform(0.0, 0.25))
    put("top_loose", dice.uniform(0.002, 0.016))
    put("bottom_loose", dice.uniform(0.002, 0.014))
    put("blush", dice.uniform(0.0, 0.12))
    return appearance


def _get(appearance: Tensor, name: str) -> Tensor:
    column = appearance[..., COLUMNS[name]]
    return column if column.shape[-1] == 3 else column.squeeze(-1)


def push_out(people: Mannequins, appearance: Tensor) -> Tensor:
    """How far clothes and hair stand off the body, metres along the normal, [N, V] from [N, WIDTH]."""
    x, _, z, arm, leg, _, scalp, _ = people.fields.unbind(-1)
    appearance = appearance.unsqueeze(1)
    top, bottom = _clothes(appearance, x, people.fields[:, 1], z, arm, leg)
    crown = ((z - 0.72) / 0.12).clamp(0, 1)
    inside = ((scalp + _get(appearance, "hairline") - 0.02) / 0.22).clamp(0, 1)
    hair = _get(appearance, "cap") * inside.sqrt() * (0.55 + 0.45 * crown)
    cloth = torch.where(
        top > 0, _get(appearance, "top_loose"), torch.where(bottom > 0, _get(appearance, "bottom_loose"), 0.0)
    )
    return torch.where(scalp > -1, hair, cloth)


def shown_triangles(people: Mannequins, appearance: Tensor) -> Tensor:
    """Which triangles exist for an appearance, bool [N, T]: skirts and long hair are cut to length, or left out."""
    middle = people.fields[people.triangles, :3].mean(1)
    strips = people.material >= MATERIALS["hair"]  # exported as quads, two triangles each: keep or drop both
    middle[strips] = middle[strips].unflatten(0, (-1, 2)).mean(1).repeat_interleave(2, dim=0)
    z = middle[:, 2]
    over_face = (middle[:, 1] < -0.07) & (z > 0.63)  # the hair of the base mesh hangs over the face: open it
    hip, knee = 0.10, -0.33  # template heights; the skirt's length is given in thigh lengths below the hip
    end = hip + (knee - hip) * _get(appearance, "skirt_end")
    skirt = (_get(appearance, "skirt") > 0).unsqueeze(1) & (z > end.unsqueeze(1))
    hair = (
        (_get(appearance, "long_hair") > 0).unsqueeze(1) & (z > _get(appearance, "hair_end").unsqueeze(1)) & ~over_face
    )
    material = people.material
    special = torch.where(material == MATERIALS["skirt"], skirt, True)
    return torch.where(material == MATERIALS["hair"], hair, special)


def _clothes(appearance: Tensor, x: Tensor, y: Tensor, z: Tensor, arm: Tensor, leg: Tensor) -> tuple[Tensor, Tensor]:
    """Signed cover of top and bottom: positive inside the garment, about in metres."""
    front = ((-y - 0.0) / 0.08).clamp(0, 1)
    dip = (1 - (x / _get(appearance, "neck_width")).abs()).clamp(0, 1)
    neck = 0.583 - 0.30 * y - _get(appearance, "neck_depth") * dip * front - z
    sleeve = (_get(appearance, "sleeve") - arm) * 0.27
    hem = (_get(appearance, "hem") - leg) * 0.42
    torso = torch.minimum(torch.minimum(neck, sleeve), torch.where(arm > 0.05, sleeve, hem))
    length = (_get(appearance, "trouser") - leg) * 0.42
    bottom = torch.minimum((leg - _get(appearance, "waist")) * 0.42, length)
    bottom = torch.where((arm > 0.15) | (leg < -0.5), -1.0, bottom)
    return torso, bottom


def _pattern(appearance: Tensor, part: str, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Colour of a garment at template positions, [P, 3]. Patterns are solid: they run through the body."""
    kind, period = _get(appearance, f"{part}_kind"), _get(appearance, f"{part}_period")
    angle, phase, second = (
        _get(appearance, f"{part}_angle"),
        _get(appearance, f"{part}_phase"),
        _get(appearance, f"{part}_second"),
    )
    turn = 2 * math.pi / period
    c, s = torch.cos(angle), torch.sin(angle)
    first = torch.sin((z * c + x * s) * turn + phase)
    other = torch.sin((x * c - z * s) * turn + second)
    depth = torch.cos(y * turn)
    stripes = first - _get(appearance, f"{part}_duty")
    checks = first * other
    dots = first * other * depth - 0.3 - 0.3 * _get(appearance, f"{part}_duty")
    wave = torch.sin(x * turn * 0.5 + 1.7 * torch.sin(z * turn * 0.37 + phase) + second)
    noise = (
        wave + torch.sin(z * turn * 0.6 + 1.3 * torch.sin(y * turn * 0.5 + x * 9)) - _get(appearance, f"{part}_duty")
    )
    band = 0.06 + 0.4 * period - (z - 0.36).abs()
    sharp = 5.0
    value = torch.where(kind == 1, stripes * sharp, torch.full_like(first, -9.0))
    value = torch.where(kind == 2, checks * 2 * sharp, value)
    value = torch.where(kind == 3, dots * 2 * sharp, value)
    value = torch.where(kind == 4, noise * 2, value)
    value = torch.where(kind == 5, band * 200, value)
    mix = (value * 0.5 + 0.5).clamp(0, 1).unsqueeze(-1)
    return _get(appearance, f"{part}_a") * (1 - mix) + _get(appearance, f"{part}_b") * mix


def paint(appearance: Tensor, fields: Tensor, material: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, region and gloss of surface points.

    Args:
        appearance: [P, WIDTH]; fields: [P, 8]; material: [P].

    Returns:
        Colour [P, 3] in 0..1, region [P] (`REGIONS`), gloss [P].
    """
    x, y, z, arm, leg, lips, scalp, ear = fields.unbind(-1)

    def mix(base: Tensor, over: Tensor, amount: Tensor) -> Tensor:
        amount = amount.clamp(0, 1).unsqueeze(-1)
        return base * (1 - amount) + over * amount

    skin = _get(appearance, "skin")
    side = x.abs()
    face = (z > 0.60) & (y < -0.03) & (arm < -0.5)
    colour = skin
    cheek = torch.exp(-(((side - 0.042) / 0.018) ** 2) - ((z - 0.69) / 0.02) ** 2) * (y < -0.08)
    colour = mix(
        colour, skin * torch.tensor([1.0, 0.72, 0.70], device=appearance.device), cheek * _get(appearance, "blush") * 4
    )
    # around the eyes: a soft shade, and lashes at the rim
    rim = torch.hypot((side - 0.031) / 1.25, (z - 0.7275) * 1.75)
    near_eye = (y < -0.09) & face
    colour = mix(colour, skin * 0.72, torch.where(near_eye, (1 - (rim - 0.016).abs() / 0.010) * 0.5, 0.0))
    beard = ((0.668 - z) / 0.015 + (side - 0.03) / 0.02).clamp(0, 1) * ((z - 0.585) / 0.02).clamp(0, 1)
    beard = torch.maximum(beard, torch.exp(-(((z - 0.677) / 0.004) ** 2)) * (side < 0.028) * (y < -0.12))
    colour = mix(
        colour, _get(appearance, "brow") * 0.6 + skin * 0.25, torch.where(face, beard * _get(appearance, "beard"), 0.0)
    )
    colour = mix(colour, _get(appearance, "lips"), torch.where(y < -0.1, (lips - 0.3) * 2.2, 0.0))
    arch = 0.7485 + _get(appearance, "brow_lift") + 0.0045 * torch.sin(((side - 0.012) / 0.044).clamp(0, 1) * 2.6)
    across = (side - 0.012).clamp_max(0.058 - side) / 0.004
    brow = (1.3 - (z - arch).abs() / _get(appearance, "brow_width")).clamp(0, 1) * across.clamp(0, 1)
    colour = mix(colour, _get(appearance, "brow"), torch.where(near_eye, brow * 0.9, 0.0))

    hairline = scalp + _get(appearance, "hairline") + 0.03 * torch.sin(x * 160 + 3 * torch.sin(z * 90))
    hairy = (hairline / 0.035 + 0.5) * (1 - _get(appearance, "bald")) * (ear < 0.3) * (scalp > -1)
    strands = 0.94 + 0.06 * torch.sin((x + 0.6 * y) * 420 + 1.5 * torch.sin(z * 60))
    hair = _get(appearance, "hair") * strands.unsqueeze(-1)
    colour = mix(colour, hair, hairy)

    along = torch.where(arm > 0.05, 0.5 - arm * 0.27, z)
    top, bottom = _clothes(appearance, x, y, z, arm, leg)
    in_bottom = (bottom > 0) & (material == MATERIALS["body"])
    in_top = (top > 0) & (material == MATERIALS["body"])
    lower = _pattern(appearance, "bottom", x, y, z)
    colour = torch.where(in_bottom.unsqueeze(-1), lower, colour)
    trim = 1 - 0.25 * ((top < 0.008) & (top > 0)).float().unsqueeze(-1)
    colour = torch.where(in_top.unsqueeze(-1), _pattern(appearance, "top", x, y, along) * trim, colour)
    shod = (leg > _get(appearance, "shoe_top")) & (material == MATERIALS["body"])
    shoe = torch.where((z < -0.806).unsqueeze(-1), _get(appearance, "sole"), _get(appearance, "shoes"))
    colour = torch.where(shod.unsqueeze(-1), shoe, colour)

    centre_x, radius = side - 0.0310, torch.hypot(side - 0.0310, z - 0.7287)
    white = torch.full_like(skin, 0.9) - 0.25 * (centre_x.abs() / 0.014).clamp(0, 1).unsqueeze(-1)
    eye = mix(white, _get(appearance, "iris") * 0.55, (0.0066 - radius) / 0.0006)
    eye = mix(eye, _get(appearance, "iris"), (0.0056 - radius) / 0.0006)
    eye = mix(eye, torch.full_like(skin, 0.02), (0.0028 - radius) / 0.0005)
    glint = torch.hypot(x - torch.sign(x) * 0.031 + 0.0022, z - 0.7309)
    eye = mix(eye, torch.full_like(skin, 1.0), (0.0013 - glint) / 0.0004)
    is_eye = material == MATERIALS["eye"]
    colour = torch.where(is_eye.unsqueeze(-1), eye, colour)
    dark = {
        "mouth": (0.34, 0.08, 0.08),
        "socket": (0.2, 0.1, 0.08),
        "teeth": (0.93, 0.91, 0.86),
        "lash": (0.06, 0.04, 0.04),
    }
    for name, rgb in dark.items():
        colour = torch.where(
            (material == MATERIALS[name]).unsqueeze(-1), torch.tensor(rgb, device=appearance.device), colour
        )
    is_hair = material == MATERIALS["hair"]
    colour = torch.where(is_hair.unsqueeze(-1), hair, colour)
    is_skirt = material == MATERIALS["skirt"]
    colour = torch.where(is_skirt.unsqueeze(-1), lower, colour)

    region = torch.where(face, REGIONS["face"], torch.full_like(material, REGIONS["skin"]))
    inside_mouth = (material == MATERIALS["mouth"]) | (material == MATERIALS["teeth"])
    choices = [
        ((arm > _WRIST) & (material == MATERIALS["body"]), "hand"),
        (is_hair | (hairy > 0.5), "hair"), (is_skirt | in_bottom, "bottom"), (in_top, "top"), (shod, "shoes"),
        (is_eye, "eye"), (inside_mouth, "mouth"),
    ]  # fmt: skip
    for chosen, name in choices:
        region = torch.where(chosen, REGIONS[name], region)
    gloss = torch.where(is_hair | (hairy > 0.5), 0.25, 0.12) + torch.where(shod, 0.2, 0.0)
    gloss = torch.where(in_top | in_bottom, _get(appearance, "glossy"), gloss)
    return colour, region, gloss
