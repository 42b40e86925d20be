"""The published command lines, `generate.py` and `preprocess_data.py`, on this engine.

Flags and defaults are the published ones (model spec, section 10.2; preprocess spec, section 1). Three published defects are
fixed unless --compat is given, and each fix is told: the overlap defaults to 1, a result has its guides' rate, and guides
are lossless under the published file names.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wanimate.cli import options as o
from wanimate.cli.ranks import ranks_launched, run
from wanimate.cli.report import Reporter, reporting
from wanimate.config import (
    ClipLimits,
    GenerateSettings,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    RuntimeSettings,
)
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.config import Mode
    from wanimate.events import Event
    from wanimate.preprocess.detect.base import PoseBackend
    from wanimate.types import Frame, Guides

TASK = "animate-14B"
SIZES = ("1280*720", "720*1280")
PUBLISHED_FPS = Fraction(30)
DETECTORS = ("det", "pose2d")
"""Folders of a process_checkpoint that the published detectors need."""
GENERATE_NAMES = {
    "guides": "--src_root_path", "checkpoint": "--ckpt_dir", "out": "--save_file", "overlap": "--refert_num",
    "clip_length": "--frame_num", "solver": "--sample_solver", "steps": "--sample_steps", "shift": "--sample_shift",
    "guidance": "--sample_guide_scale", "seed": "--base_seed", "relight": "--use_relighting_lora",
    "lora": "--use_relighting_lora", "gpus": "--ulysses_size",
}  # fmt: skip
PREPROCESS_NAMES = {
    "models": "--ckpt_path", "video": "--video_path", "image": "--refer_path", "guides": "--save_path", "out": "--save_path",
    "area": "--resolution_area", "w_len": "--w_len", "h_len": "--h_len",
}  # fmt: skip


def _flag(name: str, help: str, *, panel: str = o.FILES, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=panel, **more)


Compat = Annotated[
    bool,
    _flag("--compat", "Follow the published code number for number, defects of its defaults included.", panel=o.RUN),
]


def generate(
    task: Annotated[str, _flag("--task", f"Only {TASK}.")] = TASK,
    size: Annotated[str, _flag("--size", f"{' or '.join(SIZES)}; part of the file's name, the guides decide.")] = SIZES[
        0
    ],
    frame_num: Annotated[
        int | None, _flag("--frame_num", "Frames of a segment, 4n+1.", panel=o.DIFFUSION, show_default=o.OWN)
    ] = None,
    ckpt_dir: Annotated[Path | None, _flag("--ckpt_dir", "Checkpoint folder, Wan2.2-Animate-14B; needed.")] = None,
    offload_model: Annotated[
        str | None, _flag("--offload_model", "true or false; without effect.", panel=o.RUN, show_default=False)
    ] = None,
    ulysses_size: Annotated[int, _flag("--ulysses_size", "GPUs that share the sequence.", panel=o.RUN)] = 1,
    t5_fsdp: Annotated[
        bool, _flag("--t5_fsdp", "Without effect: the text encoder is freed after use.", panel=o.RUN)
    ] = False,
    t5_cpu: Annotated[bool, _flag("--t5_cpu", "Keep the text encoder off the GPU.", panel=o.RUN)] = False,
    dit_fsdp: Annotated[
        bool, _flag("--dit_fsdp", "Share out the transformer's weights over the GPUs.", panel=o.RUN)
    ] = False,
    save_file: Annotated[
        Path | None, _flag("--save_file", "Result.", show_default="task, size, GPUs, prompt and time")
    ] = None,
    prompt: Annotated[
        str | None, _flag("--prompt", "Text for the network.", panel=o.DIFFUSION, show_default=o.OWN)
    ] = None,
    base_seed: Annotated[int, _flag("--base_seed", "Negative: drawn, and told.", panel=o.DIFFUSION)] = -1,
    sample_solver: Annotated[str, _flag("--sample_solver", "unipc or dpm++.", panel=o.DIFFUSION)] = "unipc",
    sample_steps: Annotated[
        int | None, _flag("--sample_steps", "Denoising steps.", panel=o.DIFFUSION, show_default=o.OWN)
    ] = None,
    sample_shift: Annotated[
        float | None, _flag("--sample_shift", "Shift of the schedule.", panel=o.DIFFUSION, show_default=o.OWN)
    ] = None,
    sample_guide_scale: Annotated[
        float | None, _flag("--sample_guide_scale", "Guidance scale.", panel=o.DIFFUSION, show_default="1.0")
    ] = None,
    convert_model_dtype: Annotated[
        bool, _flag("--convert_model_dtype", "Without effect: on a GPU weights are bfloat16.", panel=o.RUN)
    ] = False,
    src_root_path: Annotated[
        Path | None, _flag("--src_root_path", "Folder made by preprocess_data.py; needed.")
    ] = None,
    refert_num: Annotated[
        int | None,
        _flag(
            "--refert_num",
            "Frames that a segment takes over: 1 or 5.",
            panel=o.DIFFUSION,
            show_default="1; 77 with --compat",
        ),
    ] = None,
    replace_flag: Annotated[bool, _flag("--replace_flag", "Replacement instead of animation.")] = False,
    use_relighting_lora: Annotated[
        bool, _flag("--use_relighting_lora", "With --replace_flag: apply the checkpoint's relighting LoRA.")
    ] = False,
    compat: Compat = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """The published generate.py: guides to video.

    [cyan]python generate.py --task animate-14B --ckpt_dir DIR --src_root_path RESULTS --refert_num 1[/cyan]
    """  # fmt: skip
    notes: list[str] = []  # told where the job runs, once, however many processes share it
    with reporting(as_json, debug) as report, published_names(GENERATE_NAMES):
        if task != TASK:
            raise InputError(
                "--task", task, "this engine does Animate only", f"Give {TASK}, or use the published code."
            )
        if size not in SIZES:
            rule = f"it has to be {' or '.join(SIZES)} for {TASK}"
            raise InputError("--size", size, rule, "Set the result's size with preprocess_data.py --resolution_area.")
        ckpt_dir = _needed("--ckpt_dir", ckpt_dir)
        src_root_path = _needed("--src_root_path", src_root_path)
        if sample_solver not in ("unipc", "dpm++"):
            raise InputError("--sample_solver", sample_solver, "there is no such solver", "Give unipc or dpm++.")
        if offload_model is not None and offload_model.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise InputError("--offload_model", offload_model, "it is true or false", "Leave it out: it has no effect.")
        settings = o.make(
            GenerateSettings, steps=sample_steps, solver=sample_solver, shift=sample_shift,
            guidance=1.0 if sample_guide_scale is None else sample_guide_scale, clip_length=frame_num,
            overlap=_overlap(notes.append, refert_num, compat), seed=None if base_seed < 0 else base_seed,
            prompt="" if compat else prompt or "", compat=compat,
            relight=use_relighting_lora,
        )  # fmt: skip
        output = OutputSettings(audio=not compat, composite=not compat)
        alone = max(ulysses_size, ranks_launched()) == 1
        for flag, given, why in (
            ("--offload_model", offload_model is not None, "memory is managed by the engine"),
            ("--convert_model_dtype", convert_model_dtype, "on a GPU the weights are bfloat16 anyway"),
            ("--dit_fsdp", dit_fsdp and alone, "there is one GPU; give --ulysses_size, or use torchrun"),
            ("--t5_fsdp", t5_fsdp, "the text encoder runs on one GPU and only for the prompt"),
        ):
            if given:
                notes.append(f"{flag} has no effect: {why}")
        if compat and prompt:
            notes.append("--compat: as published, --prompt only names the file")
        guides = _guides(notes.append, src_root_path, "replacement" if replace_flag else "animation", compat)
        out = save_file or Path(default_name(size, ulysses_size, prompt, compat))
        parallel = o.make(ParallelSettings, gpus=ulysses_size, shard_weights=dit_fsdp and not alone)

        from wanimate.events import Notice

        def job(animator: Animator) -> Iterator[Event]:
            animator.engine.text_on_cpu = t5_cpu
            yield from (Notice(text) for text in notes)
            yield from animator.generate(guides, out, settings, output)

        run(report, ckpt_dir, RuntimeSettings(), parallel, out, job)


def preprocess(
    ckpt_path: Annotated[
        Path | None,
        _flag("--ckpt_path", "process_checkpoint folder, with det and pose2d in it.", show_default="MediaPipe"),
    ] = None,
    video_path: Annotated[Path | None, _flag("--video_path", "Clip of the performer; needed.")] = None,
    refer_path: Annotated[Path | None, _flag("--refer_path", "Picture of the character; needed.")] = None,
    save_path: Annotated[Path | None, _flag("--save_path", "Folder for the guides; needed.")] = None,
    resolution_area: Annotated[
        tuple[int, int], _flag("--resolution_area", "Two numbers whose product is the pixel area.", panel=o.MOTION)
    ] = (1280, 720),
    fps: Annotated[int, _flag("--fps", "Frame rate; -1 is the clip's own.", panel=o.MOTION)] = 30,
    replace_flag: Annotated[bool, _flag("--replace_flag", "Replacement instead of animation.")] = False,
    retarget_flag: Annotated[
        bool, _flag("--retarget_flag", "Animation: give the skeleton the character's proportions.", panel=o.MOTION)
    ] = False,
    use_flux: Annotated[
        bool, _flag("--use_flux", "Measure them in a picture edited by FLUX.1 Kontext.", panel=o.MOTION)
    ] = False,
    iterations: Annotated[int, _flag("--iterations", "Rounds by which the outline grows.", panel=o.HOLE)] = 3,
    k: Annotated[int, _flag("--k", "Side in pixels of the square by which it grows.", panel=o.HOLE)] = 7,
    w_len: Annotated[int, _flag("--w_len", "Columns of the grid; 1 and 1 fill the box.", panel=o.HOLE)] = 1,
    h_len: Annotated[int, _flag("--h_len", "Rows of the grid.", panel=o.HOLE)] = 1,
    compat: Compat = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """The published preprocess_data.py: clip and picture to guides.

    [cyan]python preprocess_data.py --ckpt_path DIR --video_path V --refer_path I --save_path OUT --resolution_area 1280 720
    --retarget_flag[/cyan]
    """  # fmt: skip
    with reporting(as_json, debug) as report, published_names(PREPROCESS_NAMES):
        video = _needed("--video_path", video_path)
        picture = _needed("--refer_path", refer_path)
        out = _needed("--save_path", save_path)
        if min(resolution_area) < 1:
            raise InputError(
                "--resolution_area", resolution_area, "two positive numbers", "Give for instance 1280 720."
            )
        if fps < 1 and fps != -1:
            raise InputError("preprocess.fps", fps, "a rate is positive, or -1 for the clip's own", "Give 30 or -1.")
        if use_flux and not (retarget_flag or replace_flag):
            raise InputError("--use_flux", True, "it serves retargeting only", "Give --retarget_flag as well.")
        ignored = [flag for flag, on in (("--retarget_flag", retarget_flag), ("--use_flux", use_flux)) if on]
        if replace_flag and ignored:
            _note(
                report,
                f"{' and '.join(ignored)} without effect: with --replace_flag the skeleton stays the performer's",
            )
        backend, models = _detectors(report, ckpt_path)
        settings = o.make(
            PreprocessSettings, area=resolution_area[0] * resolution_area[1], fps=None if fps == -1 else Fraction(fps),
            max_fps=Fraction(1000), retarget=_retarget(replace_flag, retarget_flag, compat), compat=compat,
            backend=backend, models=models, iterations=iterations, k=k, w_len=w_len, h_len=h_len,
            limits=ClipLimits(min_seconds=0, max_seconds=None, min_side=16, max_aspect=1000, max_bytes=2**40),
        )  # fmt: skip
        from wanimate.media.image import load_image
        from wanimate.media.probe import probe
        from wanimate.preprocess.detect.registry import open_detector

        clip, image = probe(video, settings.limits), load_image(picture)
        people: PoseBackend = open_detector(settings)
        redrawn: Mapping[str, Frame] = {}
        if use_flux and not replace_flag:
            from wanimate.integrations.flux import WithEditedProportions

            people = measuring = WithEditedProportions.load(people, ckpt_path, compat)
            redrawn = measuring.pictures
        if not compat:
            _note(report, "guides are lossless, under the published names; --compat writes them lossy, as published")
        from wanimate.integrations.published import write_published_guides

        mode: Mode = "replacement" if replace_flag else "animation"
        writing = write_published_guides(mode, clip, image, settings, out, people, (video, picture), redrawn)
        with closing(writing) as events:
            while True:
                try:
                    report.event(next(events))
                except StopIteration as end:
                    guides: Guides = end.value
                    break
        width, height = guides.size
        data = {"guides": out, "frames": guides.count, "width": width, "height": height, "fps": guides.fps}
        report.done(data, f"{out}: {guides}")


def default_name(size: str, gpus: int, prompt: str | None, compat: bool) -> str:
    """The published name of a result; without `compat` its `*`, which shells expand, is an x."""
    from wanimate.weights.prompts import DEFAULT_PROMPT

    words = (prompt or DEFAULT_PROMPT).replace(" ", "_").replace("/", "_")[:50]
    time = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    return f"{TASK}_{size if compat else size.replace('*', 'x')}_{gpus}_{words}_{time}.mp4"


@contextmanager
def published_names(names: dict[str, str]) -> Iterator[None]:
    """Errors raised inside call settings by their published flags; `names` maps setting to flag."""
    try:
        yield
    except InputError as error:
        own = error.field.removeprefix("--").replace("-", "_")
        if own in names:
            error.field = names[own]
        options = {"--" + name.replace("_", "-"): flag for name, flag in names.items()}
        found = re.compile("|".join(rf"{option}\b(?![-_])" for option in sorted(options, key=len, reverse=True)))
        error.rule, error.remedy = (found.sub(lambda m: options[m[0]], text) for text in (error.rule, error.remedy))
        error.args = (f"{error.field} = {error.value}: {error.rule}. {error.remedy}",)
        raise


def _needed(flag: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(flag, None, "it is needed", "See --help.")
    return path


def _note(report: Reporter, text: str) -> None:
    from wanimate.events import Notice

    report.event(Notice(text))


def _overlap(note: Callable[[str], None], given: int | None, compat: bool) -> int:
    if given is None and not compat:
        note("--refert_num was not given: 1 is taken (the published default, 77, is not a possible value)")
        return 1
    overlap = 77 if given is None else given
    if overlap not in (1, 5):
        raise InputError("--refert_num", overlap, "segments share 1 or 5 frames", "Give --refert_num 1 or 5.")
    return overlap


def _retarget(replace: bool, wanted: bool, compat: bool) -> str | None:
    if replace:
        return None
    if not wanted:
        return "off"
    return "published" if compat else "auto"


def _detectors(report: Reporter, folder: Path | None) -> tuple[str, Path | None]:
    """The published detectors where their files are, else MediaPipe's."""
    if folder is not None and not folder.is_dir():
        raise InputError(
            "--ckpt_path", folder, "there is no such folder", "Give process_checkpoint of the 14B's folder."
        )
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
        raise InputError("--src_root_path", folder, rule, "Run preprocess_data.py with --replace_flag.")
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


def script(command: Callable[..., None]) -> None:
    """Run one of the two as a script of its own."""
    alone = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False)
    alone.command(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)(command)
    sys.exit(alone())
