"""Train the embedded VAE: single frames first, then whole short clips.

    python -m mannequin vae --out build/train/vae

Most steps show cuts around faces and hands, which are a small part of a picture. The loss is L1 on pixels and on their
differences in space and time, the distance between features of true and decoded frames (`observer`), and a small pull of
the latents towards unit size against the noise that is added to them, so that the decoder forgives small errors of the
transformer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from mannequin.options import option
from mannequin.training.averages import Ema, mixed
from mannequin.training.grow import grow_vae
from mannequin.training.networks import VAE, initialise_vae
from mannequin.training.observer import Observer, features_apart
from mannequin.training.pool import ClipPool
from mannequin.training.ranks import align
from mannequin.training.recording import step_for
from wanimate.model.vae import CausalConv3d, RmsNorm, Stream, VideoVae
from wanimate.runtime.fused_vae import fuse_norms
from wanimate.runtime.patches import Change, install, method
from wanimate.train.common import ALONE, Budget, Log, Process, learning_share, load_state, save_state, set_rate
from wanimate.weights.checkpoint import load_vae
from wanimate.weights.formats import Tensors, read_tensors
from wanimate.weights.locate import read_checkpoint_config


@dataclass(frozen=True)
class VaeTraining:
    """The first `frame_share` of the run trains on single frames, the rest on clips, with `frame_mix` of its steps single
    frames still. Whole pictures are cut to squares of at most `crop`, for single frames `frame_crop`; `face_share` and
    `hand_share` of the steps show cuts of side `detail_crop`, `detail_batch` clips or DETAIL_FRAMES times as many frames.

    `noise` is added to the latents, `pull` keeps them from growing against it. `weight` is how much more errors count on eyes
    and mouths; half of it counts on faces and on the sticks of skeletons (`pool.importance`). `decoder_only` leaves the
    latents as they are, for a transformer that knows them.
    """

    steps: int = option(40000, "most steps; the run ends by whichever limit comes first")
    seconds: float = option(480.0, "training time; the learning rate falls to zero at its end")
    base: int = option(VAE.base, "channels at full size; a narrower --start is widened")
    frame_share: float = option(
        0.35, "first share of the run that sees single frames only; 0 when going on from a trained one"
    )
    crop: int = 256
    frame_crop: int = 128
    frame_batch: int = option(128, "single frames of a step")
    clip_batch: int = option(4, "clips of a step")
    frame_mix: float = 0.15
    face_share: float = option(0.45, "share of the steps that show cuts around faces")
    hand_share: float = option(0.15, "share of the steps that show cuts around hands")
    detail_crop: int = 128
    detail_batch: int = option(8, "clips of such steps")
    rate: float = option(1e-3, "peak learning rate")
    noise: float = option(0.04, "added to the latents, whose size is about 2, so that small errors do not show")
    pull: float = 1e-4
    edges: float = option(1.0, "weight of the loss on differences between neighbouring pixels")
    changes: float = option(0.5, "weight of the loss on differences from frame to frame")
    features: float = option(1.0, "weight of the distance between features of true and decoded frames; 0: no observer")
    weight: float = 22.0
    refresh: int = option(120, "steps between two renewals of a part of the clips")
    decoder_only: bool = option(False, "keep the encoder, and with it the latents, as they are")
    seed: int = option(0, "of clips, noise and first weights")


DETAIL_FRAMES = 16
KINDS = tuple(subject + form for subject in ("", "face_", "hand_") for form in ("clips", "frames"))
"""What a step can show."""


def kind_of(config: VaeTraining, step: int, progress: float) -> str:
    """Which of KINDS a step shows; all kinds are spread evenly over the run (by the plastic number's powers)."""
    subject, form = step * 0.7548776662 % 1, step * 0.5698402910 % 1
    frames = progress < config.frame_share or form < config.frame_mix
    face = subject < config.face_share
    hand = not face and subject < config.face_share + config.hand_share
    return KINDS[2 * (face + 2 * hand) + frames]


def draw(config: VaeTraining, pool: ClipPool, kind: str, generator: torch.Generator) -> Tensor:
    """A batch of one of KINDS, [B, 4, F, side, side]."""
    if kind == "clips":
        return pool.clips(config.clip_batch, config.crop, generator)
    if kind == "frames":
        return pool.frames(config.frame_batch, config.frame_crop, generator)
    single = kind.endswith("frames")
    count = config.detail_batch * (DETAIL_FRAMES if single else 1)
    return pool.details(count, config.detail_crop, generator, single, hands=kind.startswith("hand"))


def train_vae(
    config: VaeTraining,
    pool: ClipPool,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: Path | None = None,
    ranks: Process = ALONE,
    record: bool = False,
) -> VideoVae:
    """Returns the averaged network (rank 0's counts); `out` gets state.pt, vae.pt and log.jsonl.

    `start`: a file of weights to begin with, of this width or a narrower one. `record`: see `recording.RecordedStep`.
    """
    torch.manual_seed(config.seed)
    vae = VideoVae(replace(VAE, base=config.base))
    initialise_vae(vae)
    if start is not None:
        vae = begin_with(read_tensors(start), config.base)
    vae.to(device)
    observer = Observer().to(device) if config.features else None
    for network in (vae, observer):
        if network is not None:
            align(network, ranks)
    fused = device.type == "cuda"
    if fused:
        speed_up(vae)
    if config.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.conv1.requires_grad_(False)
    weights = [p for p in vae.parameters() if p.requires_grad]
    watching = [] if observer is None else list(observer.parameters())
    optimizer = torch.optim.AdamW(
        [*weights, *watching], lr=config.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=fused
    )
    ema = Ema(vae, 0.998)
    budget = Budget(config.steps, config.seconds, every=ranks.pace, agree=ranks.agree)
    warm = 0
    if resume:
        state = load_state(out / "state.pt")
        vae.load_state_dict(state["model"])
        if observer is not None and state["observer"]:
            observer.load_state_dict(state["observer"])
        if state["optimizer"]:
            optimizer.load_state_dict(state["optimizer"])
        else:  # packed into pieces (`pieces`): the rate rises anew
            warm = state["step"]
        ema.restore(state["ema"], state["step"])
        budget.step, budget.spent = state["step"], state["spent"]
    step = step_for(record)(partial(vae_loss, vae, config=config, observer=observer), [*weights, *watching])
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
        rate = config.rate * learning_share(budget.step - warm, budget.progress)
        set_rate(optimizer, rate)
        loss, error = step(video)
        errors[KINDS.index(kind)] += error
        counts[KINDS.index(kind)] += 1
        ranks.average([*weights, *watching])
        clip_grad_norm_(weights, 1.0)
        if watching:
            clip_grad_norm_(watching, 1.0)
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
                observer={} if observer is None else observer.state_dict(), step=budget.step, spent=budget.spent,
            )  # fmt: skip
            save_state(out / "vae.pt", **{k: v.cpu() for k, v in ema.shadow.items()})
    result = VideoVae(vae.params).to(device)
    result.load_state_dict(ema.shadow)
    return result.eval().requires_grad_(False)


