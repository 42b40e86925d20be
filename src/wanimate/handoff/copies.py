"""Copies of a result: for review, for the edit, and pictures of it. Each is written under the name that it is given."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import av
import cv2
import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate, pad

from wanimate.config import FORMATS, OutputSettings
from wanimate.config.codecs import Alpha
from wanimate.errors import InputError, OutputError
from wanimate.events import Clock, Event, Notice, Stage, StageProgress
from wanimate.finish.audio import HELD
from wanimate.finish.encode import CONTAINERS, Carried, OutputWriter, check_size
from wanimate.handoff.source import Source
from wanimate.media.colour import BT709
from wanimate.media.container import open_video
from wanimate.media.files import AtomicFile, output_error
from wanimate.media.master import Master
from wanimate.media.png import write_png
from wanimate.media.probe import tag_of
from wanimate.media.video import VideoFrames
from wanimate.provenance.forms import MP4, media_type
from wanimate.types import Clip, Frame

MezzanineCodec = Literal["prores-hq", "dnxhr-hqx", "prores-4444"]
Mezzanine = Literal["auto", "prores-hq", "dnxhr-hqx", "prores-4444", "none"]
MEZZANINES: tuple[Mezzanine, ...] = get_args(Mezzanine)
LARGEST = 1920, 1080
"""Of a review copy, turned for upright pictures."""
_THUMBNAIL = 640
"""Pixels of a thumbnail's long side, at most."""
_QUALITY, _LOOKED_AT = 90, 9
"""Of a thumbnail's JPEG; so many frames are looked at for the poster."""
_PROFILES: dict[tuple[str, str], MezzanineCodec] = {
    ("prores", "HQ"): "prores-hq", ("prores", "4444"): "prores-4444", ("dnxhd", "DNXHR HQX"): "dnxhr-hqx",
}  # fmt: skip
"""Codec and profile, as FFmpeg tells them."""


@dataclass(frozen=True)
class Plan:
    """How a copy is made. way: the bytes as they are; the streams in a new file; or frames encoded anew, with `codec`."""

    way: Literal["copy", "rewrap", "encode"]
    codec: Literal["h264"] | MezzanineCodec
    ending: str


def review_plan(source: Source) -> Plan:
    """How the review copy is made: a result that is one already stays as it is, and one that lacks only the container or the
    timecode keeps its pictures and its sound."""
    if source.master.pictures or not _is_for_review(source):
        return Plan("encode", "h264", ".mp4")
    labelled = not source.count.exact or _label_in(source.path) == source.count.label(source.count.start)
    whole = media_type(source.path) == MP4 and (labelled or _is_signed(source))
    return Plan("copy" if whole else "rewrap", "h264", ".mp4")


def mezzanine_plan(source: Source, wanted: Mezzanine) -> Plan | None:
    """How the file for the edit is made; None where none is wanted.

    Raises:
        InputError: the codec cannot hold the result.
    """
    if wanted == "none":
        return None
    there = None if source.master.pictures else _profile(source.path)
    whole, clip = source.path.suffix.lower() == ".mov", source.master.clip
    fits = whole or clip is None or all(track.codec in HELD[".mov"] for track in clip.audio[:1])
    if there is not None and wanted in ("auto", there) and fits:
        return Plan("copy" if whole else "rewrap", there, ".mov")
    codec = wanted
    if codec == "auto":
        odd = source.best.size[0] % 2 > 0  # 4:2:2 needs an even width
        codec = "prores-4444" if source.best.has_alpha or odd else "prores-hq"
    try:
        check_size(OutputSettings(codec=codec), *source.best.size)
    except OutputError as error:
        remedy = "Give prores-4444, which holds every size, or none."
        raise InputError("mezzanine", codec, error.rule, remedy) from error
    return Plan("encode", codec, FORMATS[codec].endings[0])


