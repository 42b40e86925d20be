"""Train the embedded transformer by flow matching on encoded clips.

python -m mannequin transformer --vae build/train/vae --motion build/train/motion --out build/train/transformer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from mannequin.options import option
from mannequin.training.averages import Ema
from mannequin.training.clip_latents import LatentSet, WorldClips
from mannequin.training.faces import KnownFaces
from mannequin.training.motion import load_motion
from mannequin.training.muon import Muon
from mannequin.training.networks import TRANSFORMER, initialise_transformer, quick_blur
from mannequin.training.ranks import align
from mannequin.training.reader import Reading
from mannequin.training.recording import step_for
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.common import ALONE, Budget, Log, Process, learning_share, load_state, save_state, set_rate
from wanimate.train.flow import Flow, LossSettings, flow_loss, velocity_error, weighted_error
from wanimate.train.latents import LatentClips
from wanimate.train.steps import Step


@dataclass(frozen=True)
class FlowTraining:
    """`rate` is AdamW's peak learning rate, `matrix_rate` Muon's, which trains the matrices of blocks and fusers.
    Batches are one process's.
    """

    steps: int = option(30000, "most steps; the run ends by whichever limit comes first")
    seconds: float = option(720.0, "training time; the learning rate falls to zero at its end")
    batch: int = option(28, "clips of a step")
    short_batch: int = option(48, "clips of a step, of the short ones")
    rate: float = option(1e-3, "AdamW's peak learning rate; Muon's is ten times as high")
    matrix_rate: float = 0.01
    fall: float = option(0.4, "share of the run over which the rates fall to zero, at its end")
    loss: LossSettings = field(default=LossSettings())
    renew: int = option(96, "steps between two new parts of clips")
    seed: int = option(0, "of clips, noise and first weights")


FACE_BRANCH = ("motion_encoder.", "face_encoder.", "face_adapter.")


class Mannequin(nn.Module):
    """The transformer and its two learned prompts, [2, text length, text width]: the usual one and the negative."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = AnimateTransformer(TRANSFORMER)
        initialise_transformer(self.transformer)
        self.transformer.motion_encoder.requires_grad_(False)  # trained before, alone: `motion`
        self.faces = KnownFaces(self.transformer)
        self.prompts = nn.Parameter(0.02 * torch.randn(2, TRANSFORMER.text_length, TRANSFORMER.text_width))

    def load_checkpoint(self, folder: Path) -> None:
        """Take the weights of a checkpoint folder (`package`); where its motion encoder has other sizes, the face branch
        begins anew."""
        from wanimate.weights.formats import read_folder, read_tensors

        known = read_folder(folder, "diffusion_pytorch_model")
        own = self.transformer.state_dict()
        if _motion_shapes(known) != _motion_shapes(own):
            known = {k: (own if k.startswith(FACE_BRANCH) else known)[k] for k in own}
        self.transformer.load_state_dict(known)
        prompts = read_tensors(folder / "prompts.safetensors")
        self.prompts.data = torch.stack((prompts["positive"], prompts["negative"])).float()

    def flow(self, x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        """`predict` with the network's own prompts: where `dropped` [B], the face is blank and the prompt the negative one."""
        return self.faces.predict(self.prompts[dropped.long()], x, t, clips, dropped)


def _motion_shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in weights.items() if k.startswith("motion_encoder.")}


