"""What a training of the transformer made: generated clips, PSNR against renders of held-out people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mannequin.options import REQUIRED, option
from mannequin.training.clip_latents import WorldClips, encode_batch, to_video
from mannequin.training.pictures import write_rows
from mannequin.training.pool import SIZES
from mannequin.training.run import CUDA
from mannequin.training.transformer import Mannequin
from mannequin.training.vae import load_trained_vae
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.config import Defaults
from wanimate.train.common import load_state
from wanimate.train.flow import sample


@dataclass(frozen=True)
class SampleReport:
    vae: Path = option(REQUIRED, "folder of the VAE's training")
    transformer: Path = option(REQUIRED, "folder of the transformer's training")
    out: Path = option(REQUIRED, "picture to write: true frames, skeletons, generated frames")
    clips: int = option(6, "clips of each size")
    frames: int = option(33, "frames of a clip, 4n+1")
    steps: int = option(8, "steps of sampling")
    shift: float = option(3.0, "of their times: the more, the noisier")
    device: str = option("cuda" if CUDA else "cpu", "cuda or cpu")


def report_samples(job: SampleReport) -> None:
    """Print PSNR of clips of held-out people animated from their latents, and write a picture of some."""
    where = torch.device(job.device)
    codec = load_trained_vae(job.vae, where)
    model = Mannequin().to(where).eval().requires_grad_(False)
    model.load_state_dict(load_state(job.transformer / "transformer.pt"))
    size = model.transformer.params.motion.size
    world = World(load(device=where), WorldSettings(face_size=size, replacement=0.0))
    for width, height in SIZES:
        batch = world.sample_batch(job.clips, job.frames, width, height, 99, held_out=True)
        data = encode_batch(codec, batch, torch.Generator("cpu").manual_seed(0), {})
        fresh = WorldClips(**{k: v if k == "face" else v.float() for k, v in vars(data).items()})
        made = sample(model.flow, fresh, Defaults(steps=job.steps, shift=job.shift))
        with torch.no_grad():
            decoded = torch.cat([codec.decode(z[None], 2) for z in made]).clamp(-1, 1)
        true = to_video(batch.video)
        cover = (batch.cover[:, None] > 127).expand_as(true)
        error = (decoded - true).square()
        scores = [round(-10 * torch.log10(e / 4).item(), 2) for e in (error.mean(), error[cover].mean())]
        print(f"{width}x{height}: PSNR {scores[0]} dB, on the body {scores[1]} dB", flush=True)
        if (width, height) == SIZES[0]:
            moments = [job.frames // 4, job.frames // 2, job.frames - 1]
            rows = [v[:, :, t] for t in moments for v in (true, to_video(batch.skeleton), decoded)]
            write_rows([to_video(batch.reference[:, None])[:, :, 0], *rows], job.out)
