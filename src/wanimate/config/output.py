"""Settings of the result: frames to a file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from wanimate.config.base import RESULT, Option
from wanimate.config.codecs import FORMATS, Alpha, Codec, Depth, endings_told, holding_alpha
from wanimate.config.finishing import FinishingSettings
from wanimate.config.values import File
from wanimate.errors import InputError, setting

BurnIn = Literal["name", "take", "frame", "timecode"]
_NAME = r"^[^/\\\x00-\x1f]{0,64}$"


def _parts(value: Any) -> Any:
    """ "name,frame" or ("name,frame", "take") -> one by one."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


class OutputSettings(FinishingSettings):
    """Frames to file."""

    codec: Annotated[
        Codec,
        Option(
            RESULT,
            "Format of the result. ffv1 is lossless; png and exr are folders of pictures.",
            more="docs/finishing.md has the table of formats.",
        ),
    ] = "h264"
    depth: Annotated[
        Depth | None,
        Option(
            RESULT,
            "Bits of a channel.",
            more="8 and 10 for h264 and av1, 12 for h265 as well, 8 to 16 for ffv1, 8 and 16 for png.",
            shown="the codec's usual: 8, or 10 for av1, ProRes and DNxHR, 16 for exr",
            example="10",
        ),
    ] = None
    dither: Annotated[
        bool,
        Option(
            RESULT,
            "Spread what rounding loses as noise of half a step, so that soft gradients do not band.",
            more="It is the same in every run. Pixels that are whole levels stay as they are.",
            flag="--dither",
        ),
    ] = False
    crf: Annotated[
        int, Field(ge=0, le=51), Option(RESULT, "Quality of h264, h265 and av1: 0 is best, 51 worst.", example="17")
    ] = 17
    alpha: Annotated[
        Alpha,
        Option(
            RESULT,
            f"Store the character's matte as opacity, in {holding_alpha()}: the colours as they are (straight), or times "
            "opacity (premultiplied).",
            more="PNG holds straight alpha and OpenEXR premultiplied, by their standards.",
        ),
    ] = "none"
    matte: Annotated[
        File | None,
        Option(
            RESULT,
            "Write the character's matte there, white on the character, with the codec of the result.",
            more="In replacement it is the soft mask of the seam, in animation the character as found in the result.",
            shown="none",
            metavar="FILE",
            example="matte.mov",
        ),
    ] = None
    start_number: Annotated[
        int, Field(ge=0, le=999_999), Option(RESULT, "Number of a sequence's first picture.", example="1001")
    ] = 0
    timecode: Annotated[
        str | None,
        Field(pattern=r"^\d{2}:\d{2}:\d{2}[:;]\d{2,3}$"),
        Option(
            RESULT,
            "Timecode of the first frame, HH:MM:SS:FF. A ; before the frames means drop-frame.",
            shown="the clip's at its first used frame",
            metavar="TIMECODE",
            example="01:00:00:00",
        ),
    ] = None
    reel: Annotated[
        str,
        Field(pattern=_NAME),
        Option(RESULT, "Reel name.", shown="the clip's own", metavar="NAME", example="A001"),
    ] = ""
    shot: Annotated[
        str,
        Field(pattern=_NAME),
        Option(
            RESULT,
            f"Name of the shot, for {setting('output.slate')}, {setting('output.burn_in')} and {{shot}} in the result's name.",
            shown="the result's name",
            metavar="NAME",
            example="S010",
        ),
    ] = ""
    take: Annotated[
        int, Field(ge=0, le=9999), Option(RESULT, "Number of the take, for the same places as the shot.", example="3")
    ] = 1
    slate: Annotated[
        bool,
        Option(
            RESULT,
            "Put one frame before the first that tells shot, take, version, rate, size and timecode.",
            more="Its timecode is one frame earlier, so that the first frame keeps its own.",
            flag="--slate",
        ),
    ] = False
    burn_in: Annotated[
        tuple[BurnIn, ...],
        BeforeValidator(_parts),
        Option(
            RESULT,
            "Write these along the lower edge of every frame: name, take, frame, timecode; several with commas.",
            shown="none",
            metavar="WHAT",
            example="name,timecode",
        ),
    ] = ()
    audio: Annotated[bool, Option(RESULT, "Take over the clip's sound.")] = True
    sheet: Annotated[bool, Option(RESULT, "Also write a contact sheet, out.sheet.png.", flag="--sheet/--no-sheet")] = (
        False
    )
    overwrite: Annotated[
        bool,
        Option(
            RESULT,
            "Write over a file of this name that the program cannot prove to be its own.",
            more="An older result with its record beside it is replaced without it. Inputs and folders are never written over.",
            flag="--overwrite",
        ),
    ] = False
    composite: Annotated[
        bool,
        Option(
            RESULT,
            "Replacement: outside of the character and its seam every pixel is the clip's. Off: the network's own scene.",
            more="Off is the published behaviour.",
        ),
    ] = True
    feather: Annotated[
        int, Field(ge=0, le=200), Option(RESULT, "Replacement: width of the seam in pixels.", example="8")
    ] = 8
    final: Annotated[
        bool,
        Option(
            RESULT,
            f"The result is a final, not a take: it is marked as {setting('marks.when')} and the settings beside it say.",
            more="[marks.md](marks.md#marks-in-jobs) tells what they are.",
            flag="--final",
        ),
    ] = False
    watermark: Annotated[
        bool,
        Option(
            RESULT,
            'Write "AI generated" into the lower right corner of every frame.',
            more="It is small. It is the label `plain`, for takes as well as finals.",
        ),
    ] = False
    fresh: Annotated[
        bool, Option(RESULT, "Ignore the segments and guides that a job of this name has left; they are removed.")
    ] = False
    keep_segments: Annotated[
        bool,
        Option(
            RESULT,
            f"Keep the finished segments beside the result, so that {setting('generate.redraw')} need not make the others "
            "again.",
            more="They take about 18 MB each at 720p, in `.NAME.work`.",
        ),
    ] = False

    quarantine: Annotated[
        tuple[Literal["animation", "replacement"], ...] | None,
        Option(
            RESULT,
            "Modes whose results are written under a quarantined name, hero.quarantined.mp4.",
            more="`wanimate release` gives them theirs. An empty list: none.",
            shown="those of the house's policy; none without one",
            flag="",
        ),
    ] = None

    @property
    def bits(self) -> int:
        """Of a channel, the codec's usual number filled in."""
        return FORMATS[self.codec].usual_depth() if self.depth is None else self.depth

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = FORMATS[self.codec]
        if self.bits not in found.pixels:
            *most, last = map(str, sorted(found.pixels))
            rule = f"{self.codec} has no {self.depth} bits"
            raise InputError("output.depth", self.depth, rule, f"Give {' or '.join([*most, last])}.")
        if self.alpha != "none" and not found.alphas:
            rule = f"{self.codec} holds no alpha"
            raise InputError(
                "output.alpha", self.alpha, rule, f"Choose {holding_alpha()} as {setting('output.codec')}."
            )
        if self.alpha != "none" and self.alpha not in found.alphas:
            rule = f"by its standard, {self.codec} holds {found.alphas[0]} alpha"
            raise InputError("output.alpha", self.alpha, rule, f"Give {found.alphas[0]}.")
        if self.matte is not None and self.matte.suffix.lower() not in found.endings:
            rule = f"it is written with {self.codec}, which needs {endings_told(self.codec)}"
            raise InputError("output.matte", self.matte, rule, f"Change the name or {setting('output.codec')}.")
        if self.upscale_network is not None and self.upscale is None:
            rule = "no size is asked for, so that it would do nothing"
            remedy = f"Give {setting('output.upscale')} as well, or leave it out."
            raise InputError("output.upscale_network", self.upscale_network, rule, remedy)
        if self.start_number and not found.is_folder:
            rule = f"{self.codec} results are no sequence"
            raise InputError("output.start_number", self.start_number, rule, "Leave it out, or choose png or exr.")
        return self
