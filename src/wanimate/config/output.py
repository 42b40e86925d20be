"""Settings of the result: frames to a file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from wanimate.config.base import RESULT, Option, Settings
from wanimate.errors import setting

Codec = Literal["h264", "h265", "ffv1", "png"]


class OutputSettings(Settings):
    """Frames to file."""

    part: ClassVar[str] = "output"

    codec: Annotated[Codec, Option(RESULT, "Encoder. ffv1 is lossless, png a folder of pictures.")] = "h264"
    crf: Annotated[
        int, Field(ge=0, le=51), Option(RESULT, "Quality of h264 and h265: 0 is best, 51 worst.", example="17")
    ] = 17
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
    watermark: Annotated[
        bool, Option(RESULT, 'Write "AI generated" into the lower right corner of every frame.', more="It is small.")
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
