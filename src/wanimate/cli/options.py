"""The options that several commands share, and how their texts become settings. Defaults are read off `config`."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import BaseModel, ValidationError

from wanimate.config import (
    BlocksMode,
    CacheKind,
    ClipLimits,
    Codec,
    GenerateSettings,
    Job,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    Retarget,
    RuntimeSettings,
    Solver,
    Speed,
    WeightsType,
)
from wanimate.config import Mode as JobMode
from wanimate.errors import InputError
from wanimate.media.timing import snap_rate

S = TypeVar("S", bound=BaseModel)
FILES, MOTION, HOLE, DIFFUSION, RESULT, RUN = "Files", "Motion", "Hole", "Diffusion", "Result", "This run"
GPUS = "Several GPUs"
MACHINE = "Machine"
OWN = "the checkpoint's own"


def default(settings: type[BaseModel], name: str) -> Any:
    """The default of a setting, as an option's default."""
    value = settings.model_fields[name].default
    return str(value) if isinstance(value, (Fraction, Path)) else value


def choices(kind: Any) -> str:
    """The values of a Literal, for the help."""
    return "|".join(str(value) for value in get_args(kind))


def make(settings: type[S], **values: Any) -> S:
    """Settings from option values. Raises InputError naming the option of the first value that breaks a rule."""
    try:
        return settings(**values)
    except ValidationError as e:
        first = e.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        rule = first["msg"].removeprefix("Value error, ")
        raise InputError(option, first["input"], rule[:1].lower() + rule[1:], "See --help for what is allowed.") from e


