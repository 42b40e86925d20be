"""Train the embedded VAE: single frames first, then whole short clips.

    python -m wanimate.train vae --out build/train/vae

The loss is L1 on pixels and on their differences, plus a small pull of the latents towards unit size against the noise that
is added to them, so that the decoder forgives small errors of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from wanimate.model.vae import RmsNorm, VideoVae
from wanimate.train.common import Budget, Ema, Log, learning_rate, load_state, save_state
from wanimate.train.networks import VAE, initialise_vae
from wanimate.train.pool import ClipPool


@dataclass(frozen=True)
class VaeTraining:
    """`frame_share` of the run trains on single frames. `crop` is the side of the pictures in the first part."""

    steps: int = 20000
    seconds: float = 480.0
    frame_share: float = 0.45
    crop: int = 128
    frame_batch: int = 192
    clip_batch: int = 12
    rate: float = 1e-3
    noise: float = 0.1
    pull: float = 1e-3
    edges: float = 0.5
    refresh: int = 40
    seed: int = 0


def train_vae(config: VaeTraining, pool: ClipPool, out: Path, device: torch.device, resume: bool = False) -> VideoVae:
    """Returns the averaged network; `out` gets state.pt, vae.pt and log.jsonl."""
    torch.manual_seed(config.seed)
    vae = VideoVae(VAE)
    initialise_vae(vae)
    vae.to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.rate, betas=(0.9, 0.98), weight_decay=0.0)
    ema = Ema(vae, 0.998)
    budget = Budget(config.steps, config.seconds)
    if resume:
        state = load_state(out / "state.pt")
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.shadow, ema.count = {k: v.to(device) for k, v in state["ema"].items()}, state["step"]
        budget.step, budget.spent = state["step"], state["spent"]
    if device.type == "cuda":
        fuse_norms(vae)
    log = Log(out / "log.jsonl")
    generator = torch.Generator("cpu").manual_seed(config.seed + budget.step)
    budget.restart_clock()
    while not budget.over:
        if budget.step % config.refresh == 0:
            pool.refresh()
        frames = budget.progress < config.frame_share
        video = (
            pool.frames(config.frame_batch, config.crop, generator)
            if frames
            else pool.clips(config.clip_batch, generator)
        )
        rate = learning_rate(config.rate, budget.step, budget.progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        error, loss = vae_loss(vae, video, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        ema.update(vae)
        budget.tick()
        if budget.step % 100 == 0 or budget.over:
            psnr = -10 * torch.log10(error / 4).item()
            log.write(step=budget.step, seconds=budget.spent, frames=frames, psnr=psnr, loss=loss.item(), rate=rate)
        if budget.step % 1000 == 0 or budget.over:
            save_state(
                out / "state.pt", model=vae.state_dict(), optimizer=optimizer.state_dict(), ema=ema.shadow,
                step=budget.step, spent=budget.spent,
            )  # fmt: skip
    result = VideoVae(VAE).to(device)
    result.load_state_dict(ema.shadow)
    save_state(out / "vae.pt", **{k: v.cpu() for k, v in ema.shadow.items()})
    return result.eval().requires_grad_(False)


def vae_loss(vae: VideoVae, video: Tensor, config: VaeTraining) -> tuple[Tensor, Tensor]:
    """Mean squared error for the log, and the loss. video [B, 3, K, H, W] in [-1, 1]."""
    with torch.autocast(video.device.type, torch.bfloat16):
        latents = vae.encode_piece(video, {})
        noisy = latents + config.noise * torch.randn_like(latents)
        decoded = vae.decoder(vae.conv2(noisy, {}), {})
    difference = decoded.float() - video
    edges = sum((difference.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    loss = difference.abs().mean() + config.edges * edges + config.pull * latents.float().square().mean()
    return difference.detach().square().mean(), loss


def fuse_norms(vae: VideoVae) -> None:
    """Compile the channel norm, which is bound by memory, into one kernel."""
    torch._dynamo.config.cache_size_limit = 256

    @torch.compile
    def norm(x: Tensor, gamma: Tensor, scale: float) -> Tensor:
        return (F.normalize(x.float(), dim=1) * scale * gamma).to(x.dtype)

    for module in vae.modules():
        if isinstance(module, RmsNorm):
            setattr(module, "forward", partial(_normed, norm, module))  # noqa: B010 - replaces a method on purpose


def _normed(norm: Callable[[Tensor, Tensor, float], Tensor], module: RmsNorm, x: Tensor) -> Tensor:
    return norm(x, module.gamma, module.scale)


@torch.no_grad()
def latent_statistics(vae: VideoVae, pool: ClipPool, batches: int = 8) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over clips of the pool."""
    generator = torch.Generator("cpu").manual_seed(1)
    with torch.autocast(next(vae.parameters()).device.type, torch.bfloat16):
        latents = [vae.encode_piece(pool.clips(8, generator), {}).float() for _ in range(batches)]
    channels = torch.cat([x.transpose(0, 1).flatten(1) for x in latents], dim=1)
    return channels.mean(1).tolist(), channels.std(1).tolist()
