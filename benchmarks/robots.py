"""Robots in the mannequin world: an appearance that no checkpoint was trained on.

The bodies, motions, cameras and lights are the world's own; limbs are boxes with rubber joints, surfaces are metal that mirrors
its surroundings, and a visor with a strip of light stands where a face would be. Nothing in the package draws them.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import patch

import torch
from animation import RecordingWorld
from torch import Tensor
from torch.nn.functional import normalize

from mannequin.world import render as rendering
from mannequin.world.appearance import COLUMNS, REGIONS
from mannequin.world.assets import Mannequins, vertex_normals
from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.layout import MATERIALS
from mannequin.world.render import Mesh, Picture, Subjects

BARE = ("skirt", "long_hair")
"""What a robot's appearance has none of."""


class RobotWorld(RecordingWorld):
    """Draws robots; the performer whose face is cut out in `_faces` stays a person."""

    human = False

    def _pose(self, body: Tensor, appearance: Tensor, pose: Tensor, expression: Tensor) -> Posed:
        if self.human:
            return super()._pose(body, appearance, pose, expression)
        frames = pose.shape[1]
        with patch("mannequin.world.world.push_out", lambda people, appearance: boxes(people, body)):
            posed = super()._pose(body, appearance, pose, expression * 0)
        assert len(posed.vertices) == len(body) * frames
        return dataclasses.replace(posed, normals=vertex_normals(posed.vertices, self.people.triangles))

    def _draw(self, posed: Posed, camera: Camera, subjects: Subjects, height: int, width: int) -> Picture:
        if self.human:
            return super()._draw(posed, camera, subjects, height, width)
        bare = subjects.appearance.clone()
        for name in BARE:
            bare[:, COLUMNS[name]] = 0
        with patch.object(rendering, "surface", robot_surface):
            return super()._draw(posed, camera, subjects._replace(appearance=bare), height, width)

    def _faces(self, *given: Any) -> tuple[Tensor, Tensor]:
        before, self.human = self.human, True
        try:
            return super()._faces(*given)
        finally:
            self.human = before


def boxes(people: Mannequins, body: Tensor) -> Tensor:
    """How far to move vertices along their normals for limbs, trunk and head to be boxes, metres, [N, V]."""
    arm, leg, z = people.fields[:, 3], people.fields[:, 4], people.fields[:, 2]
    normal, joints = people.normals[body], people.joints[body]
    upright = normal.new_tensor([0.0, 0.0, 1.0]).expand(len(body), 3)
    push = torch.zeros_like(normal[..., 0])
    left = people.rest[body][..., 0] > 0
    hard = (arm * 2 * torch.pi).cos()  # 1 at the joints, -1 between them
    for side, here in (("L", left), ("R", ~left)):
        along = joints[:, people.bone(f"wrist.{side}")] - joints[:, people.bone(f"upperarm01.{side}")]
        square = _square(normal, normalize(along, dim=-1)) * (0.046 - 0.007 * arm.clamp(0, 2))
        limb = here & (arm > 0.1) & (arm < 1.95)
        push = torch.where(limb, square + 0.006 - 0.012 * hard, push)
    square, bend = _square(normal, upright), (leg * 2 * torch.pi).cos()
    limb = (leg > 0.12) & (leg < 1.9) & (arm < 0)
    push = torch.where(limb, square * (0.075 - 0.018 * leg.clamp(0, 2)) + 0.006 - 0.014 * bend, push)
    trunk = (leg <= 0.12) & (arm <= 0.1) & (z < 0.52)
    push = torch.where(trunk, square * 0.07 + 0.006, push)
    head = (z > 0.63) & (arm < -0.5)
    return torch.where(head, square * 0.07 + 0.004, push)


def _square(normal: Tensor, axis: Tensor) -> Tensor:
    """0 where a normal [N, V, 3] stands on a side of the square around `axis` [N, 3], 0.41 at its corners."""
    first = normal.new_tensor([0.0, 1.0, 0.0]).expand_as(axis)
    first = normalize(first - (first * axis).sum(-1, keepdim=True) * axis, dim=-1)
    second = torch.cross(axis, first, dim=-1)
    a, b = ((normal * e.unsqueeze(1)).sum(-1).abs() for e in (first, second))
    flat = torch.hypot(a, b)
    return (flat / torch.maximum(a, b).clamp_min(1e-4) - 1) * flat.clamp(0, 1)


