"""The values handed from stage to stage. Each checks itself on construction and prints its shapes.

    Job -> Clip -> Guides -> (Segment, Conditions) -> latents -> frames -> Result

Letters: N frames of the job, K frames of a segment (4n+1), T = (K+3)/4 latent frames, H W pixels, h = H/8, w = W/8.
Pixel frames are uint8 RGB [N, H, W, 3]; network videos are float32 RGB [3, K, H, W] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from wanimate.config import Mode as Mode

Frame = npt.NDArray[np.uint8]
"""One picture, uint8 RGB [H, W, 3]."""
Frames = npt.NDArray[np.uint8]
"""Several pictures of one size, uint8 RGB [n, H, W, 3]."""
Keypoints = npt.NDArray[np.float64]
"""133 whole-body keypoints, [133, 3] or [n, 133, 3]: x and y in pixels, confidence (preprocess spec, section 8.1)."""


class FrameSource(Protocol):
    """Frames that are read when they are needed. `media.video` has one over arrays and one over lossless files."""

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        ...

    def take(self, indices: Sequence[int]) -> Frames:
        """The frames at `indices` (any order, repeats allowed, each in 0..count-1), uint8 [len(indices), H, W, 3]."""
        ...


@dataclass(frozen=True)
class AudioTrack:
    """One audio stream of a clip. `index` counts audio streams from 0; `duration` is in seconds."""

    index: int
    codec: str
    sample_rate: int
    channels: int
    duration: float


@dataclass(frozen=True)
class Clip:
    """A probed video file: what it truly holds, found by reading its packets, not its header.

    Width and height are as displayed (after `orientation`, as EXIF numbers it: 1 upright to 8). `times` are the
    presentation times of the frames in seconds, strictly increasing, from 0; `duration` includes the last frame. `stream`
    is the number of its video stream in the file. `notices`: what the user should be told of it. `timecode` is that of its
    first frame, as the file writes it; "" where it tells none, and so is `reel`. `hdr`: the notice that says that its colours
    are tone mapped; empty where they are not.
    """

    path: Path
    container: str
    codec: str
    width: int
    height: int
    orientation: int
    times: tuple[float, ...] = field(repr=False)
    duration: float
    fps: Fraction
    variable_rate: bool
    audio: tuple[AudioTrack, ...]
    bytes: int
    stream: int = 0
    notices: tuple[str, ...] = ()
    timecode: str = ""
    reel: str = ""
    hdr: str = ""

    def __post_init__(self) -> None:
        assert self.times, "a clip has at least one frame"
        assert self.orientation in range(1, 9)

    @property
    def count(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Guides:
    """Everything the network is told about the performance: the hand-off between preprocessing and generation.

    All sources have the same N and the same rate `fps`; `pose` (and `background`, `mask` in replacement mode) have the
    output size W x H, `face` is square. `reference` is the character, uint8 RGB [H', W', 3] of any size: the conditions
    stage letterboxes it. `mask` is white (255) where the person is. `valid[i]` is False where nobody was found.
    """

    mode: Mode
    fps: Fraction
    pose: FrameSource
    face: FrameSource
    reference: Frame
    background: FrameSource | None = None
    mask: FrameSource | None = None
    valid: tuple[bool, ...] | None = None
    folder: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.mode == "replacement":
            assert self.background is not None
            assert self.mask is not None
        assert self.reference.ndim == 3
        assert self.reference.shape[2] == 3
        assert self.fps > 0

    @property
    def count(self) -> int:
        """Frames of the job: the pose video decides (model spec, section 10.1)."""
        return self.pose.count

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the output in pixels."""
        return self.pose.size

    def __str__(self) -> str:
        (w, h), (fw, fh) = self.pose.size, self.face.size
        return f"Guides({self.mode}, {self.count} frames at {float(self.fps):g}/s, pose {w}x{h}, face {fw}x{fh})"


@dataclass(frozen=True)
class Segment:
    """One run of the network: job frames start..start+length-1, of which the first `overlap` are already known.

    `index` counts from 0; `overlap` is 0 in the first segment. `length` is 4n+1.
    """

    index: int
    start: int
    length: int
    overlap: int

    def __post_init__(self) -> None:
        assert self.length % 4 == 1
        assert 0 <= self.overlap <= self.length

    @property
    def latent_frames(self) -> int:
        """T: latent frames of the clip, without the reference frame."""
        return (self.length + 3) // 4

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Conditions:
    """All that one segment's network calls need and that no diffusion step changes.

    y: [20, T+1, h, w] mask and condition latents; pose_latents: [16, T, h, w];
    face: [3, K, S, S] in [-1, 1]; text and negative: [tokens, text width]; image_tokens: [257, 1280] or None.
    """

    y: torch.Tensor
    pose_latents: torch.Tensor
    face: torch.Tensor
    text: torch.Tensor
    negative: torch.Tensor | None
    image_tokens: torch.Tensor | None

    def __post_init__(self) -> None:
        assert self.y.ndim == 4
        assert self.y.shape[0] == 20
        assert self.pose_latents.shape[1] == self.y.shape[1] - 1

    def __str__(self) -> str:
        shapes = {k: tuple(v.shape) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return "Conditions(" + ", ".join(f"{k} {list(s)}" for k, s in shapes.items()) + ")"


@dataclass(frozen=True)
class Result:
    """A finished job. `out` exists under its final name; `manifest` is what was written beside it as JSON. `count`, `size` and
    `fps` are the file's, without a slate. `seed`: None where nothing was drawn."""

    out: Path
    count: int
    size: tuple[int, int]
    fps: Fraction
    seed: int | None
    sheet: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class AttentionStep:
    """Of one step's self-attention: the share of pairs of blocks that was visited (those that were visited twice count twice),
    and the largest error that was measured in any layer and head. Both are over the layers that a step cache has left to
    compute, and 0 where it has left none."""

    density: float
    error: float
