"""Train a LoRA that relights: the reference stands in another light than the scene, the target in the scene's."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from mannequin.options import option
from mannequin.training.clip_latents import WorldClips
from mannequin.training.faces import KnownFaces
from mannequin.training.ranks import join
from mannequin.training.recording import step_for
from mannequin.training.run import Run
from mannequin.training.supply import ClipSettings, SupplySettings, gather
from mannequin.training.transformer import speed_up
from wanimate.errors import InputError
from wanimate.train.adapters import TARGETS, AdaptedLinear, AdapterSettings, adapter_state, attach, write_lora
from wanimate.train.common import Log
from wanimate.train.flow import Flow, LossSettings, velocity_error, weighted_error
from wanimate.train.latents import LatentClips
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import read_tensors

CELL = 6
"""Latent pixels; a quarter of a square picture's side."""


@dataclass(frozen=True)
class LightLoss:
    """Beside the usual loss, for what is even over the person, as light is.

    `coarse_weight` times `coarse_error` is added. The noise on the person gets an offset a clip and channel of the standard
    deviation `offset`: a noisy state then does not tell the person's mean colour, which has to come from the conditions.
    Sampling starts without offset, in the middle of what they allow.
    """

    shift: float = option(6.0, "of the times: the more, the noisier; light is decided early")
    person_weight: float = option(8.0, "how often more errors on the person count")
    coarse_weight: float = option(6.0, "weight of errors of the person's light and shading")
    offset: float = option(0.2, "standard deviation of an offset of the noise on the person")

    @property
    def usual(self) -> LossSettings:
        return LossSettings(shift=self.shift, person_weight=self.person_weight)


@dataclass(frozen=True)
class RelightSettings:
    """The adapters and their training. `targets` is a name of `adapters.TARGETS`."""

    seconds: float = option(240.0, "training time; the learning rate falls to zero at its end")
    steps: int = option(30000, "most steps; the run ends by whichever limit comes first")
    batch: int = option(28, "clips of a step")
    short_batch: int = option(48, "clips of a step, of the short ones")
    rank: int = option(64, "rank of the LoRA, and its alpha")
    targets: str = option("no-cross-attention", "linears of the blocks: " + ", ".join(TARGETS))
    rate: float = option(1e-3, "peak learning rate")
    renew: int = option(32, "steps between two renewals of a part of the clips")
    seed: int = option(0, "of clips, noise and first weights")


def train_relighting(
    settings: RelightSettings,
    loss: LightLoss,
    checkpoint: Path,
    clips: ClipSettings,
    supply: SupplySettings,
    run: Run,
) -> None:
    """Train adapters on `checkpoint`; `run.out` gets relighting_lora.safetensors, also every 1,000 steps.

    Raises:
        InputError: `run.start` is a LoRA of other targets or of a higher rank.
    """
    ranks, where = join(run.device)
    base = load_checkpoint(checkpoint, where, torch.float32)
    log = Log(run.out / "log.jsonl")
    wanted = clips.relighting
    wanted = replace(wanted, world=replace(wanted.world, face_size=base.face_size))
    data = gather(base.vae, wanted, supply, where, log, ranks)
    shape = AdapterSettings(rank=settings.rank, alpha=settings.rank, targets=TARGETS[settings.targets])
    network = base.transformer
    adapters = attach(network, shape, settings.seed)
    if run.start is not None:
        begin_with(adapters, run.start)
    if where.type == "cuda":
        speed_up(network)
    faces = KnownFaces(network)
    data.tell(faces.told)
    prompts = torch.stack([base.prompts.encode("", negative=negative) for negative in (False, True)]).to(where)

    def flow(x: Tensor, t: Tensor, c: LatentClips, dropped: Tensor) -> Tensor:
        return faces.predict(prompts[dropped.long()], x, t, c, dropped)

    def measure(*fields: Tensor) -> tuple[Tensor]:
        return (light_loss(flow, WorldClips(*fields), loss),)

    def draw(number: int) -> tuple[Tensor, ...]:
        if number // ranks.count % settings.renew == settings.renew - 1:
            data.renew()
        drawn = data.draw(settings.batch, torch.Generator("cpu").manual_seed(number), settings.short_batch)
        return tuple(vars(drawn).values())

    def write(done: int) -> None:
        about = {"checkpoint": base.config.name, "steps": str(done), "what": "relighting LoRA"}
        write_lora(adapter_state(adapters), shape, run.out / "relighting_lora.safetensors", torch.float16, about)

    config = LoraTraining(
        steps=settings.steps, seconds=settings.seconds, rate=settings.rate, save_every=200, seed=settings.seed
    )
    done = 0
    kind = step_for(run.record)
    for done in train_adapters(config, adapters, measure, draw, run.out, run.resume, kind, ranks):
        if ranks.first and done % 1000 == 0:
            write(done)
    if ranks.first:
        write(done)


