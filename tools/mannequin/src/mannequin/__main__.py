"""Train the embedded checkpoint.

python -m mannequin vae --out build/train/vae
python -m mannequin motion --out build/train/motion
python -m mannequin reader --vae build/train/vae --out build/train/reader
python -m mannequin transformer --vae build/train/vae --motion build/train/motion --reader build/train/reader \
    --out build/train/transformer
python -m mannequin package --vae build/train/vae --transformer build/train/transformer --out build/mannequin
python -m mannequin relight --checkpoint build/mannequin --out build/train/relight
python -m mannequin clips --vae build/train/vae --feed /dev/shm/clips      # beside a training with the same --feed

vae, transformer and relight use several GPUs when they are started by torchrun --nproc-per-node N -m -- mannequin.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mannequin.options import REQUIRED, add_options, option, read
from mannequin.training.motion import FACES, MotionTraining, renderer, train_motion
from mannequin.training.networks import TRANSFORMER
from mannequin.training.package import package as write_package
from mannequin.training.pieces import Join, Pack, join_pieces
from mannequin.training.pieces import pack as write_pieces
from mannequin.training.pool import SIZES, WORLD, ClipPool, importance
from mannequin.training.ranks import join
from mannequin.training.reader import (
    READ_WORLD,
    ReaderTraining,
    Reading,
    ReadingSettings,
    load_reader,
    train_reader,
)
from mannequin.training.reader import renderer as face_renderer
from mannequin.training.relight import LightLoss, RelightSettings, train_relighting
from mannequin.training.reports import SampleReport, report_samples
from mannequin.training.run import CUDA, Once, Run
from mannequin.training.supply import ClipSettings, Rendering, SupplySettings, fill, gather, held_out_clips
from mannequin.training.transformer import FlowTraining, train_flow
from mannequin.training.vae import VaeTraining, latent_statistics, load_trained_vae, speed_up, train_vae, weights_in
from mannequin.training.vae_report import HeldOut, VaeReport, report_vae
from mannequin.world.assets import load
from mannequin.world.world import World
from wanimate.config import Defaults
from wanimate.errors import InputError, WanimateError
from wanimate.train.common import Log, save_state

NOTE = "it knows only the mannequins it was trained on; for real characters pass --checkpoint with Wan2.2-Animate-14B"


@dataclass(frozen=True)
class VaeClips:
    """The clips that a VAE is trained on."""

    pool: int = option(240, "clips of each size kept on the device")
    part: int = option(24, "clips rendered at once")
    frames: int = option(17, "frames of a clip, 4n+1")
    compiled: bool = option(CUDA, "compile the shading: a minute once, then twice as fast (GPU only)")


@dataclass(frozen=True)
class Trained:
    """What `package` and `transformer` take from earlier trainings."""

    vae: Path = option(REQUIRED, "folder of the VAE's training, or a checkpoint folder")


@dataclass(frozen=True)
class MotionTrained:
    motion: Path | None = option(None, "folder of the motion encoder's training; left out: that of --start or --resume")


@dataclass(frozen=True)
class HeldOutClips:
    fresh: Path | None = option(None, "folder of clips of held-out people, whose loss is logged: see `clips`")


@dataclass(frozen=True)
class Packaged(Trained):
    transformer: Path = option(REQUIRED, "folder of the transformer's training")
    out: Path = option(REQUIRED, "checkpoint folder to write")


@dataclass(frozen=True)
class Base:
    checkpoint: Path = option(REQUIRED, "checkpoint folder the LoRA is for")


def vae(given: argparse.Namespace) -> None:
    """Train the VAE; writes vae.pt and statistics.pt. --start: a checkpoint folder, or a folder of a training."""
    run, settings, wanted = read(Run, given), read(VaeTraining, given), read(VaeClips, given)
    ranks, where = join(run.device)
    mannequins = World(load(device=where), replace(WORLD, compiled=wanted.compiled, face_size=16))

    def render(count: int, width: int, height: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = mannequins.sample_batch(count, wanted.frames, width, height, seed)
        sticks = (batch.skeleton.amax(-1, keepdim=True) > 20).to(torch.uint8) * 128
        weight = importance(batch.region, batch.cover)[..., None]
        return torch.cat((batch.video, weight), -1), torch.cat((batch.skeleton, sticks), -1)

    started = time.monotonic()
    clips = ClipPool(render, wanted.pool, wanted.part, seed=1_000_000 * (64 * settings.seed + ranks.rank))
    if ranks.first:
        seconds = time.monotonic() - started
        Log(run.out / "log.jsonl").write(what="pool", clips=len(SIZES) * wanted.pool, seconds=seconds)
        if run.start is not None:  # so that a run cut short can be used as well
            known = load_trained_vae(run.start, torch.device("cpu")).params
            save_state(run.out / "statistics.pt", mean=list(known.mean), std=list(known.std))
    start = None if run.start is None else weights_in(run.start)
    trained = train_vae(settings, clips, run.out, where, run.resume, start, ranks, run.record)
    # The latents of an encoder that stays keep their statistics.
    kept = settings.decoder_only and (run.out / "statistics.pt").is_file()
    if ranks.first and not kept:
        mean, std = latent_statistics(trained, clips)
        save_state(run.out / "statistics.pt", mean=mean, std=std)


def motion(given: argparse.Namespace) -> None:
    """Train the motion encoder on rendered faces; writes motion.pt. --start: the folder of an earlier training."""
    run, settings = read(Run, given), read(MotionTraining, given)
    _, where = join(run.device)
    world = World(load(device=where), replace(FACES, face_size=TRANSFORMER.motion.size))
    train_motion(settings, renderer(world), run.out, where, run.start)


def reader(given: argparse.Namespace) -> None:
    """Train what reads from latents what faces do, for `transformer --reader`; writes reader.pt."""
    run, settings = read(Once, given), read(ReaderTraining, given)
    _, where = join(run.device)
    codec = load_trained_vae(read(Trained, given).vae, where)
    if where.type == "cuda":
        speed_up(codec)
    render = face_renderer(World(load(device=where), READ_WORLD), codec)
    train_reader(settings, render, run.out, where, run.record)


def transformer(given: argparse.Namespace) -> None:
    """Render and encode clips, then train the transformer on them; writes transformer.pt. --start: a checkpoint folder."""
    run, settings, wanted = read(Run, given), read(FlowTraining, given), read(ClipSettings, given)
    trained, held_out = read(Trained, given), read(HeldOutClips, given).fresh
    encoder, asked = read(MotionTrained, given).motion, read(ReadingSettings, given)
    if encoder is None and run.start is None and not run.resume:
        raise InputError("motion", None, "a new transformer needs a trained motion encoder", "Run `motion` first.")
    ranks, where = join(run.device)
    log = Log(run.out / "log.jsonl")
    fresh = None if held_out is None else held_out_clips(held_out, wanted, where)
    codec = load_trained_vae(trained.vae, where)
    data = gather(codec, wanted, read(SupplySettings, given), where, log, ranks)
    # Muon's updates are orthogonal: its rate is ten times AdamW's.
    settings = replace(settings, matrix_rate=10 * settings.rate)
    reading = None
    if asked.reader is not None:
        eye = load_reader(asked.reader, where)
        reading = Reading(eye, asked.reading_weight, asked.reading_until, asked.reading_least)
    train_flow(settings, data, run.out, where, run.resume, run.start, ranks, run.record, encoder, fresh, reading)
    if ranks.first:
        log.write(what="clips seen by this process", count=data.seen)


def relight(given: argparse.Namespace) -> None:
    """Train a relighting LoRA: the reference stands in another light than the scene, the target in the scene's.

    Writes relighting_lora.safetensors, also on the way. The learning rate falls over the last 40 % of the time. --start: a
    LoRA of the same targets.
    """
    settings, loss = read(RelightSettings, given), read(LightLoss, given)
    clips, supply = read(ClipSettings, given), read(SupplySettings, given)
    train_relighting(settings, loss, read(Base, given).checkpoint, clips, supply, read(Run, given))


def clips(given: argparse.Namespace) -> None:
    """Render and encode clips beside trainings, or before them, into a folder from which they take them."""
    fill(read(Rendering, given), read(ClipSettings, given))


def package(given: argparse.Namespace) -> None:
    """Put trained networks into a checkpoint folder."""
    files = read(Packaged, given)
    defaults = Defaults(area=256 * 256, steps=4, shift=3.0, guidance=3.0, clip_length=33, overlap=5)
    write_package(files.vae, files.transformer, files.out, defaults, NOTE)


def pack(given: argparse.Namespace) -> None:
    """Write a training's state in files of limited size, averaged weights in float16 and no optimiser."""
    write_pieces(read(Pack, given))


