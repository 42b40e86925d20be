"""Where a person stands: lights and backgrounds, for batches of clips."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, normalize

from mannequin.world.dice import Dice

LIGHT_WIDTH = 9
"""A light is 9 numbers: direction towards it (x to the body's left, y back, z up), its colour, the ambient colour."""


def sample_lights(dice: Dice, wide: bool = False) -> Tensor:
    """Random lights [n, 9]: one directional light from the front half or the side, and ambient light.

    `wide`: from candles to blue hours and from dusk to glare, instead of what a camera's white balance and exposure leave.
    """
    azimuth = dice.normal(0.9)
    height = dice.uniform(0.0, 1.25)
    direction = torch.stack(
        [torch.sin(azimuth) * torch.cos(height), -torch.cos(azimuth) * torch.cos(height), torch.sin(height)], -1
    )
    warm = dice.normal(0.3 if wide else 0.13).unsqueeze(1) * torch.tensor([1.0, 0.05, -1.0], device=dice.device)
    tint = (1 + warm + dice.normal(0.1 if wide else 0.05, 3)).clamp(0.3, 1.7)
    strong = dice.uniform(0.25, 0.85).unsqueeze(1)
    cool = (1 - 0.5 * warm + dice.normal(0.04, 3)).clamp(0.4, 1.6)
    level = (dice.uniform(0.5, 1.3) if wide else dice.uniform(0.75, 1.12)).unsqueeze(1)
    return torch.cat(
        [normalize(direction, dim=-1), tint * strong * level, cool * (1.0 - 0.72 * strong) * level], dim=-1
    )


def _noise(dice: Dice, height: int, width: int) -> Tensor:
    """Smooth colour noise of two scales, about -1..1, [n, 3, height, width]."""
    coarse = interpolate(dice.normal(0.8, 3, 4, 4), size=(height, width), mode="bicubic", align_corners=True)
    fine = interpolate(dice.normal(0.5, 3, 13, 13), size=(height, width), mode="bicubic", align_corners=True)
    return coarse + fine * dice.uniform(0, 1, 1, 1, 1)


def _texture(dice: Dice, u: Tensor, v: Tensor) -> Tensor:
    """Two-colour patterns at surface coordinates [n, h, w] -> [n, h, w, 3]: plain, stripes, checks, bricks, soft."""
    first, second = (dice.colour().view(-1, 1, 1, 3) for _ in range(2))
    quiet = dice.chance(0.6).view(-1, 1, 1, 1)
    second = torch.where(quiet, (first * dice.uniform(0.75, 1.2).view(-1, 1, 1, 1)).clamp(0, 1), second)
    kind = dice.pick([3, 1.5, 1, 1, 1]).view(-1, 1, 1)
    size = torch.exp(dice.uniform(math.log(4), math.log(26))).view(-1, 1, 1)
    angle = (dice.integer(0, 2).float() * (math.pi / 2) + dice.normal(0.05)).view(-1, 1, 1)
    a = (u * torch.cos(angle) + v * torch.sin(angle)) * size
    b = (v * torch.cos(angle) - u * torch.sin(angle)) * size
    stripes = torch.sin(a) * 3
    checks = torch.sin(a) * torch.sin(b) * 6
    row = torch.floor(b / math.pi)
    bricks = torch.minimum((torch.sin(b)).abs() * 4, torch.sin(a * 0.5 + row * math.pi / 2).abs() * 8) * 2 - 2
    value = torch.where(kind == 1, stripes, torch.full_like(a, -9.0))
    value = torch.where(kind == 2, checks, value)
    value = torch.where(kind == 3, bricks, value)
    value = torch.where(kind == 4, torch.sin(a * 0.3) + torch.sin(b * 0.3), value)
    mix = (value * 0.5 + 0.5).clamp(0, 1).unsqueeze(-1)
    return first * (1 - mix) + second * mix


def sample_backgrounds(dice: Dice, light: Tensor, height: int, width: int, white: float = 0.0) -> Tensor:
    """Random backgrounds under a light, [n, height, width, 3] in 0..1: gradients, noise, patterned walls and floors.

    `white`: how often each of two white things stands there. Without any, colours of things and of light cannot be told apart.
    """
    n, device = dice.count, dice.device
    y = ((torch.arange(height, device=device) + 0.5) / height * 2 - 1).view(1, -1, 1).expand(n, height, width)
    aspect = width / height
    x = ((torch.arange(width, device=device) + 0.5) / width * 2 - 1).view(1, 1, -1).expand(n, height, width) * aspect
    top, low = dice.colour().view(-1, 1, 1, 3), dice.colour().view(-1, 1, 1, 3)
    close = dice.chance(0.6).view(-1, 1, 1, 1)
    low = torch.where(close, (top * dice.uniform(0.6, 1.3).view(-1, 1, 1, 1)).clamp(0, 1), low)
    tilt = dice.normal(0.5).view(-1, 1, 1)
    ramp = (0.5 + 0.5 * (y + x * tilt) / (1 + tilt.abs())).clamp(0, 1).unsqueeze(-1)
    plain = top * (1 - ramp) + low * ramp
    soft = (plain + _noise(dice, height, width).permute(0, 2, 3, 1) * dice.uniform(0.05, 0.3).view(-1, 1, 1, 1)).clamp(
        0, 1
    )
    horizon = dice.uniform(0.25, 0.95).view(-1, 1, 1)
    wall = _texture(dice, x + dice.uniform(-1, 1, 1, 1), y)
    depth = 0.35 / (y - horizon + 0.12).clamp_min(0.12)
    floor = _texture(dice, x * depth + dice.uniform(-1, 1, 1, 1), depth * 1.5)
    room = torch.where((y > horizon).unsqueeze(-1), floor * 0.9, wall)
    room = room * (1 - 0.25 * torch.exp(-(((y - horizon) / 0.08) ** 2))).unsqueeze(-1)
    for _ in range(3):  # pictures, windows, furniture
        there = dice.chance(0.45).view(-1, 1, 1)
        cx, cy = dice.uniform(-1, 1, 1, 1) * aspect, dice.uniform(-1, 0.6, 1, 1)
        hw, hh = dice.uniform(0.08, 0.5, 1, 1), dice.uniform(0.08, 0.5, 1, 1)
        inside = there & ((x - cx).abs() < hw) & ((y - cy).abs() < hh)
        frame = inside & (((x - cx).abs() > hw - 0.03) | ((y - cy).abs() > hh - 0.03))
        fill = dice.colour().view(-1, 1, 1, 3) * (1 + 0.2 * y.unsqueeze(-1))
        room = torch.where(inside.unsqueeze(-1), fill.clamp(0, 1), room)
        room = torch.where(frame.unsqueeze(-1), dice.colour().view(-1, 1, 1, 3) * 0.6, room)
    kind = dice.pick([1.2, 1.5, 3.3]).view(-1, 1, 1, 1)
    picture = torch.where(kind == 0, plain, torch.where(kind == 1, soft, room))
    for _ in range(2 if white else 0):
        there = dice.chance(white).view(-1, 1, 1)
        cx, cy = dice.uniform(-1, 1, 1, 1) * aspect, dice.uniform(-1, 0.8, 1, 1)
        hw, hh = dice.uniform(0.12, 0.4, 1, 1), dice.uniform(0.12, 0.5, 1, 1)
        inside = there & ((x - cx).abs() < hw) & ((y - cy).abs() < hh)
        picture = torch.where(inside.unsqueeze(-1), dice.uniform(0.82, 0.95, 1, 1, 1), picture)
    # the light falls on it: brighter towards its side, tinted like everything else
    side = (light[:, 0].view(-1, 1, 1) * x - light[:, 2].view(-1, 1, 1) * y * 0.5).unsqueeze(-1)
    lit = light[:, 6:9].view(-1, 1, 1, 3) + light[:, 3:6].view(-1, 1, 1, 3) * (0.75 + 0.35 * side).clamp(0.1, 1.4)
    return (picture * lit).clamp(0, 1)


def drift(dice: Dice, background: Tensor, frames: int, moving: Tensor) -> Tensor:
    """A background seen by a slightly moving camera, [n, frames, h, w, 3]; still where `moving` [n] is False."""
    n, height, width, _ = background.shape
    t = torch.linspace(-1, 1, frames, device=background.device).view(1, -1)
    amount = moving.float().unsqueeze(1)
    zoom = 1 - amount * (0.06 + 0.03 * t * dice.uniform(-1, 1, 1))
    dx, dy = (amount * t * dice.normal(0.02, 1) for _ in range(2))
    ys = torch.linspace(-1, 1, height + 1, device=background.device)[:-1] + 1 / height
    xs = torch.linspace(-1, 1, width + 1, device=background.device)[:-1] + 1 / width
    gx = xs.view(1, 1, 1, -1) * zoom.view(n, -1, 1, 1) + dx.view(n, -1, 1, 1)
    gy = ys.view(1, 1, -1, 1) * zoom.view(n, -1, 1, 1) + dy.view(n, -1, 1, 1)
    grid = torch.stack([gx.expand(n, frames, height, width), gy.expand(n, frames, height, width)], dim=-1)
    source = background.permute(0, 3, 1, 2)
    moved = grid_sample(source, grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False)
    return moved.unflatten(2, (frames, height)).permute(0, 2, 3, 4, 1)
