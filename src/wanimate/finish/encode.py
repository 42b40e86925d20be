"""Frames -> the final video or folder of pictures, with the clip's sound; complete under its name, or not there at all."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import av
from torch import Tensor

from wanimate.config import FORMATS, OutputSettings
from wanimate.errors import OutputError, setting
from wanimate.events import Notice
from wanimate.finish.audio import AudioCopy
from wanimate.finish.background import Background
from wanimate.finish.lock import OutputLock
from wanimate.media import timecode
from wanimate.media.coding import OnTheWay, coding_of
from wanimate.media.exr import check_installed, header_of, write_exr
from wanimate.media.png import write_new_png
from wanimate.media.sequence import Picture, SequenceWriter
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.types import Clip
from wanimate.weights.fingerprint import fingerprint

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


@dataclass(frozen=True)
class Carried:
    """What a result takes over from its clip beside the sound. start: timecode of the first frame that is written, as a frame
    number; None is no timecode. drop: whether its labels are dropped. reel: "" is none. audio_start: where in the clip its
    first used frame lies, in seconds. lead: seconds of frames before that one, which are silent."""

    start: int | None = None
    drop: bool = False
    reel: str = ""
    audio_start: float = 0.0
    lead: float = 0.0

    def label(self, index: int, fps: Fraction) -> str | None:
        """The timecode of a written frame."""
        return None if self.start is None else timecode.format(self.start + index, fps, self.drop)


class OutputWriter:
    """Writes a job's frames as they come, beside the caller's own work (`Background`). Use as a context manager: an exception
    inside removes everything written.

    Args:
        path: the final name (`config.codecs.FORMATS` lists the endings a codec allows).
        fps: the exact frame rate.
        width, height: of every frame. Odd sizes of H.264 and H.265 are written as they are, in 4:4:4.
        settings: codec, depth, alpha, quality, sound.
        audio_from: the clip whose first sound track accompanies the frames; trimmed to their length.
        lock: the job's lock on `path`, held by the caller; without one it is taken here.
        carried: timecode, reel and the place of the sound.

    Attributes:
        notices: what the user should be told (sound encoded anew, 4:4:4, what the format cannot hold); complete after `close`.

    Raises:
        OutputError: see `OutputLock` and `check_size`; a package is missing; the disk is full (raised by the next call after
            the write that failed).
    """

    field: ClassVar[str] = "out"
    """What the result is called in errors."""

    def __init__(
        self, path: Path, fps: Fraction, width: int, height: int, settings: OutputSettings = OutputSettings(),
        audio_from: Clip | None = None, lock: OutputLock | None = None, carried: Carried = Carried(),
    ) -> None:  # fmt: skip
        self.path, self.fps, self.count = Path(path), Fraction(fps), 0
        self.notices: list[Notice] = []
        self._carried, self._given, self._finished = carried, 0, False
        check_size(settings, width, height)
        odd = width % 2 > 0 or height % 2 > 0
        self._coding = coding_of(settings.codec, settings.bits, odd, settings.alpha, settings.dither)
        with ExitStack() as undo:
            if lock is None:
                undo.enter_context(OutputLock(self.path, settings))
            self._sink = self._open(width, height, settings)
            undo.callback(self._sink.discard)
            self._audio = self._add_audio(audio_from) if settings.audio else None
            if self._audio is not None:
                undo.callback(self._audio.close)
            self._background = Background()
            undo.callback(self._background.abandon)
            self._undo = undo.pop_all()

    def write(self, frames: Tensor, opacity: Tensor | None = None) -> None:
        """Add frames, float32 RGB [n, 3, H, W] in [0, 1] on any device, with opacity [n, 1, H, W] where the settings ask for
        alpha."""
        packed = self._coding.pack(frames, opacity, self._given)
        self._given += len(frames)
        self._background.do(partial(self._write, packed))

    def _write(self, packed: OnTheWay) -> None:
        for parts in packed.wait():
            if isinstance(self._sink, StreamWriter) and self._coding.planar:
                self._sink.write_planes(parts)
            else:
                self._sink.write(parts[0])
            self.count += 1
            if self._audio is not None:
                self._audio.advance(float(self.count / self.fps))

    def finish(self) -> None:
        """Write what is left; the file is complete then, under its temporary name. On failure nothing is left."""
        with ExitStack() as undo:
            undo.callback(self.discard)
            self._background.finish()
            self._sink.finish()
            undo.pop_all()
        self._finished = True
        if self._audio is not None and self._audio.failure is not None:
            self.notices.append(
                Notice(f"the clip's sound is damaged and ends early ({self._audio.failure})", "warning")
            )

    @property
    def hash(self) -> str:
        """Of what `finish` has completed: the file's fingerprint, or the SHA-256 of a folder's pictures on end."""
        if isinstance(self._sink, SequenceWriter):
            return f"sha256:{self._sink.digest.hexdigest()}"
        return fingerprint(self._sink.temporary)

    @property
    def temporary(self) -> Path:
        """Where the file or the folder is until `close`."""
        assert self._sink.temporary is not None, "the folder has its name"
        return self._sink.temporary

    def take(self, made: Path) -> None:
        """Put another file in the place of the finished one: the same with marks. Raises OutputError."""
        assert isinstance(self._sink, StreamWriter)
        self._sink.take(made)

    def close(self) -> None:
        """Give the file its final name, after `finish` where that has not been called. If it cannot get it, the finished file
        is kept under another one, which the error tells."""
        if not self._finished:
            self.finish()
        with self._undo:
            self._sink.commit(keep=True)

    def keep(self, why: OSError) -> OutputError:
        """Put a finished file that may not get its name under another one; returns the error that tells where."""
        return self._sink.keep(why)

    def discard(self) -> None:
        """Remove what was written."""
        self._undo.close()

    def _open(self, width: int, height: int, settings: OutputSettings) -> StreamWriter | SequenceWriter:
        found = FORMATS[settings.codec]
        if found.is_folder:
            if self._carried.start is not None and settings.codec == "png":
                self.notices.append(Notice("a PNG sequence has no timecode; it is in the record"))
            write = write_new_png if settings.codec == "png" else self._write_exr
            if settings.codec == "exr":
                check_installed("output.codec")
            return SequenceWriter(self.path, f".{settings.codec}", write, settings.start_number, self.field)
        options = dict(found.options)
        if found.takes_crf:
            options["crf"] = str(settings.crf)
        if found.odd and self._coding.pixels in found.odd.values():
            rule = f"{width}x{height} is odd, so the video is written in 4:4:4, which some players cannot show"
            self.notices.append(Notice(rule, "warning"))
        if settings.alpha != "none" and found.encoder == "prores_ks":
            options["alpha_bits"] = "16"
        ending = self.path.suffix.lower()
        muxer = {} if ending == ".mkv" else {"movflags": "+faststart"}
        encoding = Encoding(CONTAINERS[ending], found.encoder, self._coding.pixels, options, muxer, self._tags(ending))
        writer = StreamWriter(self.path, self.fps, width, height, encoding, self.field)
        if found.encoder == "libx265" and ending != ".mkv":
            writer.stream.codec_context.codec_tag = "hvc1"  # without it Apple's players show nothing
        return writer

    def _tags(self, ending: str) -> dict[str, str]:
        """Timecode and reel, as FFmpeg's writers of mov, mp4 and Matroska take them."""
        label, reel = self._carried.label(0, self.fps), self._carried.reel
        if reel and CONTAINERS[ending] == "mp4":
            self.notices.append(Notice(f"{ending} files have no place for the reel {reel}; it is in the record"))
            reel = ""
        found = {"timecode": label, "reel_name": reel}
        return {name: text for name, text in found.items() if text}

    def _write_exr(self, path: Path, picture: Picture) -> None:
        write_exr(path, picture, header_of(self.fps, self._carried.label(self.count, self.fps), self._carried.reel))

    def _add_audio(self, clip: Clip | None) -> AudioCopy | None:
        if clip is None or not clip.audio:
            return None
        if isinstance(self._sink, SequenceWriter):
            self.notices.append(Notice("a sequence of pictures has no sound; the clip's sound was left out"))
            return None
        ending = self.path.suffix.lower()
        try:
            audio = AudioCopy(clip, self._sink, ending, self._carried.audio_start, self._carried.lead)
        except (av.error.FFmpegError, ValueError) as e:
            self.notices.append(Notice(f"the clip's sound cannot be used ({e})", "warning"))
            return None
        if not audio.copied:
            self.notices.append(Notice(f"{audio.codec} sound does not fit into {ending}; it is encoded anew as AAC"))
        return audio

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def check_size(settings: OutputSettings, width: int, height: int) -> None:
    """Refuse frames of a size that a codec cannot store.

    Raises:
        OutputError: it stores colour for two columns or rows at once, and the size is odd; the frames are too small.
    """
    found, size = FORMATS[settings.codec], f"{width}x{height}"
    across, down = found.even
    remedy = (
        f"Choose another {setting('output.codec')}, or a larger size with {setting('output.upscale')}, 2x for instance."
    )
    if width % across or height % down:
        sides = "an even width and height" if across == down else "an even width"
        rule = f"its {found.subsampling} colour needs {sides}, and the result has {size} pixels"
        raise OutputError("output.codec", settings.codec, rule, remedy)
    if width < found.least[0] or height < found.least[1]:
        rule = f"it needs {found.least[0]}x{found.least[1]} pixels or more, and the result has {size}"
        raise OutputError("output.codec", settings.codec, rule, remedy)
