"""Train a network that reads from latents what faces do; the transformer's training asks its predictions for the same.

    python -m mannequin reader --vae build/train/vae --out build/train/reader
    python -m mannequin transformer --reader build/train/reader ...

Eyes and mouth are a few of a thousand latent pixels: the flow's loss hardly notices whether they do what they should.
Letters: M clips, K frames, T = (K+3)/4 latent frames, h w latent rows and columns, D = len(TOLD) things that a face does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mannequin.options import option
from mannequin.training.averages import Ema
from mannequin.training.clip_latents import LatentSet, WorldClips, in_fours
from mannequin.training.motion import TOLD, WEIGHTS
from mannequin.training.recording import step_for
from wanimate.errors import InputError
from wanimate.train.common import Budget, Log, learning_share, load_state, save_state

FILE = "reader.pt"
SIDE = 12
"""Points of a face's cut, in each direction."""
ROOM = 1.25
"""Side of a cut over the longer side of the face's box."""
SIZES = (2.0, 3.0, 4.0, 5.0, 6.5, 9.0, 1000.0)
"""Bounds of the sizes for which R2 is logged."""
WIDTHS = (96, 160, 192)


@dataclass(frozen=True)
class ReaderTraining:
    """The reader learns from latents with noise of a random deviation up to `noise`."""

    steps: int = option(12000, "most steps; the run ends by whichever limit comes first")
    seconds: float = option(90.0, "training time; the learning rate falls to zero at its end")
    batch: int = option(64, "clips of a step")
    rate: float = option(2e-3, "peak learning rate")
    noise: float = option(0.5, "most noise on the latents, over their spread")
    seed: int = option(0, "of clips, noise and first weights")


@dataclass(frozen=True)
class ReadingSettings:
    """What the reader's loss is in the transformer's training.

    Noisy latents tell by themselves whether a mouth is open up to a noise of 0.8, whether eyes are shut up to 0.7 (faces of
    64 pixels, dev/LOG.md, 2026-11-30). What the conditions say about it is decided above: `until` is not small.
    """

    reader: Path | None = option(None, "folder of a reader's training, which adds its loss; left out: no such loss")
    reading_weight: float = option(1.0, "weight of the reader's loss")
    reading_until: float = option(
        1.0, "noise, 0 to 1, from which on the reader is not asked; its weight falls to 0 there"
    )
    reading_least: float = option(3.0, "latent pixels, 8 of the picture, that the faces have that are read")


class FaceReader(nn.Module):
    """Latents [M, 16, T, h, w] and places of faces [M, T, 4] (`face_places`) -> what each does in its four frames,
    [M, T, 4, D], less the mean and over the spread of the clips that it learnt from."""

    middle: Tensor
    spread: Tensor
    worth: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip((16, *WIDTHS[:-1]), WIDTHS, strict=True)):
            layers += [nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1), nn.SiLU()]
        side = SIDE // 2 ** (len(WIDTHS) - 1)
        self.look = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * side**2, 256), nn.SiLU())
        self.answer = nn.Linear(256, 4 * len(TOLD))
        self.register_buffer("middle", torch.zeros(len(TOLD)))
        self.register_buffer("spread", torch.ones(len(TOLD)))
        worth = torch.tensor([WEIGHTS.get(name, 1.0) for name in TOLD])
        self.register_buffer("worth", worth / worth.sum(), persistent=False)

    def forward(self, latents: Tensor, place: Tensor) -> Tensor:
        cuts = cut(latents, place)
        answers: Tensor = self.answer(self.look(cuts.flatten(0, 1)))
        return answers.view(*cuts.shape[:2], 4, len(TOLD))

    def error(self, off: Tensor) -> Tensor:
        """Squares of errors of answers, [M, T, 4, D], as much as each counts: means [M, T]."""
        return (off.square() * self.worth).sum(-1).mean(-1)

    def told(self, clips: WorldClips) -> Tensor:
        """What it should answer, [M, T, 4, D]."""
        return (in_fours(clips.does.float()) - self.middle) / self.spread


@dataclass(frozen=True)
class Reading:
    """A trained reader, and how much what it reads counts: see `ReadingSettings`."""

    reader: FaceReader
    weight: float
    until: float
    least: float

    def error(self, off: Tensor, sigma: Tensor, clips: WorldClips) -> Tensor:
        """How far what a prediction's faces do is from what the true latents' faces do, in squared spreads: a mean.

        The prediction is the clean latents that the velocity leads to. The reader's own answers are the truth: what latents
        do not tell (small faces, hidden ones) is not asked for, and true latents have no error.

        Args:
            off: predicted minus true velocity, [M, 16, T+1, h, w]. sigma: [M] times.
        """
        place, size = face_places(clips.face_box)
        truth = clips.target.float()
        made = truth - sigma.view(-1, 1, 1, 1, 1) * off[:, :, 1:]
        with torch.no_grad():
            wanted = self.reader(truth, place)
        error = self.reader.error(self.reader(made, place) - wanted)
        told = (size >= self.least).to(error.dtype)
        trust = (1 - sigma / self.until).clamp_min(0)
        return (error * told * trust.unsqueeze(1)).sum() / told.sum().clamp_min(1)


