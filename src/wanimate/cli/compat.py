"""The published command lines, `generate.py` and `preprocess_data.py`, on this engine.

Flags and defaults are the published ones (model spec, section 10.2; preprocess spec, section 1). Three published defects are
fixed unless --compat is given, and each fix is told: the overlap defaults to 1, a result has its guides' rate, and guides
are lossless under the published file names.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from wanimate.cli.build import command
from wanimate.cli.engine import run
from wanimate.cli.published import GENERATE_NAMES, PREPROCESS_NAMES, SIZES, TASK, GenerateFlags, PreprocessFlags
from wanimate.cli.report import Reporter, told
from wanimate.config import (
    ClipLimits,
    Detectors,
    GenerateSettings,
    Mode,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    Retarget,
    RuntimeSettings,
)
from wanimate.errors import InputError, plainly

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.events import Event
    from wanimate.preprocess.detect.base import PoseBackend
    from wanimate.types import Frame, Guides

PUBLISHED_FPS = Fraction(30)
DETECTORS = ("det", "pose2d")
"""Folders of a process_checkpoint that the published detectors need."""
TRUTH = ("true", "false", "1", "0", "yes", "no")


@command(names=GENERATE_NAMES, otherwise=plainly)
def generate(report: Reporter, flags: GenerateFlags) -> None:
    """The published generate.py: guides to video.

    [cyan]python generate.py --task animate-14B --ckpt_dir DIR --src_root_path RESULTS --refert_num 1[/cyan]
    """
    ckpt_dir, src_root_path = _allowed(flags)
    compat, prompt = flags.compat, flags.prompt
    notes: list[str] = []  # told where the job runs, once, however many processes share it
    settings = GenerateSettings(
        steps=flags.sample_steps, solver=flags.sample_solver, shift=flags.sample_shift,  # type: ignore[arg-type]
        guidance=1.0 if flags.sample_guide_scale is None else flags.sample_guide_scale, clip_length=flags.frame_num,
        overlap=_overlap(notes.append, flags.refert_num, compat), seed=None if flags.base_seed < 0 else flags.base_seed,
        prompt="" if compat else prompt or "", compat=compat, relight=flags.use_relighting_lora,
    )  # fmt: skip
    output = OutputSettings(audio=not compat, composite=not compat)
    from wanimate.runtime.parallel.ranks import launched

    alone = max(flags.ulysses_size, launched()) == 1
    for flag, given, why in (
        ("offload_model", flags.offload_model is not None, "memory is managed by the engine"),
        ("convert_model_dtype", flags.convert_model_dtype, "on a GPU the weights are bfloat16 anyway"),
        ("dit_fsdp", flags.dit_fsdp and alone, "there is one GPU; give --ulysses_size, or use torchrun"),
        ("t5_fsdp", flags.t5_fsdp, "the text encoder runs on one GPU and only for the prompt"),
    ):
        if given:
            notes.append(f"--{flag} has no effect: {why}")
    if compat and prompt:
        notes.append("--compat: as published, --prompt only names the file")
    guides = _guides(notes.append, src_root_path, "replacement" if flags.replace_flag else "animation", compat)
    out = flags.save_file or Path(default_name(flags.size, flags.ulysses_size, prompt, compat))
    parallel = ParallelSettings(gpus=flags.ulysses_size, shard_weights=flags.dit_fsdp and not alone)

    from wanimate.events import Notice

    def job(animator: Animator) -> Iterator[Event]:
        yield from (Notice(text) for text in notes)
        yield from animator.generate(guides, out, settings, output)

    run(report, ckpt_dir, RuntimeSettings(), parallel, (out, job), text_on_cpu=flags.t5_cpu)


def _allowed(flags: GenerateFlags) -> tuple[Path, Path]:
    """Refuses what cannot be; returns checkpoint and guides."""
    if flags.task != TASK:
        remedy = f"Give {TASK}, or use the published code."
        raise InputError("task", flags.task, "this engine does Animate only", remedy)
    if flags.size not in SIZES:
        rule = f"it has to be {' or '.join(SIZES)} for {TASK}"
        remedy = "Set the result's size with preprocess_data.py --resolution_area."
        raise InputError("size", flags.size, rule, remedy)
    folders = _needed("ckpt_dir", flags.ckpt_dir), _needed("src_root_path", flags.src_root_path)
    if flags.sample_solver not in ("unipc", "dpm++"):
        raise InputError("sample_solver", flags.sample_solver, "there is no such solver", "Give unipc or dpm++.")
    if flags.offload_model is not None and flags.offload_model.lower() not in TRUTH:
        remedy = "Leave it out: it has no effect."
        raise InputError("offload_model", flags.offload_model, "it is true or false", remedy)
    return folders


@command(names=PREPROCESS_NAMES, otherwise=plainly)
def preprocess(report: Reporter, flags: PreprocessFlags) -> None:
    """The published preprocess_data.py: clip and picture to guides.

    [cyan]python preprocess_data.py --ckpt_path DIR --video_path V --refer_path I --save_path OUT --resolution_area 1280 720
    --retarget_flag[/cyan]
    """
    video, picture = _needed("video_path", flags.video_path), _needed("refer_path", flags.refer_path)
    out = _needed("save_path", flags.save_path)
    settings = _preprocess_settings(report, flags)
    from wanimate.media.image import load_image
    from wanimate.media.probe import probe
    from wanimate.preprocess.detect.registry import open_detector

    clip, said = probe(video, settings.limits), list[str]()
    image = load_image(picture, notices=said)
    for text in said:
        _note(report, text)
    people: PoseBackend = open_detector(settings)
    redrawn: Mapping[str, Frame] = {}
    if flags.use_flux and not flags.replace_flag:
        from wanimate.integrations.flux import WithEditedProportions

        people = measuring = WithEditedProportions.load(people, flags.ckpt_path, flags.compat)
        redrawn = measuring.pictures
    if not flags.compat:
        _note(report, "guides are lossless, under the published names; --compat writes them lossy, as published")
    from wanimate.integrations.published import write_published_guides

    mode: Mode = "replacement" if flags.replace_flag else "animation"
    writing = write_published_guides(mode, clip, image, settings, out, people, (video, picture), redrawn)
    guides = told(report, writing)
    width, height = guides.size
    data = {"guides": out, "frames": guides.count, "width": width, "height": height, "fps": guides.fps}
    report.done(data, f"{out}: {guides}")


def _preprocess_settings(report: Reporter, flags: PreprocessFlags) -> PreprocessSettings:
    if min(flags.resolution_area) < 1:
        remedy = "Give for instance 1280 720."
        raise InputError("resolution_area", flags.resolution_area, "two positive numbers", remedy)
    if flags.fps < 1 and flags.fps != -1:
        raise InputError("fps", flags.fps, "a rate is positive, or -1 for the clip's own", "Give 30 or -1.")
    if flags.use_flux and not (flags.retarget_flag or flags.replace_flag):
        raise InputError("use_flux", True, "it serves retargeting only", "Give --retarget_flag as well.")
    given = ("retarget_flag", flags.retarget_flag), ("use_flux", flags.use_flux)
    ignored = [f"--{flag}" for flag, on in given if on]
    if flags.replace_flag and ignored:
        rule = "with --replace_flag the skeleton stays the performer's"
        _note(report, f"{' and '.join(ignored)} without effect: {rule}")
    backend, models = _detectors(report, flags.ckpt_path)
    return PreprocessSettings(
        area=flags.resolution_area[0] * flags.resolution_area[1], fps=None if flags.fps == -1 else Fraction(flags.fps),
        max_fps=Fraction(1000), retarget=_retarget(flags.replace_flag, flags.retarget_flag, flags.compat),
        compat=flags.compat, backend=backend, models=models, iterations=flags.iterations, k=flags.k, w_len=flags.w_len,
        h_len=flags.h_len,
        limits=ClipLimits(min_seconds=0, max_seconds=None, min_side=16, max_aspect=1000, max_bytes=2**40),
    )  # fmt: skip


def default_name(size: str, gpus: int, prompt: str | None, compat: bool) -> str:
    """The published name of a result; without `compat` its `*`, which shells expand, is an x."""
    from wanimate.weights.prompts import DEFAULT_PROMPT

    words = (prompt or DEFAULT_PROMPT).replace(" ", "_").replace("/", "_")[:50]
    time = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    return f"{TASK}_{size if compat else size.replace('*', 'x')}_{gpus}_{words}_{time}.mp4"


def _needed(name: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(name, None, "it is needed", "See --help.")
    return path


def _note(report: Reporter, text: str) -> None:
    from wanimate.events import Notice

    report.event(Notice(text))


def _overlap(note: Callable[[str], None], given: int | None, compat: bool) -> Literal[1, 5]:
    if given is None and not compat:
        note("--refert_num was not given: 1 is taken (the published default, 77, is not a possible value)")
        return 1
    overlap = 77 if given is None else given
    if overlap == 1:
        return 1
    if overlap == 5:
        return 5
    raise InputError("refert_num", overlap, "segments share 1 or 5 frames", "Give --refert_num 1 or 5.")


def _retarget(replace: bool, wanted: bool, compat: bool) -> Retarget | None:
    if replace:
        return None
    if not wanted:
        return "off"
    return "published" if compat else "auto"


def _detectors(report: Reporter, folder: Path | None) -> tuple[Detectors, Path | None]:
    """The published detectors where their files are, else MediaPipe's."""
    if folder is not None and not folder.is_dir():
        remedy = "Give process_checkpoint of the 14B's folder."
        raise InputError("ckpt_path", folder, "there is no such folder", remedy)
    if folder is not None and any((folder / part).exists() for part in DETECTORS):
        return "published", folder
    where = "--ckpt_path was not given" if folder is None else f"{folder} holds neither det nor pose2d"
    _note(report, f"{where}: MediaPipe's detectors are used instead of the published ones")
    return "mediapipe", None


