"""From frames to the files of a result: scene and seam, matte, finishing, marks, slate, writers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from wanimate.config import FORMATS, MarkSettings, OutputSettings
from wanimate.errors import InputError, OutputError, setting
from wanimate.events import Clock, Event, Notice, Stage, StageProgress
from wanimate.finish.burnin import BurnIns, Take, slate
from wanimate.finish.composite import composite, seam
from wanimate.finish.decode import to_pixels
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.finish.labels import asked
from wanimate.finish.lock import OutputLock
from wanimate.finish.matte import MatteSource, as_picture, check_matte, matte_of
from wanimate.media.files import AtomicFile
from wanimate.post.base import PostStage, VideoSpec
from wanimate.post.pump import Pump
from wanimate.provenance import signing
from wanimate.provenance.about import About, new_id
from wanimate.provenance.certificates import identity
from wanimate.provenance.forms import zip_of
from wanimate.provenance.frames import FrameMarks
from wanimate.provenance.marking import marked, workplace
from wanimate.types import Clip, Frame, Guides, Mode

Matted = tuple[Tensor, Tensor | None]
"""Frames float32 [n, 3, H, W] in [0, 1], and their opacity [n, 1, H, W]."""


class MatteWriter(OutputWriter):
    """Writes the matte as a file of its own, with the codec of the result."""

    field: ClassVar[str] = "output.matte"


class Scene:
    """What a job adds to decoded frames: in replacement the scene around the character, and the matte where it is asked for."""

    def __init__(self, guides: Guides, output: OutputSettings) -> None:
        self._guides, self._output = guides, output
        self._source: MatteSource | None = None
        if output.matte is not None or output.alpha != "none":
            self._source = matte_of(guides, output.feather)

    def add(self, frames: Tensor, start: int) -> Iterator[Matted]:
        """Decoded frames from job frame `start` on, float32 [n, 3, H, W] in [0, 1]. They may come out later."""
        guides, output = self._guides, self._output
        if guides.background is not None and guides.mask is not None and output.composite:
            indices = range(start, start + len(frames))
            share = seam(guides.mask.take(indices), output.feather).to(frames.device)
            frames = composite(frames, guides.background.take(indices), share)
        if self._source is None:
            yield frames, None
        else:
            yield from self._source.add(frames, start)

    def rest(self) -> Iterator[Matted]:
        """Frames that have not come out."""
        if self._source is not None:
            yield from self._source.rest()


@dataclass(frozen=True)
class Order:
    """What is delivered: the frames that come, what is made of them, and what they take over.

    spec: of the frames before finishing. stages: of finishing. clip: gives the sound. carried: timecode and reel at the rate
    after finishing. version: of the result, None where its name has none. columns: frames before finishing that are kept for
    the contact sheet. marks: what is put on the frames, None where that is nothing; id: of the result that they tell of.
    """

    spec: VideoSpec
    stages: Sequence[PostStage] = ()
    clip: Clip | None = None
    carried: Carried = field(default_factory=Carried)
    version: int | None = None
    columns: tuple[int, ...] = ()
    marks: MarkSettings | None = None
    id: str = ""


class Delivery:
    """The files of one result while its frames come. Use as a context manager: an exception inside removes everything written.

    Args:
        lock: the job's, held by the caller. It names result, matte and settings.

    Attributes:
        result: size, rate and number of the frames that are written, without the slate.
        written: how many there are so far.
        writer: of the result; `finish` completes it, and the end of the block names it.
        matte: of the matte; None without one.
        beside: files that hold the result's marks beside it; `finish.commit` names them.
        shown: frames of `columns`, as they are in the result.
    """

    def __init__(self, order: Order, lock: OutputLock) -> None:
        self._output, self._order, self._settings = lock.output, order, lock.marks
        self.beside: list[AtomicFile] = []
        self.shown: dict[int, Frame] = {}
        self.written = 0
        with ExitStack() as undo:
            self._pump = undo.enter_context(Pump(order.stages, order.spec))
            self.result = self._pump.result
            self._open(undo, lock)
            self._undo = undo.pop_all()

    def _open(self, undo: ExitStack, lock: OutputLock) -> None:
        output, order, result = self._output, self._order, self.result
        width, height = result.size
        take = take_of(lock, order, result)
        self._burns = BurnIns(take, output.burn_in) if output.burn_in else None
        free = 0 if self._burns is None else self._burns.band
        self._marks: FrameMarks | None = None
        if order.marks is not None:
            self._marks = FrameMarks(order.marks, width, height, float(result.fps), order.id, free)
        undo.callback(self._discard_beside)
        self.writer = undo.enter_context(
            OutputWriter(lock.out, result.fps, width, height, output, order.clip, lock, order.carried)
        )
        self.matte: MatteWriter | None = None
        if output.matte is not None:
            plain = output.model_copy(update={"alpha": "none", "audio": False})
            silent = Carried(order.carried.start, order.carried.drop, order.carried.reel)
            self.matte = MatteWriter(output.matte, result.fps, width, height, plain, None, lock, silent)
            undo.push(self.matte.__exit__)
        if output.slate:
            self._write_slate(slate(take))

    @property
    def finishes(self) -> bool:
        """Whether frames are enlarged or interpolated on their way."""
        return bool(self._order.stages)

    def add(self, frames: Tensor, opacity: Tensor | None = None) -> None:
        """The next frames, float32 [n, 3, H, W] in [0, 1], with their opacity where there is one."""
        self._all(self._pump.push(frames if opacity is None else torch.cat((frames, opacity), dim=1)))

    def finish(self) -> list[Notice]:
        """Write what is left; the files are complete then, under temporary names. Gives what the user should be told."""
        self._all(self._pump.end())
        self._pump.close()
        self.writer.finish()
        if self.matte is not None:
            self.matte.finish()
        return list(self.writer.notices)

    def mark(self, about: About) -> dict[str, Any]:
        """Put metadata and signature into the finished file, or beside it, still under temporary names. Gives what the record
        says under `marks`.

        Raises:
            OutputError: it cannot be marked or written. InputError: as `provenance.marking.marked`.
        """
        settings, order, out = self._settings, self._order, self.writer.path
        assert settings is not None
        put = order.marks or MarkSettings(invisible=False)
        watermarked = about.watermarked or put.invisible
        about = replace(about, label=about.label if put.label == "none" else put.label)
        try:
            with workplace(out) as place:
                found = marked(self.writer.temporary, out, about, settings, watermarked, place)
                for path, data in found.beside.items():
                    self._beside(path).write(data)
                if found.file is not None and FORMATS[self._output.codec].is_folder:
                    self._beside(zip_of(out)).take(found.file)
                elif found.file is not None:
                    self.writer.take(found.file)
        except InputError as error:
            if error.field != "file":
                raise
            raise OutputError("out", out, error.rule, error.remedy) from error
        return found.told

    def _beside(self, path: Path) -> AtomicFile:
        self.beside.append(AtomicFile(path))
        return self.beside[-1]

    def _discard_beside(self) -> None:
        for file in self.beside:
            file.discard()

    def facts(self) -> dict[str, Any]:
        """What the record says of the result beside its hash: frames, rate, size, timecode, reel, slate."""
        first, carried, result = 1 if self._output.slate else 0, self._order.carried, self.result
        return {
            "delivered": {"frames": result.count + first, "fps": result.fps, "size": result.size},
            "timecode": carried.label(first, result.fps), "reel": carried.reel or None, "slate": self._output.slate,
        }  # fmt: skip

    def _all(self, chunks: list[Tensor]) -> None:
        for chunk in chunks:
            self._write(chunk[:, :3], chunk[:, 3:] if chunk.shape[1] > 3 else None)

    def _write(self, frames: Tensor, opacity: Tensor | None) -> None:
        """Finished frames, in order."""
        start = self.written
        self.written += len(frames)
        if self.matte is not None:
            assert opacity is not None
            self.matte.write(as_picture(opacity, self._output.codec == "exr"))
        if self._output.alpha == "none":
            opacity = None
        if self._burns is not None:
            frames, opacity = self._burns.on(frames, opacity, start)
        if self._marks is not None:
            frames, opacity = self._marks.on(frames, start, opacity)
        for column in self._order.columns:
            place = self._place(column) - start
            if 0 <= place < len(frames):
                self.shown[column] = to_pixels(frames[place : place + 1])[0]
        self.writer.write(frames, opacity)

    def _place(self, index: int) -> int:
        """The finished frame that shows the frame `index` of those that came, or the nearest one."""
        ratio = self.result.fps / self._order.spec.fps
        return min(round(index * ratio), self.result.count - 1)

    def _write_slate(self, frame: Tensor) -> None:
        marked_frame = frame if self._marks is None else self._marks.on(frame, 0)[0]
        whole = torch.ones_like(frame[:, :1])
        self.writer.write(marked_frame, None if self._output.alpha == "none" else whole)
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


def check_delivery(mode: Mode, lock: OutputLock, result: VideoSpec) -> list[Notice]:
    """What can be wrong with the files of a result before there are frames, and what is to be told of its marks.

    Raises:
        OutputError: the timecode does not exist at this rate. InputError: the segmenter of the matte is missing; as
            `check_marks`.
    """
    output, fps = lock.output, result.fps
    if output.timecode is not None:
        asked(output.timecode, fps)
    if output.matte is not None or output.alpha != "none":
        check_matte(mode)
    return check_marks(lock.marks, result)


def check_marks(marks: MarkSettings | None, result: VideoSpec) -> list[Notice]:
    """What can be wrong with marks before there are frames, and what is to be told of them.

    Raises:
        InputError: the label does not suit its rule, its font or the size; key or certificate cannot be used; a library is
            missing.
    """
    if marks is None:
        return []
    FrameMarks(marks, *result.size, float(result.fps), new_id())
    if not marks.whole:
        return []
    if identity(marks) is not None:
        signing.library()
    elif marks.sign is None:
        how = f"`wanimate marks init` makes one to try, and {setting('marks.certificate')} names a real one"
        return [Notice(f"the result is not signed, since there is no certificate: {how}")]
    return []


def deliver(delivery: Delivery, clock: Clock, frames: Tensor, opacity: Tensor | None = None) -> Iterator[Event]:
    """Hand frames to a delivery; where they are finished first, one by one, with the progress of that."""
    if not delivery.finishes:
        delivery.add(frames, opacity)
        return
    shares = [None] * len(frames) if opacity is None else opacity.split(1)
    for frame, share in zip(frames.split(1), shares, strict=True):
        with clock.within(Stage.FINISH):
            delivery.add(frame, share)
        yield clock.placed(StageProgress(Stage.FINISH, delivery.written, delivery.result.count))


def take_of(lock: OutputLock, order: Order, result: VideoSpec) -> Take:
    """What slate and burn-ins tell of a result."""
    output, carried = lock.output, order.carried
    first = 1 if output.slate else 0
    before = first if FORMATS[output.codec].is_folder else 0
    return Take(
        shot=output.shot or lock.out.stem,
        take=output.take,
        version=order.version,
        size=result.size,
        fps=result.fps,
        count=result.count,
        label=lambda index: carried.label(index + first, result.fps),
        first_number=output.start_number + before,
    )
