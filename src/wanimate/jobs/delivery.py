"""From finished frames to the files of a result: scene and seam, matte, marks, slate, writers."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from wanimate.config import OutputSettings
from wanimate.events import Notice
from wanimate.finish.burnin import BurnIns, Take, slate
from wanimate.finish.composite import composite, seam
from wanimate.finish.decode import to_pixels
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.finish.labels import asked, carried_of
from wanimate.finish.lock import OutputLock
from wanimate.finish.matte import MatteSource, as_picture, check_matte, matte_of
from wanimate.finish.watermark import Watermark
from wanimate.types import Clip, Frame, Guides, Mode


class MatteWriter(OutputWriter):
    """Writes the matte as a file of its own, with the codec of the result."""

    field: ClassVar[str] = "output.matte"


class Delivery:
    """The files of one result while its frames come. Use as a context manager: an exception inside removes everything written.

    Args:
        guides, clip: what the frames are made of; the clip gives sound, timecode and reel.
        lock: the job's, held by the caller. It names result, matte and settings.
        version: of the result, None where its name has none.
        columns: job frames that are kept for the contact sheet.

    Attributes:
        writer: of the result; `finish` completes it, and the end of the block names it.
        matte: of the matte; None without one.
        shown: frames of `columns`, as they are in the result.
    """

    def __init__(
        self, guides: Guides, clip: Clip | None, lock: OutputLock, version: int | None = None, columns: tuple[int, ...] = ()
    ) -> None:  # fmt: skip
        self._guides, self._output, self._columns = guides, lock.output, columns
        output, (width, height) = lock.output, guides.size
        self._carried, said = carried_of(clip, guides.manifest, guides.fps, output)
        self._said = said
        self.shown: dict[int, Frame] = {}
        self._done = 0
        self._source: MatteSource | None = None
        if output.matte is not None or output.alpha != "none":
            self._source = matte_of(guides, output.feather)
        self._mark = Watermark(width, height) if output.watermark else None
        take = take_of(lock.out, output, guides, self._carried, version)
        self._burns = BurnIns(take, output.burn_in) if output.burn_in else None
        with ExitStack() as undo:
            self.writer = undo.enter_context(
                OutputWriter(lock.out, guides.fps, width, height, output, clip, lock, self._carried)
            )
            self.matte: MatteWriter | None = None
            if output.matte is not None:
                plain = output.model_copy(update={"alpha": "none", "audio": False})
                silent = Carried(self._carried.start, self._carried.drop, self._carried.reel)
                self.matte = MatteWriter(output.matte, guides.fps, width, height, plain, None, lock, silent)
                undo.push(self.matte.__exit__)
            if output.slate:
                self._write_slate(slate(take))
            self._undo = undo.pop_all()

    def add(self, frames: Tensor, start: int) -> None:
        """Decoded frames from job frame `start` on, float32 [n, 3, H, W] in [0, 1]."""
        guides, output = self._guides, self._output
        if guides.background is not None and guides.mask is not None and output.composite:
            indices = range(start, start + len(frames))
            share = seam(guides.mask.take(indices), output.feather).to(frames.device)
            frames = composite(frames, guides.background.take(indices), share)
        if self._source is None:
            self._write(frames, None)
        else:
            for pair in self._source.add(frames, start):
                self._write(*pair)

    def finish(self) -> list[Notice]:
        """Write what is left; the files are complete then, under temporary names. Gives what the user should be told."""
        if self._source is not None:
            for pair in self._source.rest():
                self._write(*pair)
        self.writer.finish()
        if self.matte is not None:
            self.matte.finish()
        return [*self._said, *self.writer.notices]

    def facts(self) -> dict[str, Any]:
        """What the record says of labels: timecode and reel of the first frame, and whether a slate is before it."""
        first = 1 if self._output.slate else 0
        return {
            "timecode": self._carried.label(first, self._guides.fps), "reel": self._carried.reel or None,
            "slate": self._output.slate, "handles": self._guides.manifest.get("handles", [0, 0]),
        }  # fmt: skip

    def _write(self, frames: Tensor, opacity: Tensor | None) -> None:
        """Frames that have their matte, in order."""
        start = self._done
        self._done += len(frames)
        if self.matte is not None:
            assert opacity is not None
            self.matte.write(as_picture(opacity, self._output.codec == "exr"))
        if self._output.alpha == "none":
            opacity = None
        if self._mark is not None:
            frames, opacity = self._mark.on(frames, opacity)
        if self._burns is not None:
            frames, opacity = self._burns.on(frames, opacity, start)
        for index in self._columns:
            if 0 <= index - start < len(frames):
                self.shown[index] = to_pixels(frames[index - start : index - start + 1])[0]
        self.writer.write(frames, opacity)

    def _write_slate(self, frame: Tensor) -> None:
        whole = torch.ones_like(frame[:, :1])
        self.writer.write(frame, None if self._output.alpha == "none" else whole)
        if self.matte is not None:
            self.matte.write(torch.zeros_like(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._undo.__exit__(kind, error, tb)
            return
        self._undo.pop_all()
        with ExitStack() as naming:  # each gets its name, whatever happens to the other; the result's comes last
            naming.callback(self.writer.close)
            if self.matte is not None:
                naming.callback(self.matte.close)


def check(mode: Mode, output: OutputSettings, fps: Fraction) -> None:
    """What can be wrong with the files of a result before there are frames.

    Raises:
        OutputError: the timecode does not exist at this rate. InputError: the segmenter of the matte is missing.
    """
    if output.timecode is not None:
        asked(output.timecode, fps)
    if output.matte is not None or output.alpha != "none":
        check_matte(mode)


def take_of(out: Path, output: OutputSettings, guides: Guides, carried: Carried, version: int | None) -> Take:
    """What slate and burn-ins tell of a result."""
    first = 1 if output.slate else 0
    return Take(
        shot=output.shot or out.stem,
        take=output.take,
        version=version,
        size=guides.size,
        fps=guides.fps,
        count=guides.count,
        label=lambda index: carried.label(index + first, guides.fps),
        first_number=output.start_number,
    )
