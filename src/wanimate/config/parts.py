"""Settings of a job. A default is written once, here; the command line reads it off these classes."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wanimate.errors import InputError

Solver = Literal["dpm++", "unipc", "euler"]
Retarget = Literal["auto", "off", "published"]
Mode = Literal["animation", "replacement"]
Codec = Literal["h264", "h265", "ffv1", "png"]
WeightsType = Literal["auto", "bf16", "fp16", "fp8"]
BlocksMode = Literal["auto", "resident", "streamed", "mapped"]
Speed = Literal["exact", "fast", "turbo"]
Attention = Literal["auto", "torch", "torch-flash", "cudnn", "flash-attention-3", "sage", "float8"]
CacheKind = Literal["none", "taylor", "early-taylor", "first-block", "magnitude"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipLimits(_Settings):
    """What a performer clip has to satisfy before anything is decoded."""

    min_seconds: float = 2.0
    max_seconds: float | None = 30.0
    min_side: int = 200
    max_aspect: float = 3.0
    max_bytes: int = 200 * 1024 * 1024


class PreprocessSettings(_Settings):
    """Clip and image to guides. `area` is a pixel area (width x height, only the product counts)."""

    area: int | None = Field(default=None, gt=0, description="Pixel area; None takes the checkpoint's own.")
    fps: Fraction | None = Field(default=None, gt=0, description="Target rate; None is the clip's own, capped at 30.")
    max_fps: Fraction = Fraction(30)
    retarget: Retarget | None = Field(default=None, description="None is auto in animation, off in replacement.")
    smooth: bool = True
    compat: bool = Field(default=False, description="Follow the published preprocessing number for number.")
    backend: Literal["mediapipe", "published"] = "mediapipe"
    models: Path | None = Field(default=None, description="Folder of the detector models; None is the user cache.")
    face_size: int = Field(default=512, gt=0)
    person: str = Field(
        default="largest", description="Who is followed: largest, left, right, a number, or x,y; @SECONDS tells when."
    )
    mask: Path | None = Field(default=None, description="Replacement: a mask video; None finds the performer's pixels.")
    sam2: Path | None = Field(default=None, description="Replacement: folder of a SAM 2 checkpoint that finds them.")
    iterations: int | None = Field(
        default=None, ge=0, le=100, description="Replacement: rounds by which the outline grows; None is 3, or fewer."
    )
    k: int = Field(default=7, ge=1, le=101, description="Replacement: side in pixels of the square it grows by.")
    w_len: int | None = Field(default=None, ge=1, description="Replacement: grid columns; None is the outline.")
    h_len: int | None = Field(default=None, ge=1, description="Replacement: grid rows; None is the outline.")
    limits: ClipLimits = ClipLimits()


class Defaults(_Settings):
    """What a checkpoint was made for; taken where the user's settings say None. These are the published 14B's."""

    area: int = 1280 * 720
    steps: int = 20
    shift: float = 5.0
    solver: Solver = "dpm++"
    clip_length: int = 77
    overlap: Literal[1, 5] = 1


class LoraUse(_Settings):
    """A LoRA file, its strength, and the share of the denoising steps in which it acts: step i of n with start <= i/n < stop.

    Can be written as a text: `file`, `file:0.8`, `file:1.0@0-50%`.
    """

    path: Path
    strength: float = Field(default=1.0, allow_inf_nan=False)
    start: float = Field(default=0.0, ge=0, lt=1)
    stop: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return {"path": value}
        if not isinstance(value, str):
            return value
        number = r"\s*(\d+(?:\.\d+)?)\s*"
        found = re.fullmatch(rf"(.+?)(?::([^:/\\@]*))?(?:@{number}-{number}%)?", value)
        if found is None:
            raise ValueError("not a LoRA; write it as FILE, FILE:0.8 or FILE:0.8@0-50%")
        path, strength, start, stop = found.groups()
        fields: dict[str, Any] = {"path": path}
        if strength is not None:
            try:
                fields["strength"] = float(strength)
            except ValueError as error:
                raise ValueError(f"{strength!r} is not a number; write the strength as FILE:0.8") from error
        if start is not None:
            fields |= {"start": float(start) / 100, "stop": float(stop) / 100}
        return fields

    @model_validator(mode="after")
    def _in_order(self) -> LoraUse:
        if self.start >= self.stop:
            raise ValueError("its share of the steps ends before it starts; write it as FILE:1.0@0-50%")
        return self

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in `step`, from 0 on, of `steps`."""
        return self.start <= step / steps < self.stop


