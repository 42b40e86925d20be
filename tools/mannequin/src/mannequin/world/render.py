"""Pictures of posed people: z-buffer, then one shading pass over the covered pixels of all views at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from mannequin.world.appearance import paint, shown_triangles
from mannequin.world.assets import Mannequins
from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.layout import MATERIALS
from mannequin.world.raster import barycentric, rasterize

_CHUNK = 8_000_000
"""Pixels shaded at a time: bounds the memory of one pass to about 8 GB."""


@dataclass(frozen=True)
class Picture:
    """N views: colour times cover [N, h, w, 3] in 0..1, cover [N, h, w] in 0..1, region [N, h, w] uint8 (`REGIONS`)."""

    colour: Tensor
    cover: Tensor
    region: Tensor

    def over(self, background: Tensor) -> Tensor:
        """Composited on a background [N, h, w, 3], values 0..1."""
        return (self.colour + background * (1 - self.cover).unsqueeze(-1)).clamp(0, 1)


def render(
    people: Mannequins,
    posed: Posed,
    camera: Camera,
    owner: Tensor,
    appearance: Tensor,
    light: Tensor,
    height: int,
    width: int,
    supersample: int = 2,
    plain: bool = False,
    compiled: bool = False,
) -> Picture:
    """Draw N views.

    Args:
        posed, camera: N people and N cameras. owner: [N] row of `appearance` [C, WIDTH] and `light` [C, 9] of each view.
        supersample: samples per pixel side. plain: torch rasteriser even on CUDA. compiled: shade through
        torch.compile (a minute once, then several times as fast on CUDA).
    """
    shape = (height * supersample, width * supersample)
    screen = camera.scaled(supersample).project(posed.vertices)
    two_sided = people.material >= MATERIALS["lash"]
    shown = shown_triangles(people, appearance)[owner]
    triangle = rasterize(screen, people.triangles, two_sided, shown, *shape, plain=plain)
    canvas = torch.zeros(len(screen), *shape, 4, device=screen.device)
    regions = torch.zeros(len(screen), *shape, dtype=torch.uint8, device=screen.device)
    covered = (triangle.view(-1) >= 0).nonzero().squeeze(1)
    painter = _compiled() if compiled else surface
    for place in covered.split(_CHUNK):
        colour, region = painter(
            place, triangle.view(-1)[place].long(), shape[0], shape[1], screen, posed.normals, people.triangles,
            people.material, people.fields, camera.turn, owner, appearance, light,
        )  # fmt: skip
        canvas.view(-1, 4)[place] = torch.cat([colour, torch.ones_like(colour[:, :1])], dim=-1)
        regions.view(-1)[place] = region.to(torch.uint8)
    if supersample > 1:
        canvas = avg_pool2d(canvas.permute(0, 3, 1, 2), supersample).permute(0, 2, 3, 1)
        middle = supersample // 2
        regions = regions[:, middle::supersample, middle::supersample]
    return Picture(canvas[..., :3], canvas[..., 3], regions)


def surface(
    place: Tensor, hit: Tensor, height: int, width: int, screen: Tensor, normals: Tensor, triangles: Tensor,
    material: Tensor, table: Tensor, turn: Tensor, owner: Tensor, appearance: Tensor, light: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Colour [P, 3] and region [P] of the pixels `place` [P] (flat index) that show triangle `hit` [P]."""
    view, fields, normal = surface_points(place, hit, height, width, screen, normals, triangles, table)
    clip = owner[view]
    colour, region, gloss = paint(appearance[clip], fields, material[hit])
    return shade(colour, normal, -turn[view, 2], light[clip], gloss), region


def surface_points(
    place: Tensor,
    hit: Tensor,
    height: int,
    width: int,
    screen: Tensor,
    normals: Tensor,
    triangles: Tensor,
    table: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """View [P], fields of `table` [P, F] and unit normal [P, 3] of these pixels' surface points."""
    view = place // (height * width)
    row, column = place // width % height, place % width
    weights = barycentric(screen, triangles, view, hit, column + 0.5, row + 0.5).unsqueeze(-1)
    corner = triangles[hit]
    fields = (table[corner] * weights).sum(1)
    return view, fields, normalize((normals[view.unsqueeze(1), corner] * weights).sum(1), dim=-1)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(surface, dynamic=True)


def shade(colour: Tensor, normal: Tensor, towards: Tensor, light: Tensor, gloss: Tensor) -> Tensor:
    """Soft Lambert, a highlight and a rim: colours [P, 3] in 0..1 of points with unit normals, seen from `towards`."""
    facing = (normal * towards).sum(-1, keepdim=True)
    normal = torch.where(facing < 0, normal - 2 * facing * towards, normal)  # inner sides of open meshes
    direction, strength, ambient = light[:, :3], light[:, 3:6], light[:, 6:9]
    lambert = ((normal * direction).sum(-1, keepdim=True) * 0.8 + 0.2).clamp(0, 1)
    sky = 0.82 + 0.18 * normal[:, 2:3]
    half = normalize(direction + towards, dim=-1)
    highlight = (normal * half).sum(-1, keepdim=True).clamp(0, 1) ** 24 * gloss.unsqueeze(-1)
    rim = (1 - facing.abs()).clamp(0, 1) ** 3 * 0.12
    edge = 0.72 + 0.28 * facing.abs().clamp(0, 1)  # a little darker where the surface turns away
    return (colour * (ambient * sky * edge + strength * lambert * 1.15) + strength * (highlight + rim * 0.5)).clamp(
        0, 1
    )