def train_flow(
    config: FlowTraining,
    data: LatentSet,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: Path | None = None,
    ranks: Process = ALONE,
    record: bool = False,
    motion: Path | None = None,
    fresh: LatentSet | None = None,
    reading: Reading | None = None,
) -> Mannequin:
    """Returns the averaged network (rank 0's counts); `out` gets state.pt, transformer.pt and log.jsonl.

    `start`: a checkpoint folder to begin with. `record`: see `recording.RecordedStep`. `motion`: folder of a trained motion
    encoder. `fresh`: held-out clips, whose loss is logged. `reading`: its error is added to the loss and logged beside it.
    """
    torch.manual_seed(config.seed)
    model = Mannequin()
    if start is not None:
        model.load_checkpoint(start)
    if motion is not None:
        model.transformer.motion_encoder.load_state_dict(load_motion(motion))
    model.to(device)
    align(model, ranks)
    matrices, decayed, plain = sort_weights(model)
    trained = [*matrices, *decayed, *plain]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    muon = Muon(matrices, lr=config.matrix_rate)
    ema = Ema(model, 0.999)
    budget = Budget(config.steps, config.seconds, every=ranks.pace, agree=ranks.agree)
    warm = 0
    if resume:
        state = load_state(out / "state.pt")
        model.load_state_dict(state["model"])
        if state["adam"]:
            adam.load_state_dict(state["adam"])
            muon.load_state_dict(state["muon"])
        else:  # packed into pieces (`pieces`): the rates rise anew
            warm = state["step"]
        ema.restore(state["ema"], state["step"])
        budget.step, budget.spent = state["step"], state["spent"]
    if device.type == "cuda":
        speed_up(model.transformer)
    for clips in (data, fresh):
        if clips is not None:
            clips.tell(model.faces.told)

    def measure(*fields: Tensor) -> tuple[Tensor, ...]:
        return losses(model.flow, WorldClips(*fields), config.loss, reading)

    step = step_for(record)(measure, trained)
    log = Log(out / "log.jsonl")
    torch.manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    generator = torch.Generator("cpu").manual_seed(config.seed + budget.step + 7919 * ranks.rank)
    names = ("loss",) if reading is None else ("loss", "misread")
    totals = torch.zeros(len(names), device=device)
    budget.restart_clock()
    while not budget.over:
        if budget.step % config.renew == config.renew - 1:
            data.renew()
        drawn = data.draw(config.batch, generator, config.short_batch)
        share = learning_share(budget.step - warm, budget.progress, decay_from=1 - config.fall)
        for optimizer, peak in ((adam, config.rate), (muon, config.matrix_rate)):
            set_rate(optimizer, peak * share)
        _, *parts = step(*vars(drawn).values())
        ranks.average(trained)
        clip_grad_norm_(trained, 1.0)
        adam.step()
        muon.step()
        ema.update(budget.step)
        totals += torch.stack(parts)
        budget.tick()
        if ranks.first and (budget.step % 200 == 0 or budget.over):
            count = budget.step % 200 or 200
            rate = config.rate * share
            means = dict(zip(names, (totals / count).tolist(), strict=True))
            log.write(step=budget.step, seconds=budget.spent, **means, rate=rate, clips=data.seen)
            totals.zero_()
        if ranks.first and (budget.step % 1000 == 0 or budget.over):
            if fresh is not None:
                known = fresh_losses(fresh, config, step, ema).tolist()
                log.write(step=budget.step, **{f"fresh_{name}": x for name, x in zip(names, known, strict=True)})
            save_state(
                out / "state.pt", model=model.state_dict(), adam=adam.state_dict(), muon=muon.state_dict(),
                ema=ema.shadow, step=budget.step, spent=budget.spent,
            )  # fmt: skip
            save_state(out / "transformer.pt", **{k: v.cpu() for k, v in ema.shadow.items()})
    result = Mannequin().to(device)
    result.load_state_dict(ema.shadow)
    return result.eval().requires_grad_(False)


def losses(flow: Flow, clips: WorldClips, settings: LossSettings, reading: Reading | None) -> tuple[Tensor, ...]:
    """What is trained on; of it the flow's loss; with a reader its error."""
    if reading is None:
        loss = flow_loss(flow, clips, settings)
        return loss, loss
    off, sigma = velocity_error(flow, clips, settings)
    loss, misread = weighted_error(off, clips.person, settings), reading.error(off, sigma, clips)
    return loss + reading.weight * misread, loss, misread


def fresh_losses(clips: LatentSet, config: FlowTraining, step: Step, ema: Ema, rounds: int = 12) -> Tensor:
    """The averaged network's losses on `rounds` batches, always the same clips; gradients are left behind."""
    generator = torch.Generator("cpu").manual_seed(0)
    ema.swap()
    total = []
    for _ in range(rounds):
        _, *parts = step(*vars(clips.draw(config.batch, generator, config.short_batch)).values())
        total.append(torch.stack(parts))
    ema.swap()
    return torch.stack(total).mean(0)


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


def speed_up(network: AnimateTransformer) -> None:
    """For a GPU: compile what repeats, each part once a batch shape, and blur by shifted sums, which the compiler fuses."""
    quick_blur(network.motion_encoder)
    embed = network.embed_video
    setattr(network, "embed_video", lambda *given: embed(*given).float())  # noqa: B010 - one type for all blocks
    torch._dynamo.config.recompile_limit = 64  # sizes and lengths of clips
    for part in (*network.blocks, *network.face_adapter.fuser_blocks):
        part.compile(dynamic=False)
