"""sRGB and CIE L*a*b* (white D65), on tensors whose first dimension has the three channels."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)


def to_lab(rgb: Tensor) -> Tensor:
    """[3, ...] in [0, 1] -> L* in [0, 100], a* and b*."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,j...->i...", _matrix(rgb), linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)))


def from_lab(lab: Tensor) -> Tensor:
    """L*a*b* [3, ...] -> [0, 1]; what no sRGB colour has is cut off."""
    y = (lab[0] + 16) / 116
    xyz = torch.stack((y + lab[1] / 500, y, y - lab[2] / 200))
    xyz = torch.where(xyz > 0.206893, xyz**3, (xyz - 16 / 116) / 7.787)
    linear = torch.einsum("ij,j...->i...", _matrix(lab, inverse=True), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _matrix(like: Tensor, inverse: bool = False) -> Tensor:
    """From linear RGB to X, Y and Z, each as a share of the white's."""
    matrix = torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]
    return (torch.linalg.inv(matrix) if inverse else matrix).to(like)
