"""Train a network that reads from latents what faces do; the transformer's training asks its predictions for the same.

    python -m mannequin reader --vae build/train/vae --out build/train/reader
    python -m mannequin transformer --reader build/train/reader ...

Eyes and mouth are a few of a thousand latent pixels: the flow's loss hardly notices whether they do what they should.
Letters: M clips, K frames, T = (K+3)/4 latent frames, h w latent rows and columns, D = len(TOLD) things that a face does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mannequin.options import option
from mannequin.training.averages import Ema, Losses
from mannequin.training.clip_latents import WorldClips, encode, in_fours, seen_faces, to_video
from mannequin.training.motion import TOLD, WEIGHTS, told
from mannequin.training.pool import WORLD
from mannequin.training.recording import step_for
from mannequin.world.world import World
from wanimate.errors import InputError
from wanimate.model.vae import VideoVae
from wanimate.train.common import Budget, Log, learning_share, load_state, save_state, set_rate

FILE = "reader.pt"
FRAMES, PICTURE = 5, 144
"""Of its clips. Short and small ones show more people; sizes of faces and not of pictures matter."""
READ_WORLD = replace(WORLD, replacement=0.0, near=0.75, face_size=16, view=256 / PICTURE)
"""What is rendered for a reader: faces as large as in pictures of 256x256."""
SIDE = 12
"""Points of a face's cut, in each direction."""
ROOM = 1.25
"""Side of a cut over the longer side of the face's box."""
SIZES = (2.0, 3.0, 4.0, 5.0, 6.5, 9.0, 1000.0)
"""Bounds of the sizes for which R2 is logged; a reader learns from all of them."""
WIDTHS = (96, 160, 192)


@dataclass(frozen=True)
class ReaderTraining:
    """Clips are rendered in parts; the pool begins with `first` of them and goes on getting new ones.

    A reader that sees the same people too often learns them by heart: more of the time goes into rendering than into steps.
    """

    steps: int = option(20000, "most steps; the run ends by whichever limit comes first")
    seconds: float = option(120.0, "training time; the learning rate falls to zero at its end")
    batch: int = option(128, "clips of a step")
    clips: int = option(96, "clips rendered at once")
    first: int = option(16, "parts that the pool begins with")
    renew: int = option(16, "steps between two new parts")
    rate: float = option(2e-3, "peak learning rate")
    noise: float = option(0.5, "most noise on the latents, over their spread")
    shift: float = option(0.1, "most by which cuts lie off, over their side")
    seed: int = option(0, "of clips, noise and first weights")


@dataclass(frozen=True)
class ReadingSettings:
    """What the reader's loss is in the transformer's training.

    Noisy latents tell by themselves whether a mouth is open up to a noise of 0.8, whether eyes are shut up to 0.75 (faces of
    70 pixels; dev/LOG.md, 2026-11-30). What conditions say about them is decided above: `reading_until` is not small.
    """

    reader: Path | None = option(None, "folder of a reader's training, which adds its loss; left out: no such loss")
    reading_weight: float = option(1.0, "weight of the reader's loss")
    reading_until: float = option(
        1.0, "noise, 0 to 1, from which on the reader is not asked; its weight falls to 0 there"
    )
    reading_least: float = option(3.0, "latent pixels, 8 of the picture, that the faces have that are read")


@dataclass
class Faces:
    """latents: float16 [M, 16, T, h, w]; does: what the faces do, [M, K, D]; box: see `WorldClips.face_box`, [M, K, 4]."""

    latents: Tensor
    does: Tensor
    box: Tensor


Render = Callable[[int, int, bool], Faces]
"""(people, seed, held out) -> a clip of each."""