def parse_area(text: str | None) -> int | None:
    """ "1280x720" (or a plain number of pixels) -> pixel area."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX*×]\s*(\d{1,6})\s*|\s*(\d{1,10})\s*", text)
    if found is None:
        raise InputError("preprocess.area", text, "not an area", "Write it as WIDTHxHEIGHT, for instance 1280x720.")
    width, height, pixels = found.groups()
    area = int(pixels) if pixels else int(width) * int(height)
    if area < 256:
        raise InputError("preprocess.area", text, "smaller than 16x16 pixels", "Give a larger area.")
    return area


def parse_rate(option: str, text: str | None) -> Fraction | None:
    """ "24", "30000/1001" or "29.97" (which is 30000/1001) -> frames per second."""
    if text is None:
        return None
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as e:
        raise InputError(option, text, "not a frame rate", "Write it as 24, 29.97 or 30000/1001.") from e
    if not 0 < rate <= 240:
        raise InputError(option, text, "a frame rate lies above 0 and at most at 240", "Write it as 24 or 30000/1001.")
    return snap_rate(rate) if "." in text else rate


def parse_mode(text: str) -> JobMode:
    """One of the two modes."""
    for mode in get_args(JobMode):
        if text == mode:
            found: JobMode = mode
            return found
    raise InputError("mode", text, "there is no such mode", f"Give {' or '.join(get_args(JobMode))}.")


def preprocess_settings(
    area: str | None, fps: str | None, max_fps: str, allow_any_length: bool, **values: Any
) -> PreprocessSettings:
    limits = ClipLimits(max_seconds=None) if allow_any_length else ClipLimits()
    return make(
        PreprocessSettings, area=parse_area(area), fps=parse_rate("--fps", fps),
        max_fps=parse_rate("--max-fps", max_fps), limits=limits, **values,
    )  # fmt: skip


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


IMAGE = option(FILES, "Picture of the character: PNG, JPEG, WebP ... Head and shoulders or more should show.")
Image = Annotated[Path, IMAGE]
Video = Annotated[
    Path,
    option(
        FILES,
        "Clip of the performer: mp4, mov, webm, mkv or gif; 2-30 s, short side over 200 px, aspect 1:3 to 3:1, up to "
        "200 MB.",
    ),
]
Out = Annotated[
    Path, option(FILES, "Result: a .mp4, .mov or .mkv file, or a folder for --codec png. out.json is put beside it.")
]
Checkpoint = Annotated[
    Path | None,
    option(
        FILES,
        "Checkpoint folder, for instance Wan2.2-Animate-14B. Without it, the small [bold]mannequin[/bold] checkpoint "
        "in the package is used, which knows only its mannequins; real characters need the 14B.",
        show_default="mannequin",
    ),
]
Models = Annotated[
    Path | None, option(FILES, "Folder of the detector models.", show_default="the user cache, or $WANIMATE_MODELS")
]

Area = Annotated[
    str | None,
    option(
        MOTION,
        "Size of the result as a pixel area; the picture's aspect is kept and sides become multiples of 16.",
        metavar="WIDTHxHEIGHT",
        show_default=OWN,
    ),
]
Fps = Annotated[
    str | None,
    option(MOTION, "Frame rate of the result.", metavar="RATE", show_default="the clip's own, at most --max-fps"),
]
MaxFps = Annotated[str, option(MOTION, "Cap for the clip's own rate.", metavar="RATE")]
AllowAnyLength = Annotated[bool, option(MOTION, "Accept clips longer than 30 s.", "--allow-any-length")]
RetargetMode = Annotated[
    str | None,
    option(
        MOTION,
        "Give the performer's skeleton the character's proportions: robustly (auto), not at all, or by the published "
        "rule.",
        metavar=f"[{choices(Retarget)}]",
        show_default="auto",
    ),
]
Smooth = Annotated[bool, option(MOTION, "Smooth the keypoints over time, without delay.", "--smooth/--no-smooth")]
Backend = Annotated[
    str,
    option(
        MOTION,
        "Detectors: mediapipe (offline, CPU) or published (YOLOv10 + ViTPose through onnxruntime).",
        metavar=f"[{choices(PreprocessSettings.model_fields['backend'].annotation)}]",
    ),
]
Person = Annotated[
    str,
    option(
        MOTION,
        "Who is followed, of several: largest, left, right, a number of --list-people, or x,y in pixels of the clip; "
        "looked for where people appear first, or at the time given, for instance 2@1.5.",
        metavar="WHO[@SECONDS]",
    ),
]
FaceSize = Annotated[int, option(MOTION, "Side of the face crops in pixels.")]
Mode = Annotated[
    str,
    option(
        FILES,
        "What the guides are for: the character in its own picture, or in the clip's scene.",
        metavar=f"[{choices(JobMode)}]",
    ),
]
MaskFile = Annotated[
    Path | None,
    option(
        HOLE,
        "Mask video instead of looking for the performer's pixels: white on the performer, one frame for each of the clip's, "
        "of the same size.",
        "--mask",
        show_default="they are found",
    ),
]
Sam2 = Annotated[
    Path | None,
    option(
        HOLE,
        "Folder of a SAM 2 video checkpoint in transformers' layout, which then finds the performer's pixels.",
        "--sam2",
        show_default="MediaPipe's segmentation",
        metavar="DIR",
    ),
]
Iterations = Annotated[
    int | None,
    option(
        HOLE,
        "Rounds by which the performer's outline grows; 0 leaves it as it is.",
        show_default="3, fewer under 250 pixels",
    ),
]
KernelSide = Annotated[int, option(HOLE, "Side in pixels of the square by which it grows.", "--k")]
GridColumns = Annotated[
    int | None,
    option(HOLE, "Columns of a grid whose touched cells are filled.", "--w-len", show_default="the outline"),
]
GridRows = Annotated[
    int | None, option(HOLE, "Rows of it; 1 and 1 fill the whole box.", "--h-len", show_default="the outline")
]
Compat = Annotated[
    bool,
    option(MOTION, "Follow the published code number for number, its sizes and last segment included.", "--compat"),
]

Steps = Annotated[int | None, option(DIFFUSION, "Denoising steps: more are slower and finer.", show_default=OWN)]
SolverName = Annotated[
    str | None, option(DIFFUSION, "Solver.", "--solver", metavar=f"[{choices(Solver)}]", show_default=OWN)
]
Shift = Annotated[float | None, option(DIFFUSION, "Shift of the noise schedule.", show_default=OWN)]
Guidance = Annotated[float, option(DIFFUSION, "Guidance scale; above 1 every step costs twice as much.")]
ClipLength = Annotated[
    int | None, option(DIFFUSION, "Frames of a segment, 4n+1; fewer need less memory.", show_default=OWN)
]
Overlap = Annotated[
    int | None, option(DIFFUSION, "Frames that a segment takes over from the one before: 1 or 5.", show_default=OWN)
]
Seed = Annotated[
    int | None, option(DIFFUSION, "Same seed, same machine: same frames.", show_default="drawn, printed and recorded")
]
Prompt = Annotated[str, option(DIFFUSION, "Text for the network.", show_default=OWN)]
NegativePrompt = Annotated[str, option(DIFFUSION, "What to steer away from (with guidance).", show_default=OWN)]

Loras = Annotated[
    list[str],
    option(
        DIFFUSION,
        "LoRA file, with a strength and a share of the steps if wished: FILE, FILE:0.8, FILE:1.0@0-50%. Can be given several "
        "times.",
        "--lora",
        metavar="FILE[:STRENGTH][@A-B%]",
        show_default="none",
    ),
]
LoraFuse = Annotated[
    bool,
    option(
        DIFFUSION,
        "Add the LoRAs to a copy of the weights they change, instead of beside them in every step; memory holds that copy.",
        "--lora-fuse",
    ),
]
Cache = Annotated[
    str | None,
    option(
        DIFFUSION,
        "Skip steps whose result can be forecast from earlier ones: faster and less exact. The result says how many were.",
        metavar=f"[{choices(CacheKind)}]",
        show_default="none; turbo has its own",
    ),
]
CacheGate = Annotated[
    float | None,
    option(
        DIFFUSION, "Error up to which the cache skips: smaller is closer to no cache.", show_default="the cache's own"
    ),
]
LoraPartial = Annotated[bool, option(DIFFUSION, "Leave out keys of a LoRA that find no place.", "--lora-partial")]
Relight = Annotated[
    bool | None,
    option(
        DIFFUSION,
        "Replacement: light the character as the scene is lit, with the checkpoint's relighting LoRA. Leave it off for "
        "drawings and other looks that do not follow light.",
        "--relight/--no-relight",
        show_default="on in replacement, if the checkpoint has one",
    ),
]
RelightStrength = Annotated[float, option(DIFFUSION, "Strength of relighting, 0 to 1.5.")]

CodecName = Annotated[
    str,
    option(RESULT, "Encoder; ffv1 is lossless, png a folder of pictures.", "--codec", metavar=f"[{choices(Codec)}]"),
]
Crf = Annotated[int, option(RESULT, "Quality of h264 and h265: 0 best, 51 worst.")]
Audio = Annotated[bool, option(RESULT, "Take over the clip's sound.", "--audio/--no-audio")]
Sheet = Annotated[bool, option(RESULT, "Also write a contact sheet, out.sheet.png.", "--sheet/--no-sheet")]
Composite = Annotated[
    bool,
    option(
        RESULT,
        "Replacement: outside of the character and its seam, every pixel is the clip's. Off: the network's own scene.",
        "--composite/--no-composite",
    ),
]
Feather = Annotated[int, option(RESULT, "Replacement: width of the seam in pixels.")]
KeepGuides = Annotated[
    Path | None, option(RESULT, "Keep the guides (skeleton, face crops) in this folder.", metavar="DIR")
]

Gpus = Annotated[
    int, option(GPUS, "GPUs of this machine that share the job; has to divide the attention heads.", "--gpus")
]
ShardWeights = Annotated[
    bool,
    option(GPUS, "Each GPU keeps only its part of the weights; for GPUs that cannot hold all.", "--shard-weights"),
]
SplitGuidance = Annotated[
    bool, option(GPUS, "With guidance: each half of the GPUs computes one of its two branches.", "--split-guidance")
]

SpeedMode = Annotated[
    str,
    option(
        MACHINE,
        "exact: the published arithmetic. fast: float8 products and attention, where the GPU has them; bfloat16 on a processor "
        "that multiplies it. turbo: fast, and steps that can be forecast are skipped.",
        "--speed",
        metavar=f"[{choices(Speed)}]",
    ),
]
WeightsDtype = Annotated[
    str,
    option(
        MACHINE,
        "Type of the transformer's weights: as the device computes (auto; quantised files stay so on a GPU), bf16, fp16, or "
        "fp8 for the blocks' linear layers.",
        metavar=f"[{choices(WeightsType)}]",
    ),
]
Blocks = Annotated[
    str,
    option(
        MACHINE,
        "Where the transformer's blocks live: on the GPU, in host memory and copied one ahead, or in the file itself.",
        metavar=f"[{choices(BlocksMode)}]",
    ),
]
VaeTile = Annotated[
    int | None, option(MACHINE, "Side of the VAE's tiles in pixels.", show_default="none, or as memory needs")
]
GpuMemory = Annotated[
    float | None, option(MACHINE, "GiB of the GPU to take at most.", metavar="GIB", show_default="all that is free")
]

Json = Annotated[bool, option(RUN, "One JSON object a line on stdout, the result last; for programs.", "--json")]
Debug = Annotated[bool, option(RUN, "Show the log, and where an error comes from.", "--debug")]

MODE: str = default(Job, "mode")
GENERATE: dict[str, Any] = {name: default(GenerateSettings, name) for name in GenerateSettings.model_fields}
PREPROCESS: dict[str, Any] = {name: default(PreprocessSettings, name) for name in PreprocessSettings.model_fields}
PARALLEL: dict[str, Any] = {name: default(ParallelSettings, name) for name in ParallelSettings.model_fields}
RUNTIME: dict[str, Any] = {name: default(RuntimeSettings, name) for name in RuntimeSettings.model_fields}
OUTPUT: dict[str, Any] = {name: default(OutputSettings, name) for name in OutputSettings.model_fields}
