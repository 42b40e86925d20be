"""Settings of finishing: a larger size and another rate, between the network's frames and the file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from wanimate.config.base import FINISHING, Option, Settings
from wanimate.config.target import parse_target
from wanimate.config.values import File, Rate

Interpolate = Literal["auto", "rife", "dis", "blend", "hold"]
Style = Literal["filmed", "drawn"]


def _a_target(text: str | None) -> str | None:
    if text is not None:
        parse_target(text)
    return text


class FinishingSettings(Settings):
    """Frames to the frames that are delivered."""

    part: ClassVar[str] = "output"

    upscale: Annotated[
        str | None,
        AfterValidator(_a_target),
        Option(
            FINISHING,
            "Size of the result: a frame to fit into (1920x1080), 1080p or 2160p, or a factor (2x). Nothing is cut off.",
            more="1080p is 1920x1080, turned for upright pictures. Where fitting leaves a side less than 1 % short of the "
            "frame, the picture fills the frame.",
            shown="as generated",
            metavar="SIZE",
            example="1920x1080",
        ),
    ] = None
    upscale_style: Annotated[
        Style,
        Option(FINISHING, "What is enlarged: filmed or rendered pictures (filmed), or drawings with outlines (drawn)."),
    ] = "filmed"
    upscale_detail: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            FINISHING, "How much of the detail that the network adds is taken: 0 is a plain filter.", example="0.75"
        ),
    ] = 0.75
    upscale_network: Annotated[
        File | None,
        Option(
            FINISHING,
            "A network of your own that enlarges, in any format that spandrel reads.",
            more="It needs `pip install 'wanimate[spandrel]'`.",
            shown="the one of the style",
            metavar="FILE",
            example="4x_my_network.safetensors",
        ),
    ] = None
    fps_out: Annotated[
        Rate | None,
        Option(
            FINISHING,
            "Frames a second of the result. Frames between the network's are made; the network's own stay as they are.",
            shown="as generated",
            metavar="RATE",
            example="25 or 24000/1001",
        ),
    ] = None
    interpolate: Annotated[
        Interpolate,
        Option(
            FINISHING,
            "How frames between two others are made: by a network (rife), by optical flow (dis), as a mixture (blend), or not "
            "at all (hold). auto is rife on a GPU and dis on a processor.",
            more="Nothing is ever made across a cut.",
        ),
    ] = "auto"

    @property
    def is_finished(self) -> bool:
        """Whether frames are enlarged or interpolated."""
        return self.upscale is not None or self.fps_out is not None
