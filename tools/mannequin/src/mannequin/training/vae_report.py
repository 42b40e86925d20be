"""What a VAE keeps of people it never saw: PSNR of whole pictures, faces and hands, and a sheet of pairs.

Its reconstruction is the ceiling of everything that is trained on its latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mannequin.options import REQUIRED, option
from mannequin.training.clip_latents import to_video
from mannequin.training.pictures import write_rows
from mannequin.training.run import CUDA
from mannequin.training.vae import load_trained_vae
from mannequin.world.assets import load
from mannequin.world.world import World, WorldBatch, WorldSettings
from wanimate.model.vae import VideoVae

SEED = 77
ENLARGED = 192
"""Side of an enlarged face on the sheet."""


@dataclass(frozen=True)
class HeldOut:
    """Clips of people that no training sees."""

    clips: int = option(8, "clips")
    frames: int = option(17, "frames of a clip, 4n+1")
    side: int = option(256, "width and height of the pictures")
    near: float = option(1.0, "share of clips from head and shoulders to waist-up")

    def draw(self, device: torch.device, part: int = 0, count: int | None = None) -> WorldBatch:
        """Part number `part` of the clips, `count` of them."""
        world = World(load(device=device), WorldSettings(replacement=0.0, disturb=False, near=self.near, face_size=16))
        count = self.clips if count is None else count
        return world.sample_batch(count, self.frames, self.side, self.side, SEED + part, held_out=True)


@dataclass(frozen=True)
class VaeReport:
    vae: Path = option(REQUIRED, "folder of the VAE's training, or a checkpoint folder")
    out: Path = option(REQUIRED, "picture to write: true frames and faces above, decoded ones below")
    device: str = option("cuda" if CUDA else "cpu", "cuda or cpu")


def report_vae(job: VaeReport, held_out: HeldOut) -> dict[str, float]:
    """Print PSNR on held-out people and of their skeletons, and write a picture of some."""
    where = torch.device(job.device)
    codec = load_trained_vae(job.vae, where)
    batch = held_out.draw(where)
    true, places = to_video(batch.video), detail_masks(batch)
    decoded = through(codec, true)
    numbers = {
        "picture": psnr(decoded, true, torch.ones_like(places["face"])),
        **{name: psnr(decoded, true, mask) for name, mask in places.items()},
        "skeleton": psnr(through(codec, to_video(batch.skeleton)), to_video(batch.skeleton), places["all"]),
    }
    numbers.pop("all")
    print(", ".join(f"{name} {value:.2f} dB" for name, value in numbers.items()), f"({held_out})", flush=True)
    rows = []
    for t in (0, held_out.frames // 2, held_out.frames - 1):
        box = batch.face_box[:, t]
        for video in (true, decoded):
            whole = F.interpolate(video[:, :, t], size=(ENLARGED, ENLARGED), mode="area")
            rows.append(torch.cat((whole, enlarged(video[:, :, t], box)), dim=-1))
    write_rows([row[:8] for row in rows], job.out)
    return numbers


@torch.no_grad()
def through(codec: VideoVae, video: Tensor) -> Tensor:
    """[n, 3, K, H, W] as the VAE gives it back, in -1..1."""
    return torch.cat([codec.decode(codec.encode(v[None], 2), 2) for v in video]).float().clamp(-1, 1)


def detail_masks(batch: WorldBatch) -> dict[str, Tensor]:
    """Where the boxes of the faces and of the hands in the picture are, bool [n, 1, K, H, W], and `all`."""
    height, width = batch.cover.shape[2:]
    face = _boxes(batch.face_box, height, width)
    hands = torch.zeros_like(face)
    for start in (91, 112):
        points = batch.keypoints[:, :, start : start + 21]
        low, high = points[..., :2].amin(2), points[..., :2].amax(2)
        seen = points[..., 2].mean(2) > 0.5
        hands |= _boxes(torch.cat((low, high), dim=-1), height, width) & seen.view(*seen.shape, 1, 1)[:, None]
    return {"face": face, "hands": hands, "all": torch.ones_like(face)}


def _boxes(box: Tensor, height: int, width: int) -> Tensor:
    """Pixels in boxes [n, K, 4], bool [n, 1, K, H, W]."""
    x, y = (torch.arange(size, device=box.device) + 0.5 for size in (width, height))
    x0, y0, x1, y1 = box[..., None].unbind(2)
    return (((y >= y0) & (y < y1))[..., None] & ((x >= x0) & (x < x1))[..., None, :])[:, None]


def psnr(decoded: Tensor, true: Tensor, where: Tensor) -> float:
    """dB of pixels `where`, mean over the clips that have some."""
    error = ((decoded - true).square().mean(1, keepdim=True) * where).flatten(1).sum(1)
    count = where.flatten(1).sum(1)
    values = -10 * torch.log10((error / count.clamp_min(1) / 4).clamp_min(1e-10))
    return values[count > 0].mean().item()


def enlarged(frames: Tensor, box: Tensor) -> Tensor:
    """Faces [n, 3, ENLARGED, ENLARGED] cut from frames [n, 3, H, W], half a face more around boxes [n, 4]."""
    height, width = frames.shape[2:]
    size = frames.new_tensor([width, height])
    middle, reach = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).amax(1, keepdim=True) * 0.75
    place = (torch.arange(ENLARGED, device=box.device) + 0.5) / ENLARGED * 2 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)
    at = (middle.view(-1, 1, 1, 2) + grid * reach.view(-1, 1, 1, 1)) / size * 2 - 1
    return F.grid_sample(frames, at, padding_mode="border", align_corners=False)
