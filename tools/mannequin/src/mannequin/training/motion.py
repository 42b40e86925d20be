"""Train the motion encoder alone: pictures of faces -> vectors that tell what the faces do.

    python -m mannequin motion --out build/train/motion

A linear map has to read the world's expressions, gaze and lids from the vector of one picture. The map is thrown away, and
the transformer's training leaves the encoder as it is: what its vectors tell is known before (`benchmarks/motion_probe.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mannequin.options import option
from mannequin.training.averages import Ema, Losses, mixed
from mannequin.training.networks import TRANSFORMER, initialise_motion, quick_blur
from mannequin.training.photographs import photographed
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.world import World, WorldBatch, WorldSettings
from wanimate.model.motion import MotionEncoder
from wanimate.train.common import Budget, Log, learning_share, load_state, save_state, set_rate

TOLD = (*EXPRESSIONS, "gaze_x", "gaze_y", "eyes", "looks_right", "looks_down", "tilted")
"""What the vectors have to tell."""
WEIGHTS = {
    "jaw": 4.0, "eyes": 3.0, "blink_left": 2.0, "blink_right": 2.0, "gaze_x": 2.0, "gaze_y": 2.0, "looks_right": 2.0,
    "looks_down": 2.0, "tilted": 2.0,
}  # fmt: skip
"""How much errors count, others 1."""
FILE = "motion.pt"
FACES = WorldSettings(replacement=0.0, other_face=0.0, near=0.7, slowest=2.0, fastest=8.0)
"""What is rendered. Two faces of a pair are far apart in time."""
SIDE = 16
"""Of the pictures beside the faces: they are not looked at."""


@dataclass(frozen=True)
class MotionTraining:
    """Faces are rendered in parts of `clips` pairs from one person each; the pool begins with `first` parts and grows to
    `most`, the oldest going first."""

    steps: int = option(20000, "most steps; the run ends by whichever limit comes first")
    seconds: float = option(240.0, "training time; the learning rate falls to zero at its end")
    batch: int = option(512, "faces of a step")
    clips: int = option(256, "people rendered at once, two faces of each")
    first: int = option(24, "parts that the pool begins with")
    most: int = option(120, "parts that the pool holds")
    renew: int = option(14, "steps between two new parts")
    rate: float = option(1e-2, "peak learning rate; weights are scaled on use, so that it is higher than elsewhere")
    coarse: float = option(0.25, "share of the faces shown as if they had a quarter to all of their pixels")
    photographs: float = option(
        0.75, "share of the faces shown as photographs: skin, glasses, light, blur, compression"
    )
    seed: int = option(0, "of faces and first weights")


@dataclass
class Faces:
    """pictures: uint8 [N, S, S, 3]; told: float32 [N, len(TOLD)]; points: [N, 68, 2] of `WorldBatch.face_points`, if known."""

    pictures: Tensor
    told: Tensor
    points: Tensor | None = None


Render = Callable[[int, int, bool], Faces]
"""(people, seed, held out) -> two faces of each."""


def renderer(world: World) -> Render:
    """Trained people in loose crops, held-out ones in the world's own, so that R2 can be compared with earlier trainings."""
    loose = World(world.people, replace(world.settings, loose=True))

    def render(people: int, seed: int, held_out: bool) -> Faces:
        batch = (world if held_out else loose).sample_batch(people, 2, SIDE, SIDE, seed, held_out)
        return Faces(batch.face.flatten(0, 1), told(batch).flatten(0, 1), batch.face_points.flatten(0, 1))

    return render


def told(batch: WorldBatch) -> Tensor:
    """What the faces of a batch do, [n, F, len(TOLD)]."""
    return torch.cat((batch.expression, batch.gaze, batch.eyes.unsqueeze(-1), batch.head), dim=-1)


class Reader(nn.Module):
    """The motion encoder and the linear map that reads its coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder(TRANSFORMER.motion)
        initialise_motion(self.encoder)
        self.encoder.dec.requires_grad_(False)
        self.answer = nn.Linear(TRANSFORMER.motion.directions, len(TOLD))

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [B, 3, S, S] in [-1, 1] -> what they do over its spread, [B, len(TOLD)]."""
        return self.answer(self.encoder.enc(faces).float())