def renderer(world: World, codec: VideoVae) -> Render:
    def render(people: int, seed: int, held_out: bool) -> Faces:
        batch = world.sample_batch(people, FRAMES, PICTURE, PICTURE, seed, held_out)
        return Faces(encode(codec, to_video(batch.video), min(people, 32)), told(batch), seen_faces(batch))

    return render


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

    def truth(self, does: Tensor) -> Tensor:
        """What it should answer, [M, T, 4, D], where faces do `does` [M, K, D]."""
        return (in_fours(does) - self.middle) / self.spread

    def error(self, off: Tensor) -> Tensor:
        """Squares of errors of answers, [M, T, 4, D], as much as each counts: means [M, T]."""
        return (off.square() * self.worth).sum(-1).mean(-1)


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
        trust = (1 - sigma / self.until).clamp_min(0).unsqueeze(1)
        asked = (size >= self.least).to(error.dtype)
        return (error * asked * trust).sum() / asked.sum().clamp_min(1)


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
    config: ReaderTraining, render: Render, out: Path, device: torch.device, record: bool = False
) -> FaceReader:
    """Returns the averaged reader; `out` gets reader.pt and log.jsonl, whose last lines have R2 of held-out people.

    `record`: see `recording.RecordedStep`.
    """
    torch.manual_seed(config.seed)
    seeds = count(1_000_000 * (1 + config.seed))
    parts = [render(config.clips, next(seeds), False) for _ in range(config.first)]
    reader = FaceReader().to(device)
    does = torch.cat([part.does.flatten(0, 1) for part in parts])
    reader.middle, reader.spread = does.mean(0), does.std(0).clamp_min(0.02)
    weights = list(reader.parameters())
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.05)
    ema = Ema(reader, 0.998)
    log = Log(out / "log.jsonl")
    generator = torch.Generator("cpu").manual_seed(config.seed)

    def measure(latents: Tensor, does: Tensor, box: Tensor) -> tuple[Tensor]:
        place, size = face_places(box)
        shape = (len(box), 1, 1, 1, 1)
        noisy = latents + config.noise * torch.rand(shape, device=device) * torch.randn_like(latents)
        shift = config.shift * (2 * torch.rand(len(box), 1, 2, device=device) - 1)
        place = place + (shift * (place[..., 2:] - place[..., :2])).repeat(1, 1, 2)
        error = reader.error(reader(noisy, place) - reader.truth(does))
        asked = (size >= SIZES[0]).to(error.dtype)
        return ((error * asked).sum() / asked.sum().clamp_min(1),)

    step, budget = step_for(record)(measure, weights), Budget(config.steps, config.seconds)
    losses = Losses(log, budget, device)
    while not budget.over:
        if budget.step % config.renew == config.renew - 1:
            parts.append(render(config.clips, next(seeds), False))
        set_rate(optimizer, config.rate * learning_share(budget.step, budget.progress))
        (loss,) = step(*_draw(parts, config.batch, generator))
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        ema.update(budget.step)
        budget.tick()
        losses.add(loss, parts=len(parts))
    reader.load_state_dict(ema.shadow)
    reader.eval().requires_grad_(False)
    save_state(out / FILE, **{k: v.cpu() for k, v in reader.state_dict().items()})
    fresh = [render(config.clips, seed, True) for seed in range(6)]
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
def reader_r2(reader: FaceReader, parts: list[Faces], least: float, most: float) -> tuple[int, dict[str, float]]:
    """How many faces (a face a latent frame) of these sizes in latent pixels there are, and R2 by name of TOLD: what the
    answers explain, as a share of the variance of all clips."""
    errors, truths = [], []
    for part in parts:
        place, size = face_places(part.box)
        truth = reader.truth(part.does)
        errors.append((reader(part.latents.float(), place) - truth)[(size >= least) & (size < most)])
        truths.append(truth.flatten(0, 2))
    missed = torch.cat(errors).square().mean((0, 1)) / torch.cat(truths).var(0).clamp_min(1e-9)
    return sum(map(len, errors)), dict(zip(TOLD, (1 - missed).tolist(), strict=True))


def _draw(parts: list[Faces], batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, what the faces do, and their boxes, of `batch` clips from eight parts."""
    drawn = []
    for which in torch.randint(len(parts), (8,), generator=generator).tolist():
        part = parts[which]
        index = torch.randint(len(part.box), (batch // 8,), generator=generator).to(part.box.device)
        drawn.append((part.latents[index].float(), part.does[index], part.box[index]))
    latents, does, box = map(torch.cat, zip(*drawn, strict=True))
    return latents, does, box
