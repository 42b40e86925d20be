"""Why an input cannot be used, in the codes of the hosted contract (service spec, 1.7 and 1.8).

`check_picture` and `check_clip` look at files before a job is made of them. `refusal_of` is the code of what a job itself
raises. Files are judged by their content. Messages hold no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wanimate.config import ClipLimits, PreprocessSettings
from wanimate.errors import CheckpointError, Fault, InputError, OutputError, one_line, plainly, spell
from wanimate.media.container import open_video
from wanimate.media.image import load_image, read_header
from wanimate.media.kinds import VIDEO, kind_of
from wanimate.media.probe import SLACK_SECONDS, probe
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.people.choice import HEAD_AND_SHOULDERS, box
from wanimate.preprocess.pose.face import made_out, sizes
from wanimate.types import Clip, Frame, Keypoints

_PICTURES = ("JPEG", "MPO", "PNG", "BMP", "WEBP")
"""MPO is a JPEG that holds a second picture, as many phones write it."""
_VIDEOS = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")
_MIB = 2**20
_BESIDE = 0.5
"""Whoever is so large as this share of the largest person counts; smaller ones are bystanders in the background."""
_SEEN = 0.5
"""Head and shoulders of people who count are seen with this confidence."""
_SMALLEST = 0.25
"""A character that is large enough: the longer side of the body's box over the shorter side of the picture."""
_FIELDS = {"image": "input.image_url", "video": "input.video_url"}


