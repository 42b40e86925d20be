"""Pinhole cameras for batches of views, and framings of a standing person."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """N cameras: world (z up) to pixels. rotation: [N, 3, 3] rows right, down, forward; eye: [N, 3]; focal and centre in
    pixels, [N, 2] each (x, y)."""

    rotation: Tensor
    eye: Tensor
    focal: Tensor
    centre: Tensor

    def project(self, points: Tensor) -> Tensor:
        """[N, P, 3] metres to x, y in pixels and 1/depth, [N, P, 3]; depth is clamped away from 0."""
        local = (points - self.eye.unsqueeze(1)) @ self.rotation.mT
        depth = local[..., 2]
        inverse = 1 / torch.where(depth.abs() < 1e-3, torch.full_like(depth, 1e-3), depth)
        plane = local[..., :2] * inverse.unsqueeze(-1) * self.focal.unsqueeze(1) + self.centre.unsqueeze(1)
        return torch.cat([plane, inverse.unsqueeze(-1)], dim=-1)

    def cropped(self, box: Tensor, width: int, height: int) -> Camera:
        """The same view of a part of the picture, box [N, 4] = x0, y0, x1, y1 pixels, drawn at width x height."""
        size = torch.stack([box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]], dim=-1).clamp_min(1e-3)
        scale = box.new_tensor([width, height]) / size
        return replace(self, focal=self.focal * scale, centre=(self.centre - box[:, :2]) * scale)

    def scaled(self, factor: float) -> Camera:
        return replace(self, focal=self.focal * factor, centre=self.centre * factor)


def look_at(
    target: Tensor, distance: Tensor, pitch: Tensor, yaw: Tensor, roll: Tensor, focal: Tensor, centre: Tensor
) -> Camera:
    """Cameras around `target` [N, 3]: in front (towards -y) at yaw 0, above it for pitch > 0; all angles [N]."""
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    forward = torch.stack(
        [-torch.sin(yaw) * torch.cos(pitch), torch.cos(yaw) * torch.cos(pitch), -torch.sin(pitch)], -1
    )
    right = torch.stack([torch.cos(yaw), torch.sin(yaw), zero], -1)
    down = torch.cross(forward, right, dim=-1)
    c, s = torch.cos(roll).unsqueeze(-1), torch.sin(roll).unsqueeze(-1)
    right, down = c * right + s * down, c * down - s * right
    rotation = torch.stack([right, down, forward], dim=1)
    eye = target - forward * distance.unsqueeze(-1)
    return Camera(rotation, eye, focal.unsqueeze(-1) * torch.stack([one, one], -1), centre)


def chosen(where: Tensor, first: Camera, second: Camera) -> Camera:
    """`first` where `where` [N] is True, else `second`."""
    pairs = ((getattr(first, name), getattr(second, name)) for name in ("rotation", "eye", "focal", "centre"))
    return Camera(*(torch.where(where.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))
