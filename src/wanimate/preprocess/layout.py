"""Which frames of a clip make a job, at what rate, and how large everything drawn will be. Nothing is decoded here."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.decode import Damage
from wanimate.media.resize import check_area, cover, cover_placement, exact_size, published_resize, published_size
from wanimate.media.stretch import handles_of, stretch_of
from wanimate.media.timing import cap_rate, published_count, published_indices
from wanimate.media.video import plan_frames
from wanimate.preprocess.guides import check_format
from wanimate.preprocess.pose.keypoints import move
from wanimate.types import Clip, Frame, Keypoints, Mode

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class Layout:
    """The frames and sizes of one job.

    Attributes:
        indices: the clip's frame of every job frame.
        fps: the exact rate of the job.
        size: of the guides.
        seen: of the frames in which people are detected and faces are cut out.
        area: pixel area asked for.
        resized: whether frames are brought to the output size before anything else, as published for replacement.
        handles: job frames before and after the stretch that was asked for.
        damage: frames of the clip that the first pass could not decode.
    """

    clip: Clip
    indices: tuple[int, ...]
    fps: Fraction
    size: Size
    seen: Size
    area: int
    resized: bool
    handles: tuple[int, int] = (0, 0)
    damage: Damage = field(default_factory=Damage, compare=False)

    @property
    def count(self) -> int:
        return len(self.indices)

    def seen_frame(self, frame: Frame) -> Frame:
        """A frame of the clip as detectors take it."""
        return published_resize(frame, self.area) if self.resized else frame

    def output_frame(self, seen: Frame) -> Frame:
        """A frame of size `seen` at output size."""
        return seen if self.resized else cover(seen, *self.size)

    def fitted(self, frame: Frame) -> Frame:
        """A frame of the clip at output size."""
        return self.output_frame(self.seen_frame(frame))

    def output_points(self, points: Keypoints) -> Keypoints:
        """Points [..., 3] in pixels of seen frames, in pixels of `output_frame`."""
        if self.seen == self.size:
            return points
        place = cover_placement(*self.seen, *self.size)
        return move(points, (place.scale_x, place.scale_y), (place.offset_x, place.offset_y))


def plan_layout(mode: Mode, clip: Clip, image_size: Size, settings: PreprocessSettings, area: int) -> Layout:
    """The layout of a job. In animation the character's picture decides the aspect, in replacement the clip does.

    Args:
        image_size: (width, height) of the character's picture.
        area: pixel area of the output (width x height, only the product counts).

    Raises:
        InputError: no guides of this area, rate or face size can be written and read again.
    """
    indices, fps = job_frames(clip, settings)
    clip_size = clip.width, clip.height
    aspect = clip_size if mode == "replacement" else image_size
    check_area(area)
    size = (published_size if settings.compat else exact_size)(*aspect, area)
    check_format(area, size, fps, settings.face_size)
    resized = settings.compat and mode == "replacement"
    return Layout(clip, indices, fps, size, size if resized else clip_size, area, resized, handles_of(clip, settings))


def job_frames(clip: Clip, settings: PreprocessSettings) -> tuple[tuple[int, ...], Fraction]:
    """The clip's frame of each job frame, and the rate; with `compat` as if the clip's rate were constant (section 5)."""
    used = stretch_of(clip, settings)
    if not settings.compat:
        return plan_frames(clip, settings.fps, settings.max_fps, used)
    fps, there = settings.fps or cap_rate(clip.fps, settings.max_fps), used.stop - used.first
    count = min(published_count(there, used.seconds, float(clip.fps)), there)
    indices, _ = published_indices(count, float(clip.fps), float(fps))
    if not indices:
        rule = f"leaves no frame of a clip of {used.seconds:.2f} s"
        raise InputError("preprocess.fps", fps, rule, "Give a higher rate")
    return tuple(used.first + i for i in indices), fps
