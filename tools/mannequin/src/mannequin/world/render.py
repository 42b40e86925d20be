"""Pictures of posed people: z-buffer, then one shading pass over the covered pixels of all views at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from mannequin.world.appearance import paint, shown_triangles
from mannequin.world.assets import Mannequins
from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.layout import MATERIALS
from mannequin.world.raster import barycentric, rasterize
from wanimate.runtime.compilers import keep_caches_private

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


@dataclass(frozen=True)
class Quality:
    """`supersample`: samples a pixel's side. `plain`: the torch rasteriser even on CUDA. `compiled`: shade through
    torch.compile (a minute once, then several times as fast on CUDA)."""

    supersample: int = 2
    plain: bool = False
    compiled: bool = False


USUAL = Quality()


class Subjects(NamedTuple):
    """Who is in each view: `owner` [N] is its row of `appearance` [C, WIDTH] and `light` [C, 9]."""

    owner: Tensor
    appearance: Tensor
    light: Tensor


class Mesh(NamedTuple):
    """Projected bodies: `screen` [N, V, 3] (`Camera.project`), unit `normals` [N, V, 3], `triangles` [T, 3], `material` [T],
    `fields` [V, F], and where each view looks, `towards` [N, 3]."""

    screen: Tensor
    normals: Tensor
    triangles: Tensor
    material: Tensor
    fields: Tensor
    towards: Tensor


def render(
    people: Mannequins,
    posed: Posed,
    camera: Camera,
    subjects: Subjects,
    height: int,
    width: int,
    quality: Quality = USUAL,
) -> Picture:
    """Draw N views of N people, one a camera."""
    factor = quality.supersample
    shape = (height * factor, width * factor)
    mesh = Mesh(
        camera.scaled(factor).project(posed.vertices), posed.normals, people.triangles, people.material, people.fields,
        camera.rotation[:, 2],
    )  # fmt: skip
    two_sided = people.material >= MATERIALS["lash"]
    shown = shown_triangles(people, subjects.appearance)[subjects.owner]
    triangle = rasterize(mesh.screen, people.triangles, two_sided, shown, *shape, plain=quality.plain)
    count, device = len(mesh.screen), mesh.screen.device
    canvas = torch.zeros(count, *shape, 4, device=device)
    regions = torch.zeros(count, *shape, dtype=torch.uint8, device=device)
    covered = (triangle.view(-1) >= 0).nonzero().squeeze(1)
    painter = _compiled() if quality.compiled else surface
    for place in covered.split(_CHUNK):
        colour, region = painter(place, triangle.view(-1)[place].long(), *shape, mesh, subjects)
        canvas.view(-1, 4)[place] = torch.cat([colour, torch.ones_like(colour[:, :1])], dim=-1)
        regions.view(-1)[place] = region.to(torch.uint8)
    if factor > 1:
        canvas = avg_pool2d(canvas.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
        middle = factor // 2
        regions = regions[:, middle::factor, middle::factor]
    return Picture(canvas[..., :3], canvas[..., 3], regions)


def surface(
    place: Tensor, hit: Tensor, height: int, width: int, mesh: Mesh, subjects: Subjects
) -> tuple[Tensor, Tensor]:
    """Colour [P, 3] and region [P] of the pixels `place` [P] (flat index) that show triangle `hit` [P]."""
    view, fields, normal = surface_points(place, hit, height, width, mesh)
    clip = subjects.owner[view]
    colour, region, gloss = paint(subjects.appearance[clip], fields, mesh.material[hit])
    return shade(colour, normal, -mesh.towards[view], subjects.light[clip], gloss), region


def surface_points(place: Tensor, hit: Tensor, height: int, width: int, mesh: Mesh) -> tuple[Tensor, Tensor, Tensor]:
    """View [P], fields [P, F] and unit normal [P, 3] of these pixels' surface points."""
    view = place // (height * width)
    row, column = place // width % height, place % width
    weights = barycentric(mesh.screen, mesh.triangles, view, hit, column + 0.5, row + 0.5).unsqueeze(-1)
    corner = mesh.triangles[hit]
    fields = (mesh.fields[corner] * weights).sum(1)
    return view, fields, normalize((mesh.normals[view.unsqueeze(1), corner] * weights).sum(1), dim=-1)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    keep_caches_private()
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
