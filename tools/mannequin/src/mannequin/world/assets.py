"""The exported arrays on a device, and where to find them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wanimate.errors import InputError

ENVIRONMENT = "WANIMATE_MANNEQUINS"
DEFAULT_PATH = Path("build/mannequins.npz")


def assets_path() -> Path:
    """The exported file: the environment variable `WANIMATE_MANNEQUINS`, else build/mannequins.npz."""
    return Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)


@dataclass(frozen=True)
class Mannequins:
    """Bodies, mesh and bones as tensors of one device. Metres; x to the body's left, y to its back, z up.

    Letters: B bodies, V vertices, T triangles, J bones, E expression shapes, M vertices that expressions move.
    rest, normals: [B, V, 3]; joints: [B, J, 3]; skin: [V, J]; triangles: [T, 3]; material: [T] (`layout.MATERIALS`);
    fields: [V, 8] (`layout.FIELDS`); moved: [M]; expressions: [E, M, 3]; key_rest: [B, 133, 3]; key_skin: [133, J];
    key_expressions: [E, 133, 3]; levels: (children, parents) of each generation of the bone tree, roots left out.
    clips: [C, frames, len(body.DOF)] recorded motion at `clips.RATE`, clip_lengths: [C]; C may be 0.
    """

    rest: Tensor
    normals: Tensor
    joints: Tensor
    skin: Tensor
    triangles: Tensor
    material: Tensor
    fields: Tensor
    moved: Tensor
    expressions: Tensor
    key_rest: Tensor
    key_skin: Tensor
    key_expressions: Tensor
    levels: tuple[tuple[Tensor, Tensor], ...]
    bones: tuple[str, ...]
    held_out: int
    clips: Tensor
    clip_lengths: Tensor

    @property
    def device(self) -> torch.device:
        return self.rest.device

    @property
    def trained(self) -> int:
        """Bodies 0..trained-1 may be used for training, the rest are held out."""
        return len(self.rest) - self.held_out

    def bone(self, name: str) -> int:
        return self.bones.index(name)

    def __str__(self) -> str:
        return f"Mannequins({len(self.rest)} bodies, {self.rest.shape[1]} vertices, {len(self.triangles)} triangles)"


def vertex_normals(points: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals of vertices, area-weighted over their triangles: [..., V, 3] from [..., V, 3] and [T, 3]."""
    corners = points[..., triangles, :]
    face = torch.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :], dim=-1)
    total = torch.zeros_like(points)
    for corner in range(3):
        total.index_add_(points.ndim - 2, triangles[:, corner], face)
    return torch.nn.functional.normalize(total, dim=-1)


def load(
    path: Path | None = None, device: torch.device | str = "cpu", full: bool = False, bodies: int | None = None
) -> Mannequins:
    """Read the exported arrays.

    Args:
        path: the .npz; None asks `assets_path`. full: every triangle, else the light mesh for training.
        bodies: take only this many bodies, half of them held out (for tests); None takes all.

    Raises:
        InputError: the file is not there.
    """
    path = path or assets_path()
    if not path.is_file():
        rule, remedy = "no such file", "Write it with: python -m mannequin.export"
        raise InputError("mannequins", path, rule, remedy)
    with np.load(path) as stored:
        a = {name: stored[name] for name in stored.files}
    note = json.loads(a.pop("note").tobytes().decode())
    held_out = int(note["held_out"])
    count = len(a["rest"])
    chosen = np.arange(count)
    if bodies is not None:
        held_out = bodies // 2
        chosen = np.concatenate([np.arange(bodies - held_out), np.arange(count - held_out, count)])
    triangles = a["triangles" if full else "small_triangles"].astype(np.int64)
    material = a["material" if full else "small_material"]
    used = np.unique(triangles)
    renumber = np.full(a["rest"].shape[1], -1, dtype=np.int64)
    renumber[used] = np.arange(len(used))
    moved = renumber[a["moved"]]

    def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

    rest = tensor(a["rest"][chosen][:, used]) * float(note["quantum"])
    corner = tensor(renumber[triangles], torch.int64)
    skin = tensor(a["skin"][used])
    depth: dict[int, int] = {}
    parents = [int(p) for p in a["parents"]]
    for child, parent in enumerate(parents):
        depth[child] = depth[parent] + 1 if parent >= 0 else 0
    levels = []
    for level in range(1, max(depth.values()) + 1):
        children = [c for c in depth if depth[c] == level]
        pair = (children, [parents[c] for c in children])
        levels.append((torch.tensor(pair[0], device=device), torch.tensor(pair[1], device=device)))
    return Mannequins(
        rest=rest,
        normals=vertex_normals(rest, corner),
        joints=tensor(a["joints"][chosen]),
        skin=skin / skin.sum(1, keepdim=True),
        triangles=corner,
        material=tensor(material, torch.int64),
        fields=tensor(a["fields"][used]),
        moved=tensor(moved[moved >= 0], torch.int64),
        expressions=tensor(a["expressions"][:, moved >= 0]),
        key_rest=tensor(a["keypoint_rest"][chosen]),
        key_skin=tensor(a["keypoint_skin"]),
        key_expressions=tensor(a["keypoint_expressions"]),
        levels=tuple(levels),
        bones=tuple(note["bones"]),
        held_out=held_out,
        clips=tensor(a.get("clips", np.zeros((0, 1, 1)))),
        clip_lengths=tensor(a.get("clip_lengths", np.zeros(0)), torch.int64),
    )
