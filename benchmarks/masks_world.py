"""Clips of performers with true masks: hats, long hair, coats, chairs, held things, strong backgrounds, a second person, and
stylised looks. They are drawn by the mannequin world, with meshes of their own beside the body."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize

from mannequin.world.appearance import COLUMNS, paint, sample_appearances, shown_triangles
from mannequin.world.assets import Mannequins
from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.dice import Dice
from mannequin.world.layout import MATERIALS
from mannequin.world.raster import rasterize
from mannequin.world.render import Mesh, Picture, Subjects, shade, surface_points
from mannequin.world.world import World, WorldSettings

KINDS = ("plain", "cap", "hat", "hair", "coat", "chair", "held", "curtain", "shelves", "stage", "two")
FIRST_SEED = 3 * 10**12
_FACTOR = 2
"""Samples a pixel's side."""


@dataclass(frozen=True)
class Sample:
    """One clip: `frames` uint8 [n, H, W, 3]; `truth` bool [n, H, W]; `ignored` bool [n, H, W], held things, which belong to
    neither; `kind` of `KINDS`; `stylised`: flat shading, outlines and a large head."""

    frames: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    kind: str
    stylised: bool


class _Prop:
    """A mesh: vertices [N, v, 3] in metres, triangles [t, 3], one colour [3]; `part` 1 person, 2 scene, 3 ignored."""

    def __init__(self, vertices: Tensor, triangles: Tensor, colour: Tensor, part: int) -> None:
        self.vertices, self.triangles, self.colour, self.part = vertices, triangles, colour, part


def render_clip(people: Mannequins, number: int, kind: str, stylised: bool, frames: int, side: int) -> Sample:
    """Draw one clip of held-out bodies, `side` pixels square. The number decides everything."""
    world = _Dressed(people, kind, stylised, FIRST_SEED + number)
    batch = world.sample_batch(1, frames, side, side, FIRST_SEED + number, held_out=True)
    truth, ignored = world.truth, world.ignored
    return Sample(batch.video[0].numpy(), truth.numpy(), ignored.numpy(), kind, stylised)


