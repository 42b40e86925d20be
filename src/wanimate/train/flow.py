"""Train the embedded transformer by flow matching on encoded clips.

    python -m wanimate.train transformer --vae build/train/vae/vae.pt --out build/train/transformer

x_sigma = (1 - sigma) x0 + sigma noise and the network learns v = noise - x0 (arXiv 2210.02747; model spec, section 4.7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from wanimate.config import Defaults
from wanimate.model.motion import Blur
from wanimate.model.transformer import AnimateTransformer
from wanimate.sampling.denoise import denoise
from wanimate.train.common import Budget, Ema, Log, learning_share, load_state, mixed, save_state
from wanimate.train.latents import LatentClips, LatentSet
from wanimate.train.muon import Muon
from wanimate.train.networks import TRANSFORMER, initialise_transformer
from wanimate.train.ranks import ALONE, Ranks
from wanimate.train.steps import Step


@dataclass(frozen=True)
class LossSettings:
    """`shift` is the sampler's, whose times are trained on. Errors on the person weigh `person_weight` times more than the
    scene's, those of the reference frame `reference_weight`. `drop_face`: share of clips trained without face and prompt.

    For what is even over the person, as light is: `coarse_weight` times `coarse_error` is added, and the noise on the person
    gets an offset a clip and channel of this standard deviation. A noisy state then does not tell the person's mean
    colour, which has to come from the conditions; sampling starts without offset, in the middle of what they allow."""

    shift: float = 3.0
    person_weight: float = 3.0
    reference_weight: float = 0.1
    drop_face: float = 0.1
    coarse_weight: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class FlowTraining:
    """`short_share` of the run trains on the first `short` frames of the clips, the rest on all `frames`.

    `rate` is AdamW's peak learning rate, `matrix_rate` Muon's, which trains the matrices of blocks and fusers.
    Batches are one process's.
    """

    steps: int = 30000
    seconds: float = 720.0
    frames: int = 33
    short: int = 17
    short_share: float = 0.0
    short_batch: int = 96
    batch: int = 56
    rate: float = 1e-3
    matrix_rate: float = 0.01
    loss: LossSettings = LossSettings()
    renew: int = 96
    seed: int = 0


class Mannequin(nn.Module):
    """The transformer and its two learned prompts, [2, text length, text width]: the usual one and the negative."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = AnimateTransformer(TRANSFORMER)
        initialise_transformer(self.transformer)
        self.transformer.motion_encoder.dec.requires_grad_(False)
        self.prompts = nn.Parameter(0.02 * torch.randn(2, TRANSFORMER.text_length, TRANSFORMER.text_width))

    def load_checkpoint(self, folder: Path) -> None:
        """Take the weights of a checkpoint folder (`package`)."""
        from wanimate.weights.formats import read_folder, read_tensors

        self.transformer.load_state_dict(read_folder(folder, "diffusion_pytorch_model"))
        prompts = read_tensors(folder / "prompts.safetensors")
        self.prompts.data = torch.stack((prompts["positive"], prompts["negative"])).float()

    def flow(self, x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        """`predict` with the network's own prompts: where `dropped` [B], the face is blank and the prompt the negative one."""
        with mixed(x.device):
            return predict(self.transformer, self.prompts[dropped.long()], None, x, t, clips, dropped)


def predict(
    transformer: AnimateTransformer, text: Tensor, image: Tensor | None, x: Tensor, t: Tensor, clips: LatentClips,
    dropped: Tensor,
) -> Tensor:  # fmt: skip
    """v [B, 16, T+1, h, w] for noisy x at times t [B]; the face is blank where `dropped` [B].

    text [B, X, text width]; image tokens [B, I, image width] or None.
    """
    face = clips.face.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    face = torch.where(dropped.view(-1, 1, 1, 1, 1), -1.0, face)
    context = transformer.prepare(text, image, face, clips.pose)
    known = torch.cat((torch.ones_like(clips.reference[:, :4]), clips.reference), dim=1)
    y = torch.cat((known, torch.cat((clips.keep, clips.known), dim=1)), dim=2)
    return transformer(x, t, y, context)


def train_flow(
    config: FlowTraining,
    data: LatentSet,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: Path | None = None,
    ranks: Ranks = ALONE,
    record: bool = False,
) -> Mannequin:
    """Returns the averaged network (rank 0's counts); `out` gets state.pt, transformer.pt and log.jsonl.

    `start`: a checkpoint folder to begin with. `record`: see `steps.Step`.
    """
    torch.manual_seed(config.seed)
    model = Mannequin()
    if start is not None:
        model.load_checkpoint(start)
    model.to(device)
    ranks.align(model)
    matrices, decayed, plain = sort_weights(model)
    trained = [*matrices, *decayed, *plain]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    muon = Muon(matrices, lr=config.matrix_rate)
    ema = Ema(model, 0.999)
    budget = Budget(config.steps, config.seconds, every=ranks.pace, agree=ranks.agree)
    if resume:
        state = load_state(out / "state.pt")
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        muon.load_state_dict(state["muon"])
        ema.restore(state["ema"], state["step"])
        budget.step, budget.spent = state["step"], state["spent"]
    if device.type == "cuda":
        speed_up(model.transformer, config.frames)

    def measure(*fields: Tensor) -> tuple[Tensor]:
        return (flow_loss(model.flow, LatentClips(*fields), config.loss),)

    step = Step(measure, trained, record)
    log = Log(out / "log.jsonl")
    torch.manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    generator = torch.Generator("cpu").manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    total = torch.zeros((), device=device)
    budget.restart_clock()
    while not budget.over:
        if budget.step % config.renew == config.renew - 1:
            data.renew()
        short = budget.progress < config.short_share
        frames, batch = (config.short, config.short_batch) if short else (config.frames, config.batch)
        clips = data.draw(batch, frames, generator)
        share = learning_share(budget.step, budget.progress)
        for optimizer, peak in ((adam, config.rate), (muon, config.matrix_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        (loss,) = step(*vars(clips).values())
        ranks.average(trained)
        clip_grad_norm_(trained, 1.0)
        adam.step()
        muon.step()
        ema.update(budget.step)
        total += loss
        budget.tick()
        if ranks.first and (budget.step % 200 == 0 or budget.over):
            count = budget.step % 200 or 200
            rate = config.rate * share
            log.write(step=budget.step, seconds=budget.spent, frames=frames, loss=total.item() / count, rate=rate)
            total.zero_()
        if ranks.first and (budget.step % 1000 == 0 or budget.over):
            save_state(
                out / "state.pt", model=model.state_dict(), adam=adam.state_dict(), muon=muon.state_dict(),
                ema=ema.shadow, step=budget.step, spent=budget.spent,
            )  # fmt: skip
            save_state(out / "transformer.pt", **{k: v.cpu() for k, v in ema.shadow.items()})
    result = Mannequin().to(device)
    result.load_state_dict(ema.shadow)
    return result.eval().requires_grad_(False)


def sort_weights(model: Mannequin) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """What is trained: matrices of blocks and fusers, other weights of two and more axes, vectors."""
    hidden: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        if weight.ndim == 2 and "blocks." in name:
            hidden.append(weight)
        else:
            (decayed if weight.ndim >= 2 else plain).append(weight)
    return hidden, decayed, plain


def speed_up(network: AnimateTransformer, frames: int) -> None:
    """For a GPU: compile what repeats, each part once a batch shape, and blur by shifted sums, which the compiler fuses."""
    network.faces_at_once = frames
    for module in network.motion_encoder.modules():
        if isinstance(module, Blur):
            setattr(module, "forward", partial(shifted_blur, module.padding))  # noqa: B010 - replaces a method on purpose
    embed = network.embed_video
    setattr(network, "embed_video", lambda *given: embed(*given).float())  # noqa: B010 - one type for all blocks
    for part in (*network.blocks, *network.face_adapter.fuser_blocks, network.motion_encoder.enc):
        part.compile(dynamic=False)


def shifted_blur(padding: int, x: Tensor) -> Tensor:
    """What `Blur` computes, one axis after the other."""
    x = F.pad(x, (padding,) * 4)
    for axis in (-1, -2):
        size = x.shape[axis] - 3
        a, b, c, d = (x.narrow(axis, i, size) for i in range(4))
        x = (a + d) * 0.125 + (b + c) * 0.375
    return x


CELL = 6
"""Latent pixels; a quarter of a square picture's side."""
Flow = Callable[[Tensor, Tensor, LatentClips, Tensor], Tensor]
"""(noisy x, t, clips, dropped) -> v."""


def flow_loss(flow: Flow, clips: LatentClips, config: LossSettings) -> Tensor:
    """Weighted squared error of v."""
    clean = torch.cat((clips.reference, clips.target), dim=2)
    u = torch.rand(len(clean), device=clean.device)
    sigma = config.shift * u / (1 + (config.shift - 1) * u)
    noise = torch.randn_like(clean)
    if config.offset:
        offset = config.offset * torch.randn_like(clean[:, :, :1, :1, :1])
        noise[:, :, 1:] += offset * clips.person.clamp(0, 1).unsqueeze(1)
    s = sigma.view(-1, 1, 1, 1, 1)
    dropped = torch.rand(len(clean), device=clean.device) < config.drop_face
    v = flow((1 - s) * clean + s * noise, (1000 * sigma).long(), clips, dropped)
    off = v.float() - (noise - clean)
    error = off.square().mean(1)
    weight = torch.cat(
        (torch.full_like(error[:, :1], config.reference_weight), 1 + config.person_weight * clips.person), dim=1
    )
    loss = (error * weight).sum() / weight.sum()
    if config.coarse_weight:
        loss = loss + config.coarse_weight * coarse_error(off[:, :, 1:], clips.person)
    return loss


def coarse_error(off: Tensor, person: Tensor) -> Tensor:
    """Squared means of errors `off` [B, C, T, h, w] over the person, in cells of CELL x CELL latent pixels and all of T.

    Errors that differ from pixel to pixel vanish in it; a wrong light stays. `person` [B, T, h, w]: share of each pixel.
    """
    share = person.clamp(0, 1).unsqueeze(1)
    cell = min(CELL, *off.shape[-2:])
    total, mass = (F.avg_pool2d(x.mean(2), cell, ceil_mode=True) for x in (off * share, share))
    mean = (total / mass.clamp_min(1e-4)).square().mean(1, keepdim=True)
    return (mean * mass).sum() / mass.sum().clamp_min(1e-4)


@torch.no_grad()
def sample(flow: Flow, clips: LatentClips, settings: Defaults, seed: int = 0) -> Tensor:
    """Latents [B, 16, T, h, w] generated from the clips' conditions, without guidance, in the steps that `settings` say."""
    clean = torch.cat((clips.reference, clips.target), dim=2)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(seed)).to(clean.device)
    kept = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return flow(x, t.expand(len(x)), clips, kept).float()

    latents = noise
    for state in denoise(network, noise, settings.solver, settings.steps, settings.shift):
        latents = state.latents
    return latents[:, :, 1:]
