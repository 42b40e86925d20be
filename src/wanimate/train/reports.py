"""What a training made, to be looked at: reconstructions, generated clips, PSNR against renders of held-out people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import torch
import typer

from wanimate.config import Defaults
from wanimate.model.params import VaeParams
from wanimate.model.vae import VideoVae
from wanimate.train import flow, latents
from wanimate.train.common import Device, default_device, load_state
from wanimate.train.mannequins.assets import load
from wanimate.train.mannequins.world import World, WorldSettings
from wanimate.train.networks import VAE
from wanimate.train.pool import SIZES


def load_trained_vae(folder: Path, device: torch.device) -> VideoVae:
    """The VAE of a checkpoint folder, or what a training run left in `folder` with its own latent statistics."""
    if (folder / "vae.safetensors").is_file():
        from wanimate.weights.checkpoint import load_vae, read_card
        from wanimate.weights.formats import read_tensors

        return load_vae(read_tensors(folder / "vae.safetensors"), read_card(folder)[1], folder).to(device)
    numbers = load_state(folder / "statistics.pt")
    params: VaeParams = replace(VAE, mean=tuple(numbers["mean"]), std=tuple(numbers["std"]))
    model = VideoVae(params)
    model.load_state_dict(load_state(folder / "vae.pt"))
    return model.to(device).eval().requires_grad_(False)


def vae_report(
    vae: Annotated[Path, typer.Option(help="Folder of the VAE's training.")],
    out: Annotated[Path, typer.Option(help="Picture to write: clips above, their reconstruction below.")],
    clips: int = 8,
    frames: int = 17,
    device: Device = default_device(),
) -> None:
    """PSNR of reconstructions of held-out people and of their skeletons, and a picture to look at."""
    where = torch.device(device)
    codec = load_trained_vae(vae, where)
    mannequins = World(load(device=where))
    rows: list[torch.Tensor] = []
    for width, height in SIZES:
        batch = mannequins.sample_batch(clips, frames, width, height, 77, held_out=True)
        for name, pixels in (("video", batch.video), ("skeleton", batch.skeleton)):
            video = latents.to_video(pixels)
            with torch.no_grad():
                decoded = torch.cat([codec.decode(codec.encode(v[None], 2), 2) for v in video]).clamp(-1, 1)
            error = (decoded - video).square().mean((1, 2, 3, 4))
            psnr = (-10 * torch.log10(error / 4)).mean().item()
            print(f"{name} {width}x{height}: {psnr:.2f} dB over {clips} clips of {frames} frames", flush=True)
            if (width, height) == SIZES[0]:
                pair = torch.stack((video[:, :, -1], decoded[:, :, -1]))
                rows.append(pair.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2))
    picture = ((torch.cat(rows) + 1) * 127.5).round().byte().cpu().numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), picture[:, :, ::-1])


def sample(
    vae: Annotated[Path, typer.Option(help="Folder of the VAE's training.")],
    transformer: Annotated[Path, typer.Option(help="Folder of the transformer's training.")],
    out: Annotated[Path, typer.Option(help="Picture to write: true frames, skeletons, generated frames.")],
    clips: int = 6,
    frames: int = 33,
    steps: int = 8,
    shift: float = 3.0,
    device: Device = default_device(),
) -> None:
    """Animate held-out people straight from their latents: PSNR against the render, and a picture to look at."""
    where = torch.device(device)
    codec = load_trained_vae(vae, where)
    model = flow.Mannequin().to(where).eval().requires_grad_(False)
    model.load_state_dict(load_state(transformer / "transformer.pt"))
    world = World(load(device=where), WorldSettings(replacement=0.0))
    for width, height in SIZES:
        batch = world.sample_batch(clips, frames, width, height, 99, held_out=True)
        data = latents.encode_batch(codec, batch, torch.Generator("cpu").manual_seed(0), {})
        fresh = latents.LatentClips(**{k: v if k == "face" else v.float() for k, v in vars(data).items()})
        made = flow.sample(model.flow, fresh, Defaults(steps=steps, shift=shift))
        with torch.no_grad():
            decoded = torch.cat([codec.decode(z[None], 2) for z in made]).clamp(-1, 1)
        true = latents.to_video(batch.video)
        cover = (batch.cover[:, None] > 127).expand_as(true)
        error = (decoded - true).square()
        whole, body = error.mean(), error[cover].mean()
        scores = [round(-10 * torch.log10(e / 4).item(), 2) for e in (whole, body)]
        print(f"{width}x{height}: PSNR {scores[0]} dB, on the body {scores[1]} dB", flush=True)
        if (width, height) == SIZES[0]:
            moments = [frames // 4, frames // 2, frames - 1]
            rows = [v[:, :, t] for t in moments for v in (true, latents.to_video(batch.skeleton), decoded)]
            rows = [latents.to_video(batch.reference[:, None])[:, :, 0], *rows]
            picture = torch.stack(rows).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
            out.parent.mkdir(parents=True, exist_ok=True)
            pixels = ((picture + 1) * 127.5).round().byte().cpu().numpy()
            cv2.imwrite(str(out), pixels[:, :, ::-1])
