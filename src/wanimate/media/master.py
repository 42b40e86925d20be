"""Masters: finished videos and sequences as float chunks, for finishing: float32 RGB [n, 3, H, W] of BT.709, 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import Interpolation
from torch import Tensor

from wanimate.config.values import snap_rate
from wanimate.errors import Fault, InputError, setting
from wanimate.media.colour import Colours, colours_of
from wanimate.media.container import open_video, packets
from wanimate.media.exr import label_of, read_exr
from wanimate.media.levels import decoded, from_levels, from_light
from wanimate.media.orientation import UPRIGHT, as_shown, shown_size
from wanimate.media.probe import probe
from wanimate.types import Clip, Frame

CHUNK_BYTES = 64 * 2**20
"""Of a chunk, at most; every chunk has at least one frame."""
_MILLISECOND = 0.0011
_THUMBNAIL = 128, 72
AREA = Interpolation.AREA | Interpolation.ACCURATE_RND
_NUMBERED = re.compile(r"(.*?)(\d+)\.(png|exr)", re.IGNORECASE | re.DOTALL)
_PACKED = {8: ("gbrp", "gbrap"), 16: ("gbrp16le", "gbrap16le")}


@dataclass(frozen=True)
class Master:
    """A video or a folder of numbered pictures that can be finished.

    Attributes:
        path, size (width, height), fps, count: of it, as it is shown: frames of a turned video come upright.
        depth: bits of a channel.
        has_alpha: whether it has opacity, which `frames` leaves out and `opacity` gives.
        lossy: whether its codec loses detail, so that enlarging it gains little.
        clip: as probed, for the sound; None for a folder.
        timecode, reel: of the first frame, as in `Clip`.
        pictures: files of a folder, in order.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    count: int
    depth: int
    has_alpha: bool
    lossy: bool
    clip: Clip | None = None
    pictures: tuple[Path, ...] = ()
    timecode: str = ""
    reel: str = ""

    @property
    def at_once(self) -> int:
        """Frames of a chunk."""
        return max(CHUNK_BYTES // (12 * self.size[0] * self.size[1]), 1)

    def frames(self) -> Iterator[Tensor]:
        """All frames as chunks.

        Raises:
            InputError: the file is damaged, or has changed since it was looked at.
        """
        return (chunk[:, :3] for chunk in self.with_opacity())

    def with_opacity(self) -> Iterator[Tensor]:
        """All frames as chunks of four channels [n, 4, H, W], the last one opacity, where there is one; else of three."""
        waiting: list[Tensor] = []
        count = 0
        for frame in self._pictures() if self.pictures else self._video():
            waiting.append(frame)
            count += 1
            if len(waiting) == self.at_once:
                yield torch.cat(waiting)
                waiting = []
        if waiting:
            yield torch.cat(waiting)
        if count != self.count:
            raise _damaged(self.path, f"{count} of {self.count} frames can be decoded")

    def thumbnails(self) -> Iterator[Frame]:
        """All frames as uint8 RGB [72, 128, 3], whatever their shape: enough to see where a shot begins."""
        for path in self.pictures:
            picture = (read_picture(path)[0, :3].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            yield cv2.resize(picture, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        if not self.pictures:
            for frame in self._decoded():
                yield frame.reformat(*_THUMBNAIL, "rgb24", interpolation=AREA).to_ndarray()

    def _video(self) -> Iterator[Tensor]:
        assert self.clip is not None
        stored = shown_size(*self.size, self.clip.orientation)
        for frame in self._decoded():
            yield _upright(_as_float(frame, self.path, stored), self.clip.orientation)

    def _decoded(self) -> Iterator[Any]:
        assert self.clip is not None
        return _frames_of(self.clip)

    def _pictures(self) -> Iterator[Tensor]:
        for path in self.pictures:
            picture = read_picture(path)
            if (picture.shape[3], picture.shape[2]) != self.size:
                raise _damaged(path, f"it has {picture.shape[3]}x{picture.shape[2]} pixels, the first one another size")
            yield self._as_opaque_as_the_first(picture, path)

    def _as_opaque_as_the_first(self, picture: Tensor, path: Path) -> Tensor:
        """A picture with opacity where the first one has it. Writers of PNG leave it out where all of a picture is opaque."""
        if self.has_alpha and picture.shape[1] == 3:
            return torch.cat((picture, torch.ones_like(picture[:, :1])), dim=1)
        if not self.has_alpha and picture.shape[1] == 4:
            if picture[:, 3].min() < 1:
                raise _damaged(path, "it has opacity, and the first picture has none")
            return picture[:, :3]
        return picture


def open_master(path: Path, fps: Fraction | None = None) -> Master:
    """Look at a master.

    Args:
        fps: the rate of a folder of PNGs, which tells none; None is 24, or what OpenEXR pictures tell.

    Raises:
        InputError: it cannot be read; it is HDR, or in colours that are not BT.709's; its rate varies; it is interlaced; its
            pixels are not square; pictures are missing; a rate is given for a video.
    """
    if Path(path).is_dir():
        return _folder(Path(path), fps)
    if fps is not None:
        remedy = f"Leave it out; {setting('output.fps_out')} gives the result another rate."
        raise InputError("fps", fps, "the master is a video, which tells its own rate", remedy)
    return _file(Path(path))


def read_picture(path: Path) -> Tensor:
    """A PNG or OpenEXR picture as float32 [1, 3 or 4, H, W], straight alpha.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() == ".exr":
        found, _ = read_exr(path, "master")
        light = torch.from_numpy(found).permute(2, 0, 1)[None]
        if light.shape[1] == 4:
            opacity = light[:, 3:].clamp(0, 1)
            light = torch.cat((light[:, :3] / opacity.clamp_min(1e-6) * (opacity > 0), opacity), dim=1)
        return torch.cat((from_light(light[:, :3]).clamp(0, 1), light[:, 3:]), dim=1)
    try:
        stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    except OSError as error:
        raise _damaged(path, f"the picture cannot be read ({error.strerror})") from error
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        raise _damaged(path, "the picture cannot be read")
    levels: npt.NDArray[Any] = stored if stored.ndim == 3 else stored[..., None].repeat(3, 2)
    return from_levels(levels[None, ..., [2, 1, 0, 3][: levels.shape[2]]])


def _frames_of(clip: Clip) -> Iterator[Any]:
    """Decoded frames. Raises InputError: one is damaged."""
    with open_video(clip.path, "master") as container:
        stream = container.streams[clip.stream]
        stream.thread_type = "AUTO"
        try:
            for packet in packets(container, [stream]):
                yield from stream.decode(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise _damaged(clip.path, f"one of its frames cannot be decoded ({error.strerror})") from error


def _file(path: Path) -> Master:
    clip = probe(path, None, "master")
    if clip.variable_rate:
        rule = "its rate varies, and a master has a constant one"
        raise InputError("master", path, rule, "Export it again with a constant rate.", Fault.UNREADABLE)
    with open_video(path, "master") as container:
        stream = container.streams[clip.stream]
        frame = next(_frames_of(clip), None)
        if frame is None:
            raise _damaged(path, "not one of its frames can be decoded")
        _checked(frame, path)
        if (aspect := stream.sample_aspect_ratio) not in (None, 0, 1):
            rule = f"its pixels are not square ({aspect.numerator}:{aspect.denominator})"
            raise InputError("master", path, rule, "Export it with square pixels.", Fault.UNREADABLE)
        fps = _stated(clip, stream.average_rate) or clip.fps
        parts = frame.format.components
        lossy = clip.codec not in ("ffv1", "png", "qtrle", "rawvideo", "huffyuv", "utvideo")
        alpha = any(part.is_alpha for part in parts)
        size = shown_size(frame.width, frame.height, clip.orientation)
        return Master(
            path, size, fps, clip.count, parts[0].bits, alpha, lossy, clip, timecode=clip.timecode, reel=clip.reel
        )


def _stated(clip: Clip, rate: Fraction | None) -> Fraction | None:
    """The rate that the file states, where every time stamp is that of its frame to the millisecond. A few frames with stamps
    of whole milliseconds do not tell it."""
    if not rate or any(abs(time - i / rate) > _MILLISECOND for i, time in enumerate(clip.times)):
        return None
    return snap_rate(Fraction(rate))


def _checked(frame: Any, path: Path) -> Colours:
    """The colours of a decoded frame that a master may have."""
    if frame.interlaced_frame:
        raise InputError("master", path, "it is interlaced", "Deinterlace it first.", Fault.UNREADABLE)
    colours = colours_of(frame)
    if colours.is_hdr or colours.converted:
        rule = "it is HDR or in wide colours" if colours.is_hdr else "its colours are not those of BT.709"
        raise InputError("master", path, rule, "Convert it to BT.709 (SDR) first.", Fault.UNREADABLE)
    colours.check(path, "master")
    return colours


def _as_float(frame: Any, path: Path, size: tuple[int, int]) -> Tensor:
    """A decoded frame [1, 3 or 4, H, W], computed in float from the numbers that the file holds."""
    if (frame.width, frame.height) != size:
        raise _damaged(path, f"its size changes to {frame.width}x{frame.height} pixels")
    colours = _checked(frame, path)
    bits = max(part.bits for part in frame.format.components)
    alpha = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
    name = frame.format.name
    if name.startswith(("yuv", "gbr")) and name.endswith(("p", "le")):
        planes = [_plane(plane, bits) for plane in frame.planes]
    else:
        form = _PACKED[8 if bits <= 8 else 16][alpha]
        frame = frame.reformat(format=form)
        name, bits = form, 8 if bits <= 8 else 16
        planes = [_plane(plane, bits) for plane in frame.planes]
    most = 2**bits - 1
    if name.startswith("gbr"):
        rgb = torch.stack([planes[2], planes[0], planes[1]], dim=1).to(torch.float32) / most
    else:
        full = frame.color_range == 2 or name.startswith("yuvj")
        rgb = decoded(planes[:3], bits, colours.matrix, full).clamp(0, 1)
    if len(planes) < 4:
        return rgb
    return torch.cat((rgb, planes[3][:, None].to(torch.float32) / most), dim=1)


def _upright(frame: Tensor, orientation: int) -> Tensor:
    """A frame [1, C, h, w] as the file has it -> [1, C, H, W] as it is shown."""
    if orientation == UPRIGHT:
        return frame
    shown = as_shown(frame[0].permute(1, 2, 0).numpy(), orientation)
    return torch.from_numpy(np.ascontiguousarray(shown)).permute(2, 0, 1)[None]


def _plane(plane: Any, bits: int) -> Tensor:
    """[1, h, w] of whole numbers."""
    kind = np.uint8 if bits <= 8 else np.uint16
    step = np.dtype(kind).itemsize
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    values = np.ascontiguousarray(rows[:, : plane.width * step]).view(kind)
    return torch.from_numpy(values.astype(np.int32))[None]


def _folder(path: Path, fps: Fraction | None) -> Master:
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for file in path.iterdir():
        named = _NUMBERED.fullmatch(file.name)
        if named is not None and not file.name.startswith(".") and file.is_file():
            found.setdefault((named[1], named[3].lower()), []).append((int(named[2]), file))
    if not found:
        rule = "no numbered PNG or OpenEXR pictures are in it"
        raise InputError(
            "master", path, rule, "Give a video, or a folder such as --codec png writes.", Fault.UNREADABLE
        )
    if len(found) > 1:
        names = " and ".join(sorted(f"{before}*.{ending}" for before, ending in found))
        raise InputError("master", path, f"several sequences are in it: {names}", "Give each a folder of its own.")
    ((_, ending), numbered), *_ = found.items()
    numbered.sort()
    _check_numbers(path, numbered)
    files = tuple(file for _, file in numbered)
    rate, depth, timecode, reel = fps, 16, "", ""
    if ending == "exr":
        header = read_exr(files[0], "master")[1]
        told = header.get("framesPerSecond")
        rate = fps or (Fraction(int(told[0]), int(told[1])) if told is not None else None)
        timecode, reel = label_of(header), header.get("reelName", "")
    else:
        depth = _png_depth(files[0])
    first = read_picture(files[0])
    size = (int(first.shape[3]), int(first.shape[2]))
    alpha = first.shape[1] == 4
    rate = rate or Fraction(24)
    return Master(path, size, rate, len(files), depth, alpha, False, None, files, timecode, reel)


def _check_numbers(path: Path, numbered: list[tuple[int, Path]]) -> None:
    """Refuse sorted pictures of a sequence that has holes, or two of one number."""
    for (number, file), (following, other) in pairwise(numbered):
        if following == number:
            rule = f"{file.name} and {other.name} both are number {number}"
            raise InputError("master", path, rule, "Remove one of them.")
    missing = numbered[-1][0] - numbered[0][0] + 1 - len(numbered)
    if missing:
        first = next(a + 1 for (a, _), (b, _) in pairwise(numbered) if b > a + 1)
        rule = f"number {first} is missing" + (f", and {missing - 1} more" if missing > 1 else "")
        raise InputError("master", path, rule, "Complete the sequence.", Fault.UNREADABLE)


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        head = file.read(25)
    return 16 if head[24:25] == b"\x10" else 8


def _damaged(path: Path, rule: str) -> InputError:
    return InputError("master", path, rule, "Make the master again.", Fault.UNREADABLE)
