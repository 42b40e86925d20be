"""Train the embedded VAE: single frames first, then whole short clips.

    python -m wanimate.train vae --out build/train/vae

Most steps show cuts around faces, which are a hundredth of a picture. The loss is L1 on pixels and on their differences in
space and time, plus a small pull of the latents towards unit size against the noise that
is added to them, so that the decoder forgives small errors of the transformer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from wanimate.model.vae import VideoVae
from wanimate.runtime.fused_vae import fuse_norms
from wanimate.train.common import Budget, Ema, Log, learning_share, load_state, mixed, save_state
from wanimate.train.grow import grow_vae
from wanimate.train.networks import VAE, initialise_vae
from wanimate.train.pool import ClipPool
from wanimate.train.ranks import ALONE, Ranks
from wanimate.train.steps import Step
from wanimate.weights.formats import Tensors, read_tensors


@dataclass(frozen=True)
class VaeTraining:
    """The first `frame_share` of the run trains on single frames, the rest on clips, with `frame_mix` of its steps single
    frames still; `crop` is the side of the square cuts. `face_share` of the steps show cuts of side `face_crop` around
    faces, `face_batch` clips or FACE_FRAMES times as many frames.

    `noise` is added to the latents, `pull` keeps them from growing against it. `weight` is how much more errors count on eyes
    and mouths; half of it counts on faces and on the sticks of skeletons (`pool.importance`). `decoder_only` leaves the
    latents as they are, for a transformer that knows them.
    """

    steps: int = 40000
    seconds: float = 480.0
    frame_share: float = 0.35
    crop: int = 128
    frame_batch: int = 128
    clip_batch: int = 8
    frame_mix: float = 0.2
    face_share: float = 0.7
    face_crop: int = 64
    face_batch: int = 16
    rate: float = 1e-3
    noise: float = 0.04
    pull: float = 1e-4
    edges: float = 0.5
    changes: float = 0.5
    weight: float = 22.0
    refresh: int = 60
    decoder_only: bool = False
    seed: int = 0


FACE_FRAMES = 16
KINDS = ("clips", "frames", "face_clips", "face_frames")
"""What a step can show."""


def spread(step: int, share: float) -> bool:
    """True for `share` of the steps, evenly spread."""
    return int((step + 1) * share) > int(step * share)


def kind_of(config: VaeTraining, step: int, progress: float) -> str:
    """Which of KINDS a step shows; all kinds are spread evenly over the run."""
    frames = progress < config.frame_share or spread(step // 4, config.frame_mix)
    return KINDS[2 * spread(step, config.face_share) + frames]


def draw(config: VaeTraining, pool: ClipPool, kind: str, generator: torch.Generator) -> Tensor:
    """A batch of one of KINDS, [B, 4, F, side, side]."""
    if kind == "clips":
        return pool.clips(config.clip_batch, config.crop, generator)
    if kind == "frames":
        return pool.frames(config.frame_batch, config.crop, generator)
    single = kind == "face_frames"
    count = config.face_batch * (FACE_FRAMES if single else 1)
    return pool.faces(count, config.face_crop, generator, single)


def train_vae(
    config: VaeTraining,
    pool: ClipPool,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: Path | None = None,
    ranks: Ranks = ALONE,
    record: bool = False,
) -> VideoVae:
    """Returns the averaged network (rank 0's counts); `out` gets state.pt, vae.pt and log.jsonl.

    `start`: a file of weights to begin with, of this width or a narrower one. `record`: see `steps.Step`.
    """
    torch.manual_seed(config.seed)
    vae = VideoVae(VAE)
    initialise_vae(vae)
    if start is not None:
        vae = begin_with(read_tensors(start))
    vae.to(device)
    ranks.align(vae)
    fused = device.type == "cuda"
    if fused:
        speed_up(vae)
    if config.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.conv1.requires_grad_(False)
    weights = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=fused)
    ema = Ema(vae, 0.998)
    budget = Budget(config.steps, config.seconds, every=ranks.pace, agree=ranks.agree)
    if resume:
        state = load_state(out / "state.pt")
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.restore(state["ema"], state["step"])
        budget.step, budget.spent = state["step"], state["spent"]
    step = Step(partial(vae_loss, vae, config=config), weights, record)
    log = Log(out / "log.jsonl")
    torch.manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    generator = torch.Generator("cpu").manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    errors, counts = torch.zeros(len(KINDS), device=device), [0] * len(KINDS)
    budget.restart_clock()
    while not budget.over:
        if budget.step % config.refresh == 0:
            pool.refresh()
        kind = kind_of(config, budget.step, budget.progress)
        video = draw(config, pool, kind, generator)
        rate = config.rate * learning_share(budget.step, budget.progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, error = step(video)
        errors[KINDS.index(kind)] += error
        counts[KINDS.index(kind)] += 1
        ranks.average(weights)
        clip_grad_norm_(weights, 1.0)
        optimizer.step()
        budget.tick()
        ema.update(budget.step)
        if ranks.first and (budget.step % 200 == 0 or budget.over):
            psnr = {
                f"psnr_{name}": -10 * math.log10(max(total / count / 4, 1e-12))
                for name, total, count in zip(KINDS, errors.tolist(), counts, strict=True)
                if count
            }
            log.write(step=budget.step, seconds=budget.spent, **psnr, loss=loss.item(), rate=rate)
            errors.zero_()
            counts = [0] * len(KINDS)
        if ranks.first and (budget.step % 1000 == 0 or budget.over):
            save_state(
                out / "state.pt", model=vae.state_dict(), optimizer=optimizer.state_dict(), ema=ema.shadow,
                step=budget.step, spent=budget.spent,
            )  # fmt: skip
            save_state(out / "vae.pt", **{k: v.cpu() for k, v in ema.shadow.items()})
    result = VideoVae(VAE).to(device)
    result.load_state_dict(ema.shadow)
    return result.eval().requires_grad_(False)


def begin_with(tensors: Tensors) -> VideoVae:
    """A trained VAE, grown to the width of `VAE` if it is narrower."""
    vae = VideoVae(replace(VAE, base=len(tensors["encoder.conv1.bias"])))
    vae.load_state_dict(tensors)
    return vae if vae.params.base == VAE.base else grow_vae(vae, VAE.base)


def vae_loss(vae: VideoVae, video: Tensor, config: VaeTraining) -> tuple[Tensor, Tensor]:
    """The loss, and the mean squared error for the log. video [B, 4, K, H, W]: RGB in [-1, 1] and the extra weight."""
    extra, video = video[:, 3:], video[:, :3]
    with mixed(video.device):
        latents = vae.encode_piece(video, {})
        noisy = latents + config.noise * torch.randn_like(latents)
        decoded = vae.decoder(vae.conv2(noisy, {}), {})
    difference = decoded.float() - video
    weight = 1 + config.weight * extra
    edges = sum(
        (difference.diff(dim=axis).abs() * weight.narrow(axis, 1, video.shape[axis] - 1)).mean() for axis in (-1, -2)
    )
    pixels = ((difference.abs() + difference.square()) * weight).mean()
    loss = pixels + config.edges * edges
    if video.shape[2] > 1:
        changes = (difference.diff(dim=2).abs() * weight[:, :, 1:]).mean()
        loss = loss + config.changes * changes
    loss = loss + config.pull * latents.float().square().mean()
    return loss, difference.detach().square().mean()


def speed_up(vae: VideoVae) -> None:
    """For a GPU and shapes that repeat: channels-last weights, convolutions chosen by trial, norm and SiLU in one kernel."""
    torch.backends.cudnn.benchmark = True
    fuse_norms(vae.channels_last())


@torch.no_grad()
def latent_statistics(vae: VideoVae, pool: ClipPool, batches: int = 8) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over clips of the pool."""
    generator = torch.Generator("cpu").manual_seed(1)
    with mixed(next(vae.parameters()).device):
        latents = [vae.encode_piece(pool.clips(8, 128, generator)[:, :3], {}).float() for _ in range(batches)]
    channels = torch.cat([x.transpose(0, 1).flatten(1) for x in latents], dim=1)
    return channels.mean(1).tolist(), channels.std(1).tolist()