def _guides(note: Callable[[str], None], folder: Path, mode: Mode, compat: bool) -> Guides:
    """The folder's guides for the wanted mode; with `compat` at 30 frames/s and with the mask's greys."""
    from wanimate.media.video import VideoFrames
    from wanimate.preprocess.guides import load_guides

    guides = load_guides(folder)
    if mode == "replacement" and guides.mode == "animation":
        rule = "scene and mask are missing, so these guides are for animation"
        raise InputError("guides", folder, rule, "Run preprocess_data.py with --replace_flag.")
    if mode == "animation" and guides.mode == "replacement":
        note("scene and mask of the guides are left out: --replace_flag was not given")
        guides = dataclasses.replace(guides, mode="animation", background=None, mask=None)
    if not compat:
        if guides.fps != PUBLISHED_FPS:
            note(f"the result has the guides' {float(guides.fps):g} frames/s, not the published fixed 30")
        return guides
    lossy = folder / "src_mask.mp4"
    if guides.mask is not None and lossy.is_file():
        guides = dataclasses.replace(guides, mask=VideoFrames(lossy, field="guides"))
    return dataclasses.replace(guides, fps=PUBLISHED_FPS)


app = typer.Typer(name="compat", no_args_is_help=True, rich_markup_mode="rich", help="The published command lines.")
app.command(no_args_is_help=True)(generate)
app.command(no_args_is_help=True)(preprocess)