def train_motion(
    config: MotionTraining, render: Render, out: Path, device: torch.device, start: Path | None = None
) -> MotionEncoder:
    """Returns the averaged encoder; `out` gets motion.pt and log.jsonl, whose last line has R2 of held-out people's faces.

    `start`: folder of an earlier training to begin with.
    """
    torch.manual_seed(config.seed)
    reader = Reader()
    if start is not None:
        reader.encoder.load_state_dict(load_motion(start))
    reader.to(device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        quick_blur(reader)
        reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = [p for p in reader.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0)
    ema = Ema(reader, 0.998)
    log = Log(out / "log.jsonl")
    seeds = count(1_000_000 * (1 + config.seed))
    parts = [render(config.clips, next(seeds), False) for _ in range(config.first)]
    seen = torch.cat([p.told for p in parts])
    middle, spread = seen.mean(0), seen.std(0).clamp_min(0.02)
    worth = torch.tensor([WEIGHTS.get(name, 1.0) for name in TOLD], device=device)
    generator = torch.Generator("cpu").manual_seed(config.seed)
    cameras = torch.Generator(device).manual_seed(config.seed)
    budget = Budget(config.steps, config.seconds)
    losses = Losses(log, budget, device)
    while not budget.over:
        if budget.step % config.renew == config.renew - 1:
            parts = [*parts[-config.most + 1 :], render(config.clips, next(seeds), False)]
        faces = _draw(parts, config, generator, cameras)
        set_rate(optimizer, config.rate * learning_share(budget.step, budget.progress))
        with mixed(device):
            guess = reader(faces.pictures)
        error = (guess.float() - (faces.told - middle) / spread).square()
        loss = (error * worth).mean() / worth.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        ema.update(budget.step)
        budget.tick()
        losses.add(loss, parts=len(parts))
    reader.load_state_dict(ema.shadow)
    encoder = reader.encoder.eval().requires_grad_(False)
    save_state(out / FILE, **{k: v.cpu().contiguous() for k, v in encoder.state_dict().items()})
    log.write(what="R2", **held_out_r2(reader.eval(), render, config, middle, spread))
    return encoder


def load_motion(folder: Path) -> dict[str, Tensor]:
    """The encoder's weights in the folder of its training."""
    return load_state(folder / FILE)


def _draw(parts: list[Faces], config: MotionTraining, generator: torch.Generator, cameras: torch.Generator) -> Faces:
    """A batch from a few parts, some faces photographs and some coarse. `pictures` are the network's, [B, 3, S, S]."""
    drawn, sides = [], []
    for which in torch.randint(len(parts), (8,), generator=generator).tolist():
        part = parts[which]
        index = torch.randint(len(part.told), (config.batch // 8,), generator=generator)
        index = index.to(part.told.device, non_blocking=True)
        points = None if part.points is None else part.points[index]
        drawn.append(Faces(part.pictures[index], part.told[index], points))
        share = 1.0
        if torch.rand((), generator=generator) < config.coarse:
            share = 0.25 + 0.75 * float(torch.rand((), generator=generator))
        sides.append(max(2, round(part.pictures.shape[1] * share)))
    known = [faces.points for faces in drawn if faces.points is not None]
    points = torch.cat(known) if len(known) == len(drawn) else None
    pictures = to_network(torch.cat([faces.pictures for faces in drawn]))
    pictures = photographed(pictures, points, config.photographs, cameras)
    pictures = torch.cat([coarse(p, side) for p, side in zip(pictures.chunk(8), sides, strict=True)])
    return Faces(pictures, torch.cat([faces.told for faces in drawn]))


def to_network(pictures: Tensor) -> Tensor:
    """uint8 [N, S, S, 3] -> [N, 3, S, S] in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def coarse(pictures: Tensor, side: int) -> Tensor:
    """As if the face had `side` pixels: what a job's crops are enlarged from."""
    size = pictures.shape[-1]
    if side == size:
        return pictures
    small = F.interpolate(pictures, size=(side, side), mode="area")
    return F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)


@torch.no_grad()
def held_out_r2(
    reader: Reader, render: Render, config: MotionTraining, middle: Tensor, spread: Tensor, parts: int = 4
) -> dict[str, float]:
    """Share of the variance that the answers explain, by name of TOLD."""
    pairs = [_answered(reader, render(config.clips, seed, True)) for seed in range(parts)]
    guess, truth = torch.cat([g for g, _ in pairs]) * spread + middle, torch.cat([t for _, t in pairs])
    missed = (guess - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0).clamp_min(1e-9)
    return dict(zip(TOLD, (1 - missed).tolist(), strict=True))


def _answered(reader: Reader, faces: Faces) -> tuple[Tensor, Tensor]:
    answers: Iterator[Tensor] = map(reader, to_network(faces.pictures).split(256))
    return torch.cat(list(answers)), faces.told