def robot_surface(
    place: Tensor, hit: Tensor, height: int, width: int, mesh: Mesh, subjects: Subjects
) -> tuple[Tensor, Tensor]:
    """What `render.surface` gives, for metal."""
    view, fields, normal = rendering.surface_points(place, hit, height, width, mesh)
    clip = subjects.owner[view]
    colour, metal, glow, region = metal_paint(subjects.appearance[clip], fields, mesh.material[hit])
    return metal_shade(colour, metal, glow, normal, -mesh.towards[view], subjects.light[clip]), region


def metal_paint(appearance: Tensor, fields: Tensor, material: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [P, 3], how far it is metal [P], light of its own [P, 3] and region [P] of surface points."""
    x, y, z, arm, leg = (fields[:, i] for i in range(5))

    def get(name: str) -> Tensor:
        return appearance[:, COLUMNS[name]]

    paint = get("top_a")
    steel = (0.55 + 0.3 * get("top_phase") / (2 * torch.pi)) * (0.85 + 0.15 * paint)
    accent = 0.25 * steel + 0.75 * paint
    rubber = torch.full_like(steel, 0.07)
    side = x.abs()
    plate = (z > 0.2) & (z < 0.46) & (side < 0.15) & (arm < 0.05) & (y < 0)
    plates = plate | ((arm > 0.12) & (arm < 0.45)) | ((leg > 1.25) & (leg < 1.75))
    colour = torch.where(plates.unsqueeze(-1), accent, steel)
    seams = ((z * 12) % 1 < 0.08) & (arm < 0.05) & (leg < 0.1)
    joints = ((arm - 1).abs() < 0.1) | ((arm - 2).abs() < 0.08) | ((arm > 0) & (arm < 0.07))
    joints |= ((leg - 1).abs() < 0.1) | ((leg - 1.93).abs() < 0.06) | ((leg > 0.0) & (leg < 0.1) & (arm < 0))
    joints |= (z > 0.545) & (z < 0.615) & (arm < -0.5)
    head = (z > 0.60) & (arm < -0.5)
    visor = head & (y < -0.02) & (z > 0.695) & (z < 0.765)
    grille = head & (y < -0.08) & (z > 0.645) & (z < 0.675) & (side < 0.035) & ((x * 90) % 1 < 0.5)
    inner = (material != MATERIALS["body"]) & (material < MATERIALS["hair"])  # eyes, mouth: behind the visor
    dark = seams | joints | visor | grille | inner
    colour = torch.where(dark.unsqueeze(-1), rubber, colour)
    metal = torch.where(joints | grille, 0.15, torch.where(visor | inner, 0.6, 1.0))
    lit = (visor | inner) & ((z - 0.729).abs() < 0.012) & (side < 0.062)
    glow = torch.where(lit.unsqueeze(-1), 0.35 + 0.65 * paint, torch.zeros_like(colour))
    region = torch.where(head, REGIONS["face"], torch.full_like(material, REGIONS["top"]))
    return colour, metal, glow, region


def metal_shade(colour: Tensor, metal: Tensor, glow: Tensor, normal: Tensor, towards: Tensor, light: Tensor) -> Tensor:
    """Metal mirrors a bright sky, a dark horizon and a dim floor, and the light as a small spot: colours [P, 3] in 0..1."""
    facing = (normal * towards).sum(-1, keepdim=True)
    normal = torch.where(facing < 0, normal - 2 * facing * towards, normal)
    facing = facing.abs().clamp(0, 1)
    direction, strength, ambient = light[:, :3], light[:, 3:6], light[:, 6:9]
    mirrored = normalize(2 * facing * normal - towards, dim=-1)
    up = mirrored[:, 2:3]
    sky = 0.35 + 1.0 * torch.sigmoid((up - 0.08) * 14) - 0.3 * torch.exp(-(((up + 0.05) / 0.12) ** 2))
    lambert = ((normal * direction).sum(-1, keepdim=True) * 0.8 + 0.2).clamp(0, 1)
    spot = (mirrored * direction).sum(-1, keepdim=True).clamp(0, 1)
    metal = metal.unsqueeze(-1)
    matt = colour * (ambient + strength * lambert)
    mirror = colour * (ambient * sky * 1.1 + strength * (0.45 * lambert + 0.5 * sky))
    mirror = mirror + strength * (0.9 * spot**40 + 0.25 * spot**6) * (0.4 + 0.6 * colour)
    mirror = mirror + ambient * (1 - facing) ** 4 * 0.4
    return (matt * (1 - metal) + mirror * 0.85 * metal + glow).clamp(0, 1)