def light_loss(flow: Flow, clips: LatentClips, settings: LightLoss) -> Tensor:
    """`flow_loss`, and what `LightLoss` says."""
    usual = settings.usual
    noise = partial(uneven_noise, person=clips.person, deviation=settings.offset)
    off, _ = velocity_error(flow, clips, usual, noise)
    loss = weighted_error(off, clips.person, usual)
    return loss + settings.coarse_weight * coarse_error(off[:, :, 1:], clips.person)


def uneven_noise(clean: Tensor, person: Tensor, deviation: float) -> Tensor:
    """Noise like `clean` [B, C, T+1, h, w], off by one random number a clip and channel on the `person` [B, T, h, w]."""
    noise = torch.randn_like(clean)
    offset = deviation * torch.randn_like(clean[:, :, :1, :1, :1])
    noise[:, :, 1:] += offset * person.clamp(0, 1).unsqueeze(1)
    return noise


def coarse_error(off: Tensor, person: Tensor) -> Tensor:
    """Squared means of errors `off` [B, C, T, h, w] over the person, in cells of CELL x CELL latent pixels and all of T.

    Errors that differ from pixel to pixel vanish in it; a wrong light stays. `person` [B, T, h, w]: share of each pixel.
    """
    share = person.clamp(0, 1).unsqueeze(1)
    cell = min(CELL, *off.shape[-2:])
    total, mass = (F.avg_pool2d(x.mean(2), cell, ceil_mode=True) for x in (off * share, share))
    mean = (total / mass.clamp_min(1e-4)).square().mean(1, keepdim=True)
    return (mean * mass).sum() / mass.sum().clamp_min(1e-4)


def begin_with(adapters: dict[str, AdaptedLinear], path: Path) -> None:
    """Let adapters begin as those of a file that `write_lora` made; more rank than the file's starts as it would anew.

    Raises:
        InputError: the file is of other modules or shapes, or of a higher rank.
    """
    tensors = read_tensors(path)
    scale = 1.0
    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    if config:
        scale = config["lora_alpha"] / config["r"]
    for name, adapter in adapters.items():
        known = [tensors.get(f"base_model.model.{name}.lora_{kind}.weight") for kind in "AB"]
        down, up = known
        if down is None or up is None:
            raise InputError("--start", path, f"it has nothing for {name}", "Give a LoRA of the same targets.")
        rank = len(down)
        fits = (down.shape[1], up.shape[0]) == (adapter.in_features, adapter.out_features)
        if not fits or rank > len(adapter.lora_A):
            raise InputError(
                "--start", path, f"its shapes for {name} do not fit", "Give the rank of that LoRA, or more."
            )
        with torch.no_grad():
            adapter.lora_A[:rank] = down.to(adapter.lora_A)
            adapter.lora_B[:, :rank] = up.to(adapter.lora_B) * (scale / adapter.lora_scale)