def join_packed(given: argparse.Namespace) -> None:
    """Put the folder of a training together from the pieces that `pack` wrote."""
    join_pieces(read(Join, given))


def vae_report(given: argparse.Namespace) -> None:
    """PSNR of reconstructions of held-out people, their faces, hands and skeletons, and a picture of some."""
    report_vae(read(VaeReport, given), read(HeldOut, given))


def sample(given: argparse.Namespace) -> None:
    """Animate held-out people straight from their latents: PSNR against the render, and a picture of some."""
    report_samples(read(SampleReport, given))


COMMANDS: dict[Callable[[argparse.Namespace], None], tuple[type, ...]] = {
    vae: (Run, VaeTraining, VaeClips),
    motion: (Run, MotionTraining),
    reader: (Once, Trained, ReaderTraining),
    transformer: (
        Run,
        Trained,
        MotionTrained,
        HeldOutClips,
        FlowTraining,
        ReadingSettings,
        ClipSettings,
        SupplySettings,
    ),
    relight: (Run, Base, RelightSettings, LightLoss, ClipSettings, SupplySettings),
    clips: (Rendering, ClipSettings),
    package: (Packaged,),
    pack: (Pack,),
    join_packed: (Join,),
    vae_report: (VaeReport, HeldOut),
    sample: (SampleReport,),
}
"""What each command does, and the settings that its options are made from."""
OWN_DEFAULTS: dict[str, dict[str, float]] = {"relight": {"render_seconds": 30.0}, "clips": {"seed": 1000}}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mannequin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, settings in COMMANDS.items():
        text = command.__doc__ or ""
        name = command.__name__.replace("_", "-")
        own = commands.add_parser(name, help=text.splitlines()[0], description=text)
        add_options(own, *settings)
        own.set_defaults(command=command, **OWN_DEFAULTS.get(name, {}))
    given = parser.parse_args(words)
    try:
        given.command(given)
    except WanimateError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