class GenerateSettings(_Settings):
    """Guides to frames (model spec, section 10.1). None takes the checkpoint's own default."""

    steps: int | None = Field(default=None, ge=1)
    shift: float | None = Field(default=None, gt=0)
    guidance: float = Field(default=1.0, ge=1.0)
    solver: Solver | None = None
    clip_length: int | None = Field(default=None, ge=1)
    overlap: Literal[1, 5] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    prompt: str = ""
    negative_prompt: str = ""
    compat: bool = Field(default=False, description="Full-length last segment, as published.")
    lora: tuple[LoraUse, ...] = ()
    lora_fuse: bool = Field(default=False, description="Add LoRAs to a copy of the weights they change, once a job.")
    lora_partial: bool = Field(default=False, description="Leave out a LoRA's keys that find no place.")
    cache: CacheKind | None = Field(
        default=None,
        description="Forecast steps instead of computing them (`sampling.cache`); None is as `speed` says.",
    )
    cache_gate: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Error below which a step is skipped; None is the cache's own.",
    )
    relight: bool | None = Field(
        default=None, description="The checkpoint's relighting LoRA; None: in replacement, where it has one."
    )
    relight_strength: float = Field(default=1.0, ge=0, le=1.5, allow_inf_nan=False)

    def resolve(self, defaults: Defaults) -> Defaults:
        """These settings with every None filled in."""
        given = {name: value for name in Defaults.model_fields if (value := getattr(self, name, None)) is not None}
        return defaults.model_copy(update=given)


class RuntimeSettings(_Settings):
    """Where the networks live, what they may take and how exact they compute. Nothing here changes what a job is."""

    speed: Speed = Field(
        default="exact",
        description="fast: float8 products and attention on a GPU, bfloat16 on a processor; turbo: skips steps as well.",
    )
    device: str | None = Field(default=None, description="cuda, cuda:N, mps or cpu; None: the GPU where there is one.")
    attention: Attention = Field(
        default="auto",
        description="Backend of self-attention; auto tries those that speed allows and takes the quickest.",
    )
    weights_dtype: WeightsType = "auto"
    blocks: BlocksMode = "auto"
    vae_tile: int | None = Field(default=None, ge=128, description="Side of VAE tiles in pixels; None: as needed.")
    gpu_memory: float | None = Field(
        default=None, gt=0, description="GiB of the GPU this job may take; None: all free."
    )

    @classmethod
    def split(cls, settings: dict[str, Any]) -> tuple[RuntimeSettings, dict[str, Any]]:
        """These settings out of a mixture of names, and the others. Raises InputError where a value breaks its rule."""
        own = {name: value for name, value in settings.items() if name in cls.model_fields}
        try:
            return cls(**own), {name: value for name, value in settings.items() if name not in own}
        except ValidationError as error:
            raise _refusal(error) from error


class OutputSettings(_Settings):
    """Frames to file."""

    codec: Codec = "h264"
    crf: int = Field(default=17, ge=0, le=51)
    audio: bool = True
    sheet: bool = False
    composite: bool = Field(default=True, description="Replacement: the scene around the character is the clip's.")
    feather: int = Field(default=8, ge=0, le=200, description="Width in pixels of the seam around the hole.")


class ParallelSettings(_Settings):
    """How one job is spread over the GPUs of a machine. It changes no result beyond float noise."""

    gpus: int = Field(default=1, ge=1, description="Has to divide the attention heads.")
    shard_weights: bool = Field(default=False, description="Each GPU keeps its part of the transformer's blocks.")
    split_guidance: bool = Field(default=False, description="Guidance's two branches on two halves of the GPUs.")


class Job(_Settings):
    """One picture, one performance, one result."""

    image: Path
    video: Path
    out: Path
    mode: Mode = "animation"
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = GenerateSettings()
    output: OutputSettings = OutputSettings()
    keep_guides: Path | None = Field(default=None, description="Folder for the guides; None throws them away.")

    @classmethod
    def of(cls, image: Path | str, video: Path | str, out: Path | str, **settings: Any) -> Job:
        """A job from flat names: each setting goes to the part that has a field of that name.

        Raises:
            InputError: a name is unknown, or a value breaks its rule.
        """
        parts: dict[str, type[BaseModel]] = {
            "preprocess": PreprocessSettings, "generate": GenerateSettings, "output": OutputSettings,
        }  # fmt: skip
        values: dict[str, dict[str, Any]] = {name: {} for name in parts}
        own: dict[str, Any] = {"image": Path(image), "video": Path(video), "out": Path(out)}
        for key, value in settings.items():
            owners = [name for name, part in parts.items() if key in part.model_fields]
            if key in cls.model_fields:
                own[key] = value
            elif not owners:
                raise InputError(key, value, "there is no such setting", "See the fields of Job and of its parts.")
            for owner in owners:
                values[owner][key] = value
        try:
            return cls(**own, **{name: part(**values[name]) for name, part in parts.items()})  # type: ignore[arg-type]
        except ValidationError as error:
            raise _refusal(error) from error


def _refusal(error: ValidationError) -> InputError:
    first = error.errors()[0]
    name = ".".join(str(x) for x in first["loc"])
    return InputError(name, first.get("input"), first["msg"], "Give a value that satisfies it.")