def write_review(source: Source, plan: Plan, out: Path) -> Generator[Event, None, None]:
    """The review copy: H.264 4:2:0, at most 1920x1080, BT.709, with sound and timecode."""
    if plan.way == "copy":
        _copy(source.path, out)
    elif plan.way == "rewrap":
        _rewrap(source, out)
    else:
        yield from _encode(source.master, source, out, OutputSettings(codec="h264", sheet=False), review_size)


def write_mezzanine(source: Source, plan: Plan, out: Path) -> Generator[Event, None, None]:
    """The file for the edit, of the best that there is, with sound and timecode."""
    if plan.way == "copy":
        _copy(source.path, out)
        return
    if plan.way == "rewrap":
        _rewrap(source, out)
        return
    alpha: Alpha = "straight" if source.best.has_alpha and FORMATS[plan.codec].alphas else "none"
    if source.best.has_alpha and alpha == "none":
        yield Notice(
            f"the opacity is left out of the {FORMATS[plan.codec].title} file; prores-4444 holds it", "warning"
        )
    if source.best.lossy:
        yield Notice(
            "the file for the edit is made of a lossy result; a result in ProRes, DNxHR, ffv1, png or exr keeps more"
        )
    yield from _encode(source.best, source, out, OutputSettings(codec=plan.codec, alpha=alpha))


def write_matte(source: Source, matte: Path, master: Master | None, out: Path) -> Generator[Event, None, None]:
    """The matte: as it is, or, where it is a folder of pictures (`master`), as a video for the edit."""
    if master is None:
        _copy(matte, out)
    else:
        yield from _encode(master, source, out, OutputSettings(codec="prores-4444", audio=False))


def review_size(width: int, height: int) -> tuple[int, int]:
    """The even size of a review copy. It is never enlarged; an odd side grows by one."""
    most = LARGEST if width >= height else LARGEST[::-1]
    scale = min(Fraction(most[0], width), Fraction(most[1], height), Fraction(1))
    if scale == 1:
        return width + width % 2, height + height % 2
    return tuple(max(2, round(side * scale / 2) * 2) for side in (width, height))  # type: ignore[return-value]


