"""Settings of the first half of a job: clip and picture to guides."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wanimate.config.base import FILES, MASK, MOTION, OWN, Option, Settings
from wanimate.config.values import Area, File, Rate
from wanimate.errors import InputError, setting

Retarget = Literal["auto", "off", "published"]
Detectors = Literal["mediapipe", "published"]
MaskQuality = Literal["standard", "high"]


class ClipLimits(Settings):
    """What a performer clip has to satisfy before anything is decoded."""

    part: ClassVar[str] = "preprocess.limits"

    min_seconds: Annotated[float, Field(ge=0), Option(MOTION, "Shortest clip in seconds.", flag="")] = 2.0
    max_seconds: Annotated[
        float | None,
        Field(gt=0),
        Option(
            MOTION,
            "Accept clips longer than 30 s.",
            more="In Python the longest clip in seconds; None is any.",
            flag="--allow-any-length",
            lifts=True,
        ),
    ] = 30.0
    min_side: Annotated[int, Field(ge=1), Option(MOTION, "Shortest side in pixels.", flag="")] = 200
    max_aspect: Annotated[float, Field(ge=1), Option(MOTION, "Longer side over shorter side.", flag="")] = 3.0
    max_bytes: Annotated[int, Field(ge=1), Option(MOTION, "Largest file in bytes.", flag="")] = 200 * 1024 * 1024


class PreprocessSettings(Settings):
    """Clip and picture to guides."""

    part: ClassVar[str] = "preprocess"

    models: Annotated[
        File | None,
        Option(
            FILES,
            "Folder of the detector models.",
            more="The user cache is `$XDG_CACHE_HOME/wanimate/models`, else `~/.cache/wanimate/models`.",
            shown="the user cache, or $WANIMATE_MODELS",
        ),
    ] = None
    area: Annotated[
        Area | None,
        Option(
            MOTION,
            "Pixel area of the result. The picture's aspect is kept; sides become multiples of 16.",
            shown=OWN,
            metavar="WIDTHxHEIGHT",
            example="1280x720",
        ),
    ] = None
    fps: Annotated[
        Rate | None,
        Option(
            MOTION,
            "Frame rate of the result.",
            more="29.97 means 30000/1001.",
            shown=f"the clip's own, at most {setting('preprocess.max_fps')}",
            metavar="RATE",
            example="24, 29.97 or 30000/1001",
        ),
    ] = None
    max_fps: Annotated[
        Rate, Option(MOTION, "Cap for the clip's own rate.", metavar="RATE", example="24, 29.97 or 30000/1001")
    ] = Fraction(30)
    start: Annotated[
        float,
        Field(ge=0),
        Option(
            MOTION,
            "Use the clip from this time on, in seconds. Its first frame from there on is the result's first.",
            more="A time may be a millisecond beside the time stamp that it means. The sound begins at the same time.",
            metavar="SECONDS",
            example="1.5",
        ),
    ] = 0.0
    end: Annotated[
        float | None,
        Field(gt=0),
        Option(
            MOTION,
            "Use the clip up to this time, in seconds. A frame that begins there is not used any more.",
            more="The limits of a clip's length hold for what is used of it.",
            shown="the clip's end",
            metavar="SECONDS",
            example="4",
        ),
    ] = None
    handles: Annotated[
        int,
        Field(ge=0, le=1000),
        Option(
            MOTION,
            "Make so many frames more before and after the used stretch, as handles for an editor.",
            more="Where the clip has fewer, those are taken, and a notice tells. A clip that is used whole has none.",
            example="8",
        ),
    ] = 0
    limits: ClipLimits = ClipLimits()
    retarget: Annotated[
        Retarget | None,
        Option(
            MOTION,
            "How the performer's skeleton gets the character's proportions: robustly (auto), not at all (off), or by the "
            "published rule.",
            more="Replacement keeps the performer's proportions.",
            shown="auto; off in replacement",
        ),
    ] = None
    smooth: Annotated[
        bool, Option(MOTION, "Smooth the keypoints over time, without delay.", flag="--smooth/--no-smooth")
    ] = True
    backend: Annotated[
        Detectors,
        Option(
            MOTION, "Detectors: mediapipe (offline, processor) or published (YOLOv10 and ViTPose through onnxruntime)."
        ),
    ] = "mediapipe"
    face_size: Annotated[int, Field(gt=0), Option(MOTION, "Side of the face crops in pixels.", example="512")] = 512
    person: Annotated[
        str,
        Option(
            MOTION,
            "Who is followed, of several people: largest, left, right, a number from the left, or x,y in pixels of the clip. "
            "The choice is made where people appear first, or at the time given: 2@1.5.",
            more="From that time the person is followed both ways.",
            metavar="WHO[@SECONDS]",
            example="left, 2 or 640,360@1.5",
        ),
    ] = "largest"
    performers: Annotated[
        File | None,
        Option(
            MOTION,
            "Folder that keeps where the performer was found. A later job with the same clip and settings does not look again.",
            more="Jobs that name a clip of the library (`library:NAME`) use the library's.",
            shown="nothing is kept",
            metavar="DIR",
        ),
    ] = None
    shot_record: Annotated[
        bool,
        Option(
            MOTION,
            "Analyse camera, light and size of each shot for its record (`wanimate shot`).",
            flag="--shot-record/--no-shot-record",
        ),
    ] = True
    compat: Annotated[
        bool,
        Option(MOTION, "Follow the published code number for number, its sizes and last segment included."),
    ] = False
    mask: Annotated[
        File | None,
        Option(
            MASK,
            "Replacement: mask video, white on the performer. It has the clip's size and number of frames.",
            more="Lossy is fine.",
            shown="the performer's pixels are found",
        ),
    ] = None
    sam2: Annotated[
        File | None,
        Option(
            MASK,
            "Replacement: folder of a SAM 2 video checkpoint in transformers' layout, which then finds the performer's pixels.",
            shown="small networks that are there already",
            metavar="DIR",
        ),
    ] = None
    mask_quality: Annotated[
        MaskQuality,
        Option(
            MASK,
            "Replacement: with high, U2-Net finds the performer's pixels instead of its small form.",
            more="Fetch it once with `python -m wanimate.preprocess.detect.models --high`.",
        ),
    ] = "standard"
    mask_debug: Annotated[
        File | None,
        Option(
            MASK,
            "Replacement: write a PNG there that shows how the performer's pixels were found. The file must not exist.",
            shown="none",
            metavar="FILE",
            example="masks.png",
        ),
    ] = None
    iterations: Annotated[
        int | None,
        Field(ge=0, le=100),
        Option(
            MASK,
            "Replacement: rounds by which the performer's outline grows; 0 leaves it as it is.",
            shown="3, fewer under 250 pixels",
            example="3",
        ),
    ] = None
    k: Annotated[
        int,
        Field(ge=1, le=101),
        Option(MASK, "Replacement: side in pixels of the square by which the outline grows.", example="7"),
    ] = 7
    w_len: Annotated[
        int | None,
        Field(ge=1),
        Option(
            MASK,
            "Replacement: columns of a grid over the mask's box. Touched cells are filled.",
            shown="the outline",
            more=f"1 with {setting('preprocess.compat')}.",
            example="8",
        ),
    ] = None
    h_len: Annotated[
        int | None,
        Field(ge=1),
        Option(
            MASK,
            "Replacement: rows of that grid. 1 and 1 fill the whole box.",
            shown="the outline",
            more=f"1 with {setting('preprocess.compat')}.",
            example="16",
        ),
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end is not None and self.end <= self.start:
            rule = f"the stretch begins at {self.start:g} s"
            raise InputError("preprocess.end", self.end, rule, "Give a later time.")
        return self
