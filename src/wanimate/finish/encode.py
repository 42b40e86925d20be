"""Frames -> the final video or PNG folder, with the clip's sound; complete under its name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType

import av

from wanimate.config import OutputSettings
from wanimate.errors import OutputError
from wanimate.events import Notice
from wanimate.finish.audio import AudioCopy
from wanimate.finish.background import Background
from wanimate.finish.lock import OutputLock
from wanimate.media.files import keep_folder, kept_error, output_error
from wanimate.media.names import temporary_name
from wanimate.media.png import png_bytes
from wanimate.media.writer import FFV1, Encoding, StreamWriter
from wanimate.types import Clip, Frame, Frames
from wanimate.weights.fingerprint import fingerprint

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


class OutputWriter:
    """Writes a job's frames as they come, beside the caller's own work (`Background`). Use as a context manager: an exception
    inside removes everything written.

    Args:
        path: the final name (`finish.lock.ENDINGS` lists the endings a codec allows).
        fps: the exact frame rate.
        width, height: of every frame. Odd sizes are written as they are, in 4:4:4.
        settings: codec, quality, sound.
        audio_from: the clip whose first sound track accompanies the frames; trimmed to their length.
        lock: the job's lock on `path`, held by the caller; without one it is taken here.
        audio_start: where in the clip the first frame lies, in seconds.

    Attributes:
        notices: what the user should be told (sound encoded anew, 4:4:4, no sound beside PNGs); complete after `close`.

    Raises:
        OutputError: see `OutputLock`; the disk is full (raised by the next call after the write that failed).
    """

    def __init__(
        self, path: Path, fps: Fraction, width: int, height: int, settings: OutputSettings = OutputSettings(),
        audio_from: Clip | None = None, lock: OutputLock | None = None, audio_start: float = 0.0,
    ) -> None:  # fmt: skip
        self.path, self.fps, self.count = Path(path), Fraction(fps), 0
        self.notices: list[Notice] = []
        self._finished = False
        with ExitStack() as undo:
            if lock is None:
                undo.enter_context(OutputLock(self.path, settings))
            self._sink = self._open(width, height, settings)
            undo.callback(self._sink.discard)
            self._audio = self._add_audio(audio_from, audio_start) if settings.audio else None
            if self._audio is not None:
                undo.callback(self._audio.close)
            self._background = Background()
            undo.callback(self._background.abandon)
            self._undo = undo.pop_all()

    def write(self, frames: Frames) -> None:
        """Add frames, uint8 RGB [n, H, W, 3], that nobody changes afterwards."""
        self._background.do(partial(self._write, frames))

    def _write(self, frames: Frames) -> None:
        for frame in frames:
            self._sink.write(frame)
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
        if isinstance(self._sink, _PngFolder):
            return f"sha256:{self._sink.digest.hexdigest()}"
        return fingerprint(self._sink.temporary)

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

    def _open(self, width: int, height: int, settings: OutputSettings) -> StreamWriter | _PngFolder:
        if settings.codec == "png":
            return _PngFolder(self.path, width, height)
        ending = self.path.suffix.lower()
        if settings.codec == "ffv1":
            codec, pixels, options = "ffv1", "bgr0", FFV1
        else:
            codec = {"h264": "libx264", "h265": "libx265"}[settings.codec]
            pixels, options = "yuv420p", {"crf": str(settings.crf), "preset": "medium"}
            if codec == "libx265":
                options["x265-params"] = "log-level=error"
            if width % 2 or height % 2:
                pixels = "yuv444p"
                rule = f"{width}x{height} is odd, so the video is written in 4:4:4, which some players cannot show"
                self.notices.append(Notice(rule, "warning"))
        muxer = {} if ending == ".mkv" else {"movflags": "+faststart"}
        encoding = Encoding(FORMATS[ending], codec, pixels, options, muxer)
        writer = StreamWriter(self.path, self.fps, width, height, encoding)
        if codec == "libx265" and ending != ".mkv":
            writer.stream.codec_context.codec_tag = "hvc1"  # without it Apple's players show nothing
        return writer

    def _add_audio(self, clip: Clip | None, start: float) -> AudioCopy | None:
        if clip is None or not clip.audio:
            return None
        if isinstance(self._sink, _PngFolder):
            self.notices.append(Notice("a PNG sequence has no sound; the clip's sound was left out"))
            return None
        ending = self.path.suffix.lower()
        try:
            audio = AudioCopy(clip, self._sink, ending, start)
        except (av.error.FFmpegError, ValueError) as e:
            self.notices.append(Notice(f"the clip's sound cannot be used ({e})", "warning"))
            return None
        if not audio.copied:
            self.notices.append(Notice(f"{audio.codec} sound does not fit into {ending}; it is encoded anew as AAC"))
        return audio

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class _PngFolder:
    """000000.png, 000001.png, ... in a folder that gets its name when all are there."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.path, self.shape, self.count, self.digest = path, (height, width, 3), 0, hashlib.sha256()
        self.temporary: Path | None = temporary_name(path)
        try:
            self.temporary.mkdir(parents=True)
        except OSError as e:
            raise output_error(path, e) from e

    def write(self, frame: Frame) -> None:
        assert frame.shape == self.shape, f"{frame.shape} is not {self.shape}"
        data = png_bytes(frame)
        assert self.temporary is not None, "the folder has its name"
        try:
            with open(self.temporary / f"{self.count:06d}.png", "xb") as file:
                file.write(data)
        except OSError as e:
            raise output_error(self.path, e) from e
        self.digest.update(data)
        self.count += 1

    def finish(self) -> None:
        """Bring the pictures to the disk; they are all there."""
        assert self.temporary is not None, "the folder has its name"
        try:
            for path in self.temporary.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        except OSError as e:
            raise output_error(self.path, e) from e

    def commit(self, keep: bool = False) -> None:
        assert self.temporary is not None, "the folder has its name"
        try:
            os.replace(self.temporary, self.path)
        except OSError as e:
            if not keep:
                raise output_error(self.path, e) from e
            raise self.keep(e) from e

    def keep(self, why: OSError) -> OutputError:
        assert self.temporary is not None, "the folder has its name"
        place, self.temporary = keep_folder(self.temporary, self.path), None
        return kept_error(self.path, why, place)

    def discard(self) -> None:
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