PACKAGED = "vae.safetensors"
"""The VAE's file in a checkpoint folder."""


def weights_in(folder: Path) -> Path:
    """The VAE's file in a checkpoint folder or in a folder of its training."""
    packaged = folder / PACKAGED
    return packaged if packaged.is_file() else folder / "vae.pt"


def load_trained_vae(folder: Path, device: torch.device) -> VideoVae:
    """The VAE of a checkpoint folder, or what a training run left in `folder` with its own latent statistics."""
    weights = weights_in(folder)
    if weights.name == PACKAGED:
        return load_vae(read_tensors(weights), read_checkpoint_config(folder)[1], folder).to(device)
    numbers, tensors = load_state(folder / "statistics.pt"), load_state(weights)
    model = VideoVae(replace(VAE, base=width_of(tensors), mean=tuple(numbers["mean"]), std=tuple(numbers["std"])))
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False)


def width_of(tensors: Tensors) -> int:
    """Channels at full size."""
    return len(tensors["encoder.conv1.bias"])


def begin_with(tensors: Tensors, base: int) -> VideoVae:
    """A trained VAE, grown to the width `base` if it is narrower."""
    vae = VideoVae(replace(VAE, base=width_of(tensors)))
    vae.load_state_dict(tensors)
    return vae if vae.params.base == base else grow_vae(vae, base)


def vae_loss(
    vae: VideoVae, video: Tensor, config: VaeTraining, observer: Observer | None = None
) -> tuple[Tensor, Tensor]:
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
    if observer is not None:
        with mixed(video.device):
            seen = observer(pictures(video))
            watched = features_apart(observer, pictures(decoded), seen, pictures(weight))
            loss = loss + config.features * watched + observer.error(seen, pictures(extra))
    return loss, difference.detach().square().mean()


def pictures(video: Tensor) -> Tensor:
    """[B, C, F, H, W] -> [B * F, C, H, W]."""
    return video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def speed_up(vae: VideoVae) -> None:
    """For a GPU, whole clips and shapes that repeat: channels-last weights, convolutions chosen by trial, norm and SiLU in one
    kernel, which writes behind the zeros that a causal convolution wants in front."""
    torch.backends.cudnn.benchmark = True
    fuse_norms(vae.channels_last())
    changes: list[Change] = []
    for layers in vae.modules():
        if not isinstance(layers, nn.ModuleList):
            continue
        named = [layer for layer in layers if not isinstance(layer, nn.Identity)]
        for norm, act, conv in zip(named, named[1:], named[2:], strict=False):
            if isinstance(norm, RmsNorm) and isinstance(act, nn.SiLU) and isinstance(conv, CausalConv3d):
                changes += [
                    method(norm, "forward", _behind(conv.history)),
                    method(conv, "forward", _convolved),
                ]
    install(vae, "zeros in front", changes)


def _behind(history: int) -> Callable[[RmsNorm, Tensor], Tensor]:
    """`RmsNorm.forward` with SiLU, of a clip behind zeros; a single frame needs none."""
    from wanimate.runtime.kernels.channels_last import norm_silu  # Triton is there only on a GPU machine

    return lambda norm, x: norm_silu(x, norm.gamma, history if x.shape[2] > 1 else 0)


def _convolved(conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
    """`CausalConv3d.forward` of a whole clip, which has its zeros in front, or of a single frame."""
    return CausalConv3d.forward(conv, x, stream) if x.shape[2] == 1 else nn.Conv3d.forward(conv, x)


@torch.no_grad()
def latent_statistics(vae: VideoVae, pool: ClipPool, batches: int = 8) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over clips of the pool."""
    generator = torch.Generator("cpu").manual_seed(1)
    with mixed(next(vae.parameters()).device):
        latents = [vae.encode_piece(pool.clips(8, 128, generator)[:, :3], {}).float() for _ in range(batches)]
    channels = torch.cat([x.transpose(0, 1).flatten(1) for x in latents], dim=1)
    return channels.mean(1).tolist(), channels.std(1).tolist()
