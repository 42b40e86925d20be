"""Pictures of what a training made."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def write_rows(rows: list[Tensor], path: Path) -> None:
    """Rows of pictures, [n, 3, H, W] in [-1, 1] each, one under the other."""
    picture = torch.stack(rows).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()).save(path)