class _Dressed(World):
    def __init__(self, people: Mannequins, kind: str, stylised: bool, seed: int) -> None:
        full = kind in ("chair", "coat")
        framings = (0.8, 0.2, 0.0, 0.0) if full else (0.3, 0.25, 0.45, 0.0)
        super().__init__(people, WorldSettings(replacement=0.0, disturb=False, supersample=1, framings=framings))
        self.kind, self.stylised = kind, stylised
        self.dice = Dice(1, torch.Generator(people.device).manual_seed(seed + 7))
        self.truth = self.ignored = torch.zeros(0)

    def _draw(self, posed: Posed, camera: Camera, subjects: Subjects, height: int, width: int) -> Picture:
        if len(self.truth):  # portrait and face crops are of no use here
            return super()._draw(posed, camera, subjects, height, width)
        look = subjects.appearance.clone()
        if self.kind in ("hair", "coat"):
            changes = (
                {"long_hair": 1.0, "hair_end": 0.36, "bald": 0.0, "cap": 0.02}
                if self.kind == "hair"
                else {"skirt": 1.0, "skirt_end": 1.1, "sleeve": 1.93, "top_loose": 0.016, "hem": 0.2}
            )
            for name, value in changes.items():
                look[:, COLUMNS[name]] = value
            if self.kind == "coat":
                for name in ("a", "b", "kind", "period", "angle", "phase", "duty", "second"):
                    look[:, COLUMNS[f"bottom_{name}"]] = look[:, COLUMNS[f"top_{name}"]]
        subjects = Subjects(subjects.owner, look, subjects.light)
        vertices = posed.vertices
        if self.stylised:
            vertices = self._big_head(posed)
        props = self._props(posed, look, 1.5 if self.stylised else 1.0)
        colour, part = self._paint(vertices, posed.normals, props, camera, subjects, height, width)
        alpha = (part > 0).float()
        if self.kind == "two":
            colour, part, alpha = self._with_other(colour, part, camera, subjects, height, width, posed)
        if self.kind in ("curtain", "shelves", "stage"):
            behind = _strong(self.dice, self.kind, height * _FACTOR, width * _FACTOR)
            colour, alpha = colour + behind * (1 - alpha).unsqueeze(-1), torch.ones_like(alpha)
        small = avg_pool2d(torch.cat([colour, alpha.unsqueeze(-1)], -1).permute(0, 3, 1, 2), _FACTOR).permute(
            0, 2, 3, 1
        )
        self.truth = avg_pool2d((part == 1).float().unsqueeze(1), _FACTOR)[:, 0] > 0.5
        self.ignored = avg_pool2d((part == 3).float().unsqueeze(1), _FACTOR)[:, 0] > 0.1
        return Picture(small[..., :3], small[..., 3], torch.zeros_like(small[..., 0], dtype=torch.uint8))

    def _big_head(self, posed: Posed) -> Tensor:
        """Vertices with the head 1.5 times as large, about the neck."""
        z, arm = self.people.fields[:, 2], self.people.fields[:, 3]
        amount = ((z - 0.57) / 0.05).clamp(0, 1) * (arm < -0.2)
        neck = posed.keypoints[:, [5, 6]].mean(1, keepdim=True) * 0.35 + posed.keypoints[:, 31:32] * 0.65
        return posed.vertices + (posed.vertices - neck) * 0.5 * amount.unsqueeze(-1)

    def _props(self, posed: Posed, look: Tensor, head: float) -> list[_Prop]:
        k = posed.keypoints
        colour = self.dice.colour()[0]
        props: list[_Prop] = []
        ears, chin = k[:, [3, 4]], k[:, 31]
        middle = ears.mean(1)
        if head != 1:
            neck = k[:, [5, 6]].mean(1) * 0.35 + chin * 0.65
            middle, chin = (p + (p - neck) * 0.5 for p in (middle, chin))
        across = normalize(ears[:, 0] - ears[:, 1], dim=-1)
        forward = normalize(posed.head_forward, dim=-1)
        up = normalize(torch.cross(forward, across, dim=-1), dim=-1)
        up = up * torch.sign((up * (middle - chin)).sum(-1, keepdim=True))
        axes = torch.stack([across, forward, up], dim=1)  # rows
        if self.kind in ("cap", "hat"):
            centre = middle + up * 0.075 * head
            dome, faces = _dome(0.098 * head, 0.118 * head, 0.085 * head if self.kind == "cap" else 0.12 * head)
            props.append(_Prop(centre.unsqueeze(1) + dome @ axes, faces, colour, 1))
            brim, faces = _disc(0.19 * head, 0.22 * head, half=self.kind == "cap")
            props.append(_Prop(centre.unsqueeze(1) + brim @ axes, faces, colour * 0.8, 1))
        if self.kind == "held":
            hand = k[:, 91:112].mean(1)
            along = normalize(k[:, 91 + 9] - k[:, 91], dim=-1)
            side = normalize(torch.cross(along, along.new_tensor([[0.0, 1.0, 0.0]]).expand_as(along), dim=-1), dim=-1)
            frame = torch.stack([side, torch.cross(along, side, dim=-1), along], dim=1)
            box, faces = _box(0.015, 0.015, 0.35)
            props.append(_Prop((hand + along * 0.25).unsqueeze(1) + box @ frame, faces, colour, 3))
            ball, faces = _dome(0.11, 0.02, 0.14)
            props.append(_Prop((hand + along * 0.62).unsqueeze(1) + ball @ frame, faces, self.dice.colour()[0], 3))
        if self.kind == "chair":
            hips = k[:, [11, 12]].mean(1).mean(0, keepdim=True)  # it stands still
            for size, at in (((0.26, 0.03, 0.34), (0.1, 0.32, 0.12)), ((0.26, 0.24, 0.03), (0.1, 0.1, -0.28))):
                box, faces = _box(*size)
                place = (hips + hips.new_tensor([at])).unsqueeze(1) + box
                props.append(_Prop(place.expand(len(k), -1, -1), faces, colour, 2))
        return props

    def _paint(
        self, vertices: Tensor, normals: Tensor, props: list[_Prop], camera: Camera, subjects: Subjects, height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Premultiplied colour [N, h, w, 3] and part [N, h, w] at `_FACTOR` times the size."""
        people, (h, w) = self.people, (height * _FACTOR, width * _FACTOR)
        view = camera.scaled(_FACTOR)
        screens, triangles, offset = [view.project(vertices)], [people.triangles], vertices.shape[1]
        for prop in props:
            screens.append(view.project(prop.vertices))
            triangles.append(prop.triangles + offset)
            offset += prop.vertices.shape[1]
        mesh = Mesh(screens[0], normals, people.triangles, people.material, people.fields, camera.rotation[:, 2])
        body, count = len(people.triangles), sum(len(p.triangles) for p in props)
        shown = shown_triangles(people, subjects.appearance)[subjects.owner]
        shown = torch.cat([shown, shown.new_ones(len(shown), count)], dim=1)
        sided = torch.cat([people.material >= MATERIALS["lash"], shown.new_ones(count)])
        hit = rasterize(torch.cat(screens, 1), torch.cat(triangles), sided, shown, h, w).long()
        colour, part = torch.zeros(*hit.shape, 3), torch.zeros_like(hit)
        here = ((hit.view(-1) >= 0) & (hit.view(-1) < body)).nonzero().squeeze(1)
        which, fields, normal = surface_points(here, hit.view(-1)[here], h, w, mesh)
        owner = subjects.owner[which]
        paints, region, gloss = paint(subjects.appearance[owner], fields, people.material[hit.view(-1)[here]])
        regions = torch.zeros_like(hit)
        regions.view(-1)[here] = region.long() + 1
        colour.view(-1, 3)[here] = self._shaded(paints, normal, which, camera, subjects, gloss)
        part.view(-1)[here] = 1
        first = body
        for number, prop in enumerate(props):
            mine = (hit >= first) & (hit < first + len(prop.triangles))
            at = mine.view(-1).nonzero().squeeze(1)
            which = at // (h * w)
            corners = prop.vertices[which.unsqueeze(1), prop.triangles[hit.view(-1)[at] - first]]
            normal = normalize(
                torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1), dim=-1
            )
            paints = prop.colour.expand(len(at), 3)
            colour.view(-1, 3)[at] = self._shaded(paints, normal, which, camera, subjects, torch.full((len(at),), 0.1))
            part[mine], regions[mine] = prop.part, 20 + number
            first += len(prop.triangles)
        if self.stylised:
            number = regions.float().unsqueeze(1)
            edge = (max_pool2d(number, 3, 1, 1) != -max_pool2d(-number, 3, 1, 1))[:, 0] & (part > 0)
            colour = torch.where(edge.unsqueeze(-1), colour * 0.15, colour)
        return colour, part

    def _shaded(
        self, paints: Tensor, normal: Tensor, view: Tensor, camera: Camera, subjects: Subjects, gloss: Tensor
    ) -> Tensor:
        towards, light = -camera.rotation[:, 2][view], subjects.light[subjects.owner[view]]
        if not self.stylised:
            return shade(paints, normal, towards, light, gloss)
        facing = (normal * towards).sum(-1, keepdim=True)
        normal = torch.where(facing < 0, normal - 2 * facing * towards, normal)
        steps = torch.where((normal * light[:, :3]).sum(-1, keepdim=True) > 0.25, 1.05, 0.72)
        grey = paints.mean(-1, keepdim=True)
        return ((grey + (paints - grey) * 1.4) * steps).clamp(0, 1)

    def _with_other(
        self, colour: Tensor, part: Tensor, camera: Camera, subjects: Subjects, height: int, width: int, posed: Posed
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A second person beside and a little behind the performer, often touching it."""
        look = sample_appearances(self.dice)
        body = self.dice.integer(self.people.trained, len(self.people.rest))
        pose, face = self._still(len(posed.vertices))
        other = self._pose(body, look, pose, face)
        hips = posed.keypoints[:, [11, 12]].mean(1, keepdim=True).mean(0, keepdim=True)
        own = other.keypoints[:, [11, 12]].mean(1, keepdim=True).mean(0, keepdim=True)
        side = 1.0 if float(self.dice.uniform(0, 1)) > 0.5 else -1.0
        shift = (hips - own) * hips.new_tensor([1.0, 1.0, 0.0]) + hips.new_tensor([side * 0.52, 0.15, 0.0])
        behind, cover = self._paint(
            other.vertices + shift,
            other.normals,
            [],
            camera,
            Subjects(subjects.owner, look, subjects.light),
            height,
            width,
        )
        front = (part > 0).unsqueeze(-1)
        colour = torch.where(front, colour, behind)
        return colour, part, ((part > 0) | (cover > 0)).float()

    def _still(self, frames: int) -> tuple[Tensor, Tensor]:
        from mannequin.world.motion import sample_motion

        pose, face = sample_motion(self.dice, torch.zeros(1, 1), calm=True)
        return pose.expand(-1, frames, -1).contiguous(), face.expand(-1, frames, -1).contiguous()


def _dome(wide: float, deep: float, high: float) -> tuple[Tensor, Tensor]:
    """Half an ellipsoid, open below: vertices [v, 3] across, forward, up; triangles [t, 3]."""
    rings, parts = 6, 20
    points = [
        (wide * math.cos(a) * math.cos(b), deep * math.cos(a) * math.sin(b), high * math.sin(a))
        for a in (i * math.pi / 2 / rings for i in range(rings + 1))
        for b in (j * 2 * math.pi / parts for j in range(parts))
    ]
    return torch.tensor(points), _grid(rings, parts)


def _disc(wide: float, deep: float, half: bool) -> tuple[Tensor, Tensor]:
    """A flat brim around a head, or only its front half."""
    parts = 20
    start, stop = (0.0, math.pi) if half else (0.0, 2 * math.pi)
    angles = [start + (stop - start) * j / (parts - 1) for j in range(parts)]
    points = [(wide * r * math.cos(b), deep * r * math.sin(b), -0.01 * r) for r in (0.3, 0.65, 1.0) for b in angles]
    return torch.tensor(points), _grid(2, parts, closed=False)


def _grid(rings: int, parts: int, closed: bool = True) -> Tensor:
    faces = []
    for i in range(rings):
        for j in range(parts if closed else parts - 1):
            a, b = i * parts + j, i * parts + (j + 1) % parts
            faces += [(a, b, a + parts), (b, b + parts, a + parts)]
    return torch.tensor(faces)


def _box(x: float, y: float, z: float) -> tuple[Tensor, Tensor]:
    """A box of these half sides."""
    points = [(a * x, b * y, c * z) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    sides = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    return torch.tensor(points), torch.tensor([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])


def _strong(dice: Dice, kind: str, height: int, width: int) -> Tensor:
    """A strong background [1, h, w, 3]: a saturated curtain with folds, full shelves, or a stage with beams of light."""
    y = torch.linspace(0, 1, height).view(1, -1, 1).expand(1, height, width)
    x = torch.linspace(0, 1, width).view(1, 1, -1).expand(1, height, width)
    hues = torch.tensor([[0.75, 0.05, 0.08], [0.1, 0.15, 0.6], [0.05, 0.45, 0.2], [0.8, 0.55, 0.05]])
    colour = hues[dice.integer(0, 4)].view(1, 1, 1, 3)
    if kind == "curtain":
        turns = dice.uniform(50, 110).view(1, 1, 1)
        folds = torch.sin(x * turns + 1.2 * torch.sin(x * 17 + 2 * y)) * 0.5 + 0.5
        return (colour * (0.35 + 0.65 * folds).unsqueeze(-1) * (1.1 - 0.3 * y).unsqueeze(-1)).clamp(0, 1)
    if kind == "stage":
        out = colour * 0.25 * torch.ones(1, height, width, 1)
        for _ in range(4):
            foot, lean = float(dice.uniform(0, 1)), float(dice.uniform(-0.6, 0.6))
            beam = torch.exp(-(((x - foot - lean * (1 - y)) / (0.03 + 0.12 * y)) ** 2))
            out = out + beam.unsqueeze(-1) * (0.3 + 0.7 * dice.colour().view(1, 1, 1, 3)) * 0.8
        return out.clamp(0, 1)
    out = colour * 0.3 * torch.ones(1, height, width, 1)
    for row in range(6):
        at = 0.0
        while at < 1:
            wide, high = float(dice.uniform(0.015, 0.06)), float(dice.uniform(0.09, 0.15))
            low = (row + 1) / 6
            inside = (x >= at) & (x < at + wide * 0.92) & (y > low - high) & (y < low - 0.012)
            out = torch.where(inside.unsqueeze(-1), dice.colour().view(1, 1, 1, 3).clamp(0.05, 1), out)
            at += wide
    return out.clamp(0, 1)
