"""Settings of finishing: a larger size and another rate, between the network's frames and the file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from wanimate.config.base import FINISHING, Option, Settings
from wanimate.config.values import File, Rate, parse_target

Interpolate = Literal["auto", "rife", "dis", "blend", "hold"]
Style = Literal["photo", "drawn"]


class FinishingSettings(Settings):
    """Frames to the frames that are delivered."""

    part: ClassVar[str] = "output"

    upscale: Annotated[
        str | None,
        BeforeValidator(parse_target),
        Option(
            FINISHING,
            "Size of the result: 1920x1080, 3840x2160 and the like, 1080p, 2160p, 4k, or 2x. The frames keep their aspect.",
            more="A size is what the frames fit into, turned for upright frames; 1080p is the length of the short side. Sides are "
            "made even. Networks enlarge and their detail is held steady along the motion; a smaller size is reached by "
            "averaging.",
            shown="as generated",
            metavar="SIZE",
            example="1920x1080",
        ),
    ] = None
    upscale_style: Annotated[
        Style, Option(FINISHING, "What is enlarged: filmed or rendered pictures (photo), or drawings with outlines (drawn).")
    ] = "photo"
    upscale_detail: Annotated[
        float,
        Field(ge=0, le=1),
        Option(FINISHING, "How much of the detail that the network adds is taken: 0 is a plain filter.", example="0.75"),
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
            "Frames a second of the result. Frames between those of the network are made; those of the network stay as they are.",
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
