"""Settings of the second half of a job: guides to frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wanimate.config.base import DIFFUSION, OWN, Option, Settings
from wanimate.config.values import File, parse_lora
from wanimate.errors import setting

Solver = Literal["dpm++", "unipc", "euler"]
CacheKind = Literal["none", "taylor", "early-taylor", "first-block", "magnitude"]


class Defaults(BaseModel):
    """What a checkpoint was made for; taken where the user's settings say None. These are the published 14B's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    area: int = Field(default=1280 * 720, ge=16 * 16, le=4096 * 4096)
    steps: int = Field(default=20, ge=1, le=1000)
    shift: float = Field(default=5.0, gt=0, le=1000)
    guidance: float = Field(default=1.0, ge=1, le=1000)
    solver: Solver = "dpm++"
    clip_length: int = Field(default=77, ge=5, le=4097)
    overlap: Literal[1, 5] = 1


class LoraUse(Settings):
    """A LoRA file, its strength, and the share of the denoising steps in which it acts: step i of n with start <= i/n < stop.

    Can be written as a text: `file`, `file:0.8`, `file:1.0@0-50%`.
    """

    part: ClassVar[str] = "generate.lora"

    path: File
    strength: float = 1.0
    start: float = Field(default=0.0, ge=0, lt=1)
    stop: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return {"path": value}
        return parse_lora(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _in_order(self) -> LoraUse:
        if self.start >= self.stop:
            raise ValueError("its share of the steps ends before it starts; write it as FILE:1.0@0-50%")
        return self

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in `step`, from 0 on, of `steps`."""
        return self.start <= step / steps < self.stop


def _as_several(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path, LoraUse, dict)) else value


class GenerateSettings(Settings):
    """Guides to frames (model spec, section 10.1). None takes the checkpoint's own default."""

    part: ClassVar[str] = "generate"

    steps: Annotated[
        int | None,
        Field(ge=1),
        Option(DIFFUSION, "Denoising steps. More are slower and finer.", shown=OWN, example="20"),
    ] = None
    solver: Annotated[Solver | None, Option(DIFFUSION, "Solver.", shown=OWN)] = None
    shift: Annotated[
        float | None, Field(gt=0), Option(DIFFUSION, "Shift of the noise schedule.", shown=OWN, example="5")
    ] = None
    guidance: Annotated[
        float | None,
        Field(ge=1),
        Option(DIFFUSION, "Guidance scale. Above 1 a step costs twice as much.", shown=OWN, example="1 or 2.5"),
    ] = None
    clip_length: Annotated[
        int | None,
        Field(ge=1),
        Option(DIFFUSION, "Frames of a segment, 4n+1. Fewer need less memory.", shown=OWN, example="77"),
    ] = None
    overlap: Annotated[
        Literal[1, 5] | None,
        Option(DIFFUSION, "Frames that a segment takes over from the one before.", shown=OWN),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**63),
        Option(
            DIFFUSION,
            "Same seed, same machine: same frames.",
            shown="drawn, printed and recorded",
            example="7",
        ),
    ] = None
    redraw: Annotated[
        int | None,
        Field(ge=1),
        Option(
            DIFFUSION,
            f"Make this segment of the finished result anew, with {setting('generate.seed')} as its own. The others stay. "
            "Segments count from 1.",
            more="Its last frames decide what follows. If they are near those before, they fade into them and the later "
            "segments stay. If not, the later segments are made anew from them. The job says which.",
            shown="none",
            example="3",
        ),
    ] = None
    prompt: Annotated[
        str,
        Option(DIFFUSION, "Text for the network.", more="`mannequin` has one fixed prompt.", shown=OWN),
    ] = ""
    negative_prompt: Annotated[str, Option(DIFFUSION, "What to steer away from, with guidance.", shown=OWN)] = ""
    lora: Annotated[
        tuple[LoraUse, ...],
        BeforeValidator(_as_several),
        Option(
            DIFFUSION,
            "LoRA file, with a strength and a share of the steps if wished: FILE, FILE:0.8, FILE:1.0@0-50%. Can be given "
            "several times.",
            more="Several are summed.",
            shown="none",
            metavar="FILE[:STRENGTH][@A-B%]",
            example="FILE:0.8",
        ),
    ] = ()
    lora_fuse: Annotated[
        bool,
        Option(
            DIFFUSION,
            "Add the LoRAs to a copy of the weights they change, instead of beside them in every step. Memory holds that "
            "copy.",
            more="The copy of streamed blocks is in page-locked host memory.",
        ),
    ] = False
    lora_partial: Annotated[
        bool,
        Option(
            DIFFUSION,
            "Leave out keys of a LoRA that find no place, or do not fit it.",
            more="They are listed. Otherwise they are an error.",
        ),
    ] = False
    relight: Annotated[
        bool | None,
        Option(
            DIFFUSION,
            "Replacement: light the character as the scene is lit, with the checkpoint's relighting LoRA. Leave it off for "
            "drawings and other styles that do not follow light.",
            more="The LoRA is `relighting_lora.safetensors`, `relighting_lora.ckpt` or "
            "`relighting_lora/adapter_model.safetensors` in the checkpoint's folder.",
            shown="on in replacement, if the checkpoint has one",
        ),
    ] = None
    relight_strength: Annotated[
        float, Field(ge=0, le=1.5), Option(DIFFUSION, "Strength of relighting, 0 to 1.5.", example="1")
    ] = 1.0
    cache: Annotated[
        CacheKind | None,
        Option(
            DIFFUSION,
            "Skip steps whose result can be forecast from earlier ones. It is faster and less exact. The result says how many "
            "were skipped.",
            more="taylor forecasts from step 7 on, early-taylor from step 4 on, magnitude from the second fifth on.",
            shown="none; turbo has its own",
        ),
    ] = None
    cache_gate: Annotated[
        float | None,
        Field(gt=0),
        Option(
            DIFFUSION,
            "Error up to which the cache skips. Smaller is closer to no cache.",
            shown="the cache's own",
            example="0.1",
        ),
    ] = None
    anchor: Annotated[
        bool,
        Option(
            DIFFUSION,
            "Hold the colours of the scene and of each part of the body over a clip of several segments.",
            more=f"Off is the published behaviour, which {setting('generate.compat')} takes.",
        ),
    ] = True
    compat: Annotated[
        bool, Option(DIFFUSION, "Follow the published code number for number: the last segment has its full length.")
    ] = False

    def resolve(self, defaults: Defaults) -> Defaults:
        """These settings with every None filled in."""
        given = {name: value for name in Defaults.model_fields if (value := getattr(self, name, None)) is not None}
        return defaults.model_copy(update=given)