@dataclass(frozen=True)
class Refused:
    """Why an input is refused: the contract's code, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class ContractLimits:
    """What the hosted contract accepts: bytes, sides in pixels, seconds, longer over shorter side. Bounds are allowed."""

    picture_bytes: int = 5 * _MIB
    picture_sides: tuple[int, int] = (200, 4096)
    clip_bytes: int = 200 * _MIB
    clip_sides: tuple[int, int] = (200, 2048)
    clip_seconds: tuple[float, float] = (2.0, 30.0)
    aspect: float = 3.0

    def of_job(self) -> ClipLimits:
        """The limits for `PreprocessSettings.limits`, so that a job takes every clip that `check_clip` lets pass."""
        return ClipLimits(
            min_seconds=self.clip_seconds[0], max_seconds=self.clip_seconds[1], min_side=self.clip_sides[0] - 1,
            max_aspect=self.aspect, max_bytes=self.clip_bytes,
        )  # fmt: skip


CONTRACT = ContractLimits()

_KIND = {
    "image": Refused("InvalidImage.FileFormat", "Invalid image type. Only jpg/jpeg/png/bmp/webp is supported."),
    "video": Refused("InvalidVideo.FileFormat", "Invalid video type. Only mp4/mov/avi is supported."),
}
_CODES: Mapping[tuple[str, Fault], str] = {
    ("image", Fault.UNREADABLE): "InvalidImage.FileFormat", ("image", Fault.BYTES): "InvalidFile.Size",
    ("image", Fault.SIZE): "InvalidImageResolution", ("image", Fault.ASPECT): "InvalidImage.ImageSize",
    ("image", Fault.NOBODY): "InvalidImage.NoHuman",
    ("video", Fault.UNREADABLE): "InvalidFile.Openerror", ("video", Fault.BYTES): "InvalidFile.Size",
    ("video", Fault.DURATION): "InvalidFile.Duration", ("video", Fault.SIZE): "InvalidFile.Resolution",
    ("video", Fault.ASPECT): "InvalidFile.AspectRatio", ("video", Fault.NOBODY): "InvalidFile.NoHuman",
}  # fmt: skip
_NO_HUMAN = "The input image has no human body. Please upload other image with single person."


def check_picture(path: Path, look: bool = True, limits: ContractLimits = CONTRACT) -> Refused | None:
    """Why the character's picture cannot be used; None where it can.

    Args:
        look: find the people in it as well, with the detectors that jobs use (the contract's `check_image`). Then it has to
            show one person, of moderate size, whose face is seen. Bystanders of less than half their size are let pass.
    """
    try:
        return _picture(Path(path), look, limits)
    except InputError as error:
        return refusal_of(error)


def check_clip(path: Path, limits: ContractLimits = CONTRACT) -> Refused | None:
    """Why the performer's clip cannot be used; None where it can. Every packet is read, the first frames are decoded."""
    try:
        return _clip(Path(path), limits)
    except InputError as error:
        return refusal_of(error)


def refusal_of(error: InputError) -> Refused:
    """The code and the message of what a job, or a look at its inputs, has refused.

    What is wrong with a file is told by `InputError.fault`. A setting is `InvalidParameter`. What this machine lacks, as a disk
    or a checkpoint, is `InternalError`, without details.
    """
    if isinstance(error, (OutputError, CheckpointError)):
        return Refused("InternalError", "An internal error has occurred, please try again later.")
    field, fault = error.field, error.fault
    if field in _FIELDS and fault is Fault.KIND:
        return _KIND[field]
    if (field, fault) == ("image", Fault.NOBODY):
        return Refused("InvalidImage.NoHuman", _NO_HUMAN)
    code = "InvalidParameter" if fault is None else _CODES.get((field, fault), "InvalidParameter")
    name = _FIELDS.get(field) or plainly(field)
    return Refused(code, spell(f"{name}: {one_line(error.rule)}. {error.remedy.removesuffix('.')}."))


def _picture(path: Path, look: bool, limits: ContractLimits) -> Refused | None:
    header = read_header(path)
    if header.format not in _PICTURES:
        return _KIND["image"]
    size = path.stat().st_size
    if size > limits.picture_bytes:
        return _too_many_bytes("image", size, limits.picture_bytes)
    short, long = sorted((header.width, header.height))
    if not limits.picture_sides[0] <= short <= long <= limits.picture_sides[1]:
        return _sides("InvalidImageResolution", "image", (header.width, header.height), limits.picture_sides)
    if long > limits.aspect * short:
        return _aspect("InvalidImage.ImageSize", "image", limits.aspect)
    picture = load_image(path)
    return _who(picture) if look else None


def _who(picture: Frame) -> Refused | None:
    """Why the people in a picture [H, W, 3] are not the one character it has to show."""
    seen = [person.keypoints for person in open_detector(PreprocessSettings()).candidates(picture)]
    if not seen:
        return Refused("InvalidImage.NoHuman", _NO_HUMAN)
    people = _counted(seen)
    if len(people) > 1:
        rule = f"The input image shows {len(people)} people. Please upload other image with single person."
        return Refused("InvalidImage.MultiHuman", rule)
    left, top, right, bottom = box(people[0])
    if max(right - left, bottom - top) < _SMALLEST * min(picture.shape[:2]):
        rule = "The person in the input image is too small. Please upload other image in which the person is larger."
        return Refused("InvalidFile.Content", rule)
    if not made_out(np.stack(people))[0]:
        rule = "No human face is seen in the input image. Please upload other image with the face clear and not hidden."
        return Refused("InvalidImage.NoHumanFace", rule)
    return None


def _counted(people: Sequence[Keypoints]) -> list[Keypoints]:
    """The largest person, and those who are not much smaller and plainly there."""
    large = sizes(np.stack(people))
    main = int(large.argmax())
    others = [
        person
        for i, person in enumerate(people)
        if i != main and large[i] >= _BESIDE * large[main] and person[HEAD_AND_SHOULDERS, 2].mean() >= _SEEN
    ]
    return [people[main], *others]


def _clip(path: Path, limits: ContractLimits) -> Refused | None:
    size = path.stat().st_size if path.is_file() else 0
    if size > limits.clip_bytes:
        return _too_many_bytes("video", size, limits.clip_bytes)
    if size and kind_of(path) not in (VIDEO, None):
        return _KIND["video"]
    with open_video(path, "video") as container:
        if container.format.name not in _VIDEOS:
            return _KIND["video"]
    return _clip_limits(probe(path, None), limits)


def _clip_limits(clip: Clip, limits: ContractLimits) -> Refused | None:
    least, most = limits.clip_seconds
    if not least - SLACK_SECONDS <= clip.duration <= most + SLACK_SECONDS:
        rule = f"input.video_url: {clip.duration:.2f} s long; the length must lie between {least:g} and {most:g} s."
        return Refused("InvalidFile.Duration", rule)
    short, long = sorted((clip.width, clip.height))
    if not limits.clip_sides[0] <= short <= long <= limits.clip_sides[1]:
        return _sides("InvalidFile.Resolution", "video", (clip.width, clip.height), limits.clip_sides)
    if long > limits.aspect * short:
        return _aspect("InvalidFile.AspectRatio", "video", limits.aspect)
    return None


def _too_many_bytes(field: str, size: int, most: int) -> Refused:
    rule = f"{_FIELDS[field]}: {size / _MIB:.1f} MB, above the limit of {most / _MIB:g} MB."
    return Refused("InvalidFile.Size", rule)


def _sides(code: str, field: str, size: tuple[int, int], sides: tuple[int, int]) -> Refused:
    rule = f"{size[0]}x{size[1]} pixels; both sides must lie between {sides[0]} and {sides[1]} pixels"
    return Refused(code, f"{_FIELDS[field]}: {rule}.")


def _aspect(code: str, field: str, aspect: float) -> Refused:
    return Refused(code, f"{_FIELDS[field]}: the aspect ratio must lie between 1:{aspect:g} and {aspect:g}:1.")