def write_thumbnails(review: Path, first: int, places: dict[str, Path]) -> None:
    """Pictures of a review copy: "first", "middle", "last" as JPEG, and "poster" as PNG in its full size, the one of nine
    frames that differs most within itself, so that it is never a black one.

    Args:
        first: the number of the first frame of the picture, behind a slate.
    """
    frames = VideoFrames(review, "result")
    try:
        last = frames.count - 1
        first = min(first, last)
        numbers = {"first": first, "middle": (first + last) // 2, "last": last}
        for name, number in numbers.items():
            _write_jpeg(places[name], _smaller(frames.take([number])[0]))
        looked = sorted({first + round((last - first) * (i + 1) / (_LOOKED_AT + 1)) for i in range(_LOOKED_AT)})
        poster = max(looked, key=lambda number: float(frames.take([number])[0].mean(2).std()))
        write_png(places["poster"], frames.take([poster])[0], "to")
    finally:
        frames.close()


def _encode(
    master: Master, source: Source, out: Path, settings: OutputSettings, size: Any = None
) -> Generator[Event, None, None]:
    """Frames of a master as a file, in the size that `size` makes of its own."""
    width, height = master.size if size is None else size(*master.size)
    count = source.count
    carried = Carried(count.start if count.exact else None, count.drop, source.reel)
    clip: Clip | None = source.master.clip
    clock = Clock()
    yield from clock.start(Stage.WRITE, master.count)
    with OutputWriter(out, master.fps, width, height, settings, clip, carried=carried) as writer:
        for chunk in master.with_opacity():
            frames, opacity = chunk[:, :3], chunk[:, 3:] if settings.alpha != "none" else None
            writer.write(_sized(frames, width, height), opacity)
            yield clock.placed(StageProgress(Stage.WRITE, writer.count, master.count))
    yield from (notice for notice in writer.notices if notice.level == "warning")
    yield from clock.stop()


def _sized(frames: Tensor, width: int, height: int) -> Tensor:
    """Frames in a smaller size; where a side is one pixel larger, its last row or column is there twice."""
    more = (width - frames.shape[3], height - frames.shape[2])
    if more == (0, 0):
        return frames
    if min(more) >= 0:
        return pad(frames, (0, more[0], 0, more[1]), mode="replicate")
    smaller = interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return smaller.clamp(0, 1)


def _rewrap(source: Source, out: Path) -> None:
    """The packets of a result in a file of their own, with the timecode. Frames get exact times: Matroska has milliseconds."""
    clip = source.master.clip
    assert clip is not None
    try:
        with open_video(source.path, "result") as container:
            stamps = [packet.pts for packet in container.demux(container.streams[clip.stream]) if packet.size]
        rank = {pts: number for number, pts in enumerate(sorted(stamps))}
        late = max(number - rank[pts] for number, pts in enumerate(stamps))
        with open_video(source.path, "result") as container, AtomicFile(out, "to") as file:
            video = container.streams[clip.stream]
            streams = [video, *container.streams.audio[:1]]
            with av.open(file, "w", format=CONTAINERS[out.suffix], options={"movflags": "+faststart"}) as made:
                to: dict[int, Any] = {stream.index: made.add_stream_from_template(stream) for stream in streams}
                rate, shown = source.master.fps, to[video.index]
                shown.codec_context.framerate, shown.time_base = rate, 1 / rate
                if source.count.exact:
                    shown.metadata["timecode"] = source.count.label(source.count.start)
                zero, number = min(stamps) * video.time_base, 0
                for packet in container.demux(streams):
                    if not packet.size or packet.pts is None:
                        continue
                    if packet.stream.index == video.index:
                        packet.pts, packet.dts, packet.duration = rank[packet.pts], number - late, 1
                        packet.time_base, number = 1 / rate, number + 1
                    else:
                        packet.pts -= round(zero / packet.time_base)
                        packet.dts = packet.pts
                    packet.stream = to[packet.stream.index]
                    made.mux(packet)
    except av.error.FFmpegError as error:
        raise InputError("result", source.path, f"it is damaged ({error.strerror})", "Make it again.") from error


def _copy(source: Path, out: Path) -> None:
    try:
        with AtomicFile(out, "to") as file, open(source, "rb") as given:
            shutil.copyfileobj(given, file, 1 << 20)
    except OSError as error:
        raise output_error(out, error, "to") from error


def _is_for_review(source: Source) -> bool:
    """Whether the pictures and the sound of a file are those of a review copy."""
    master = source.master
    with open_video(source.path, "result") as container:
        assert master.clip is not None
        stream: Any = container.streams[master.clip.stream]
        context = stream.codec_context
        tags = (context.color_primaries, context.color_trc, context.colorspace)
        stored = (context.width, context.height)
        sound = [one.codec_context.codec.canonical_name for one in container.streams.audio[:1]]
        return (
            context.codec.canonical_name == "h264" and context.pix_fmt == "yuv420p" and tags == (BT709,) * 3
            and stored == review_size(*stored) and master.clip.orientation == 1 and sound in ([], ["aac"])
        )  # fmt: skip


def _label_in(path: Path) -> str:
    """The timecode that a file tells itself."""
    with open_video(path, "result") as container:
        return tag_of(container, "timecode")


def _is_signed(source: Source) -> bool:
    marks = source.record.get("marks")
    signed = marks.get("c2pa") if isinstance(marks, dict) else None
    return isinstance(signed, dict) and signed.get("in") == "the file"


def _profile(path: Path) -> MezzanineCodec | None:
    """The mezzanine codec that a file has; None where it is none."""
    with open_video(path, "result") as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.codec.canonical_name
        return _PROFILES.get((codec, str(stream.profile)))


def _smaller(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = min(_THUMBNAIL / max(width, height), 1.0)
    if scale == 1.0:
        return frame
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _write_jpeg(path: Path, frame: Frame) -> None:
    done, encoded = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    with AtomicFile(path, "to") as file:
        file.write(encoded.tobytes())