def face_places(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of faces [M, K, 4] -> for each latent frame where to cut, [M, T, 4] latent pixels, and the faces' mean side [M, T].

    Where a face is not seen in all frames, the side is 0.
    """
    four = in_fours(boxes.float())
    low, high = four[..., :2], four[..., 2:]
    seen = (high > low).all(-1).all(-1)
    middle = ((low + high) / 2).mean(2)
    sides = (high - low).mean(2)
    reach = (sides.amax(-1, keepdim=True) * (ROOM / 2)).clamp_min(0.5)
    return torch.cat((middle - reach, middle + reach), dim=-1), sides.mean(-1) * seen


def cut(latents: Tensor, place: Tensor) -> Tensor:
    """Latents [M, C, T, h, w], resampled at places [M, T, 4]: [M, T, C, SIDE, SIDE].

    Linear between pixels; where a cut has more pixels than points, all count. Outside the picture is 0.
    """
    height, width = latents.shape[-2:]
    rows, columns = _along(place[..., 1], place[..., 3], height), _along(place[..., 0], place[..., 2], width)
    return torch.einsum("mcthw,mtyh,mtxw->mtcyx", latents, rows, columns)


def _along(low: Tensor, high: Tensor, size: int) -> Tensor:
    """What each of `size` pixels counts in SIDE points between `low` and `high` [M, T]: [M, T, SIDE, size]."""
    step = ((high - low) / SIDE)[..., None, None]
    points, pixels = (torch.arange(n, device=low.device) + 0.5 for n in (SIDE, size))
    reach = step.clamp_min(1)
    apart = (low[..., None, None] + step * points[:, None] - pixels).abs()
    return (1 - apart / reach).clamp_min(0) / reach


def train_reader(
    config: ReaderTraining, data: LatentSet, fresh: LatentSet, out: Path, device: torch.device, record: bool = False
) -> FaceReader:
    """Returns the averaged reader; `out` gets reader.pt and log.jsonl, whose last lines have R2 on the clips `fresh`.

    `record`: see `recording.RecordedStep`.
    """
    torch.manual_seed(config.seed)
    reader = FaceReader().to(device)
    reader.middle, reader.spread = _spread(data)
    weights = list(reader.parameters())
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.01)
    ema = Ema(reader, 0.998)
    log = Log(out / "log.jsonl")
    generator = torch.Generator("cpu").manual_seed(config.seed)

    def measure(*fields: Tensor) -> tuple[Tensor]:
        clips = WorldClips(*fields)
        place, size = face_places(clips.face_box)
        noise = config.noise * torch.rand(len(clips), 1, 1, 1, 1, device=device) * torch.randn_like(clips.target)
        error = reader.error(reader(clips.target + noise, place) - reader.told(clips))
        told = (size >= SIZES[0]).to(error.dtype)
        return ((error * told).sum() / told.sum().clamp_min(1),)

    step, budget, total = step_for(record)(measure, weights), Budget(config.steps, config.seconds), torch.zeros(())
    total = total.to(device)
    while not budget.over:
        for group in optimizer.param_groups:
            group["lr"] = config.rate * learning_share(budget.step, budget.progress)
        (loss,) = step(*vars(data.draw(config.batch, generator)).values())
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        ema.update(budget.step)
        total += loss
        budget.tick()
        if budget.step % 200 == 0 or budget.over:
            since = budget.step % 200 or 200
            log.write(step=budget.step, seconds=budget.spent, loss=total.item() / since, clips=len(data))
            total.zero_()
    reader.load_state_dict(ema.shadow)
    reader.eval().requires_grad_(False)
    save_state(out / FILE, **{k: v.cpu() for k, v in reader.state_dict().items()})
    for least, most in ((SIZES[0], SIZES[-1]), *pairwise(SIZES)):
        faces, scores = reader_r2(reader, fresh, least, most)
        log.write(what="R2", least=least, most=most, faces=faces, **scores)
    return reader


def load_reader(folder: Path, device: torch.device) -> FaceReader:
    """What `train_reader` left in a folder.

    Raises:
        InputError: it has left nothing there.
    """
    if not (folder / FILE).is_file():
        raise InputError("reader", folder, f"it has no {FILE}", "Run `reader` first.")
    reader = FaceReader()
    reader.load_state_dict(load_state(folder / FILE))
    return reader.to(device).eval().requires_grad_(False)


@torch.no_grad()
def reader_r2(reader: FaceReader, clips: LatentSet, least: float, most: float) -> tuple[int, dict[str, float]]:
    """How many faces (a face a latent frame) of these sizes in latent pixels there are, and R2 by name of TOLD: what the
    answers explain, as a share of the variance of all clips."""
    errors, truths = [], []
    for part in (part for parts in clips.kinds for part in parts):
        place, size = face_places(part.face_box)
        truth = reader.told(part)
        errors.append((reader(part.target.float(), place) - truth)[(size >= least) & (size < most)])
        truths.append(truth.flatten(0, 2))
    missed = torch.cat(errors).square().mean((0, 1)) / torch.cat(truths).var(0).clamp_min(1e-9)
    return sum(map(len, errors)), dict(zip(TOLD, (1 - missed).tolist(), strict=True))


def _spread(data: LatentSet) -> tuple[Tensor, Tensor]:
    """Mean and spread of what the faces of clips do, [D] each."""
    does = torch.cat([part.does.float().flatten(0, 1) for parts in data.kinds for part in parts])
    return does.mean(0), does.std(0).clamp_min(0.02)
