"""The job of finishing a master: a video or a sequence that is there already becomes what is delivered."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import torch

from wanimate.config import MarkSettings, OutputSettings
from wanimate.config.marks import LabelKind
from wanimate.config.values import parse_rate
from wanimate.errors import InputError, setting
from wanimate.events import Clock, Event, Expected, Finished, Notice, Stage, StageProgress
from wanimate.finish.commit import commit
from wanimate.finish.labels import carried_of
from wanimate.finish.lock import record_path
from wanimate.finish.naming import is_quarantined
from wanimate.finish.record import Hashes, stamp
from wanimate.jobs.cancel import CancelToken, cancellable
from wanimate.jobs.delivery import Delivery, Order, check_marks, deliver
from wanimate.jobs.workspace import check_space, files_read, locked, marks_for, quarantined_told
from wanimate.media.files import read_own_json
from wanimate.media.master import Master, open_master
from wanimate.post.base import VideoSpec
from wanimate.post.cuts import shots
from wanimate.post.stages import cost_of, result_for, stages_of
from wanimate.provenance.about import About, about_job, new_id
from wanimate.types import Mode, Result
from wanimate.weights.checkpoint import best_device

_OF_A_JOB = ("sheet", "fresh", "keep_segments")
"""Settings of the result that a master has no use for."""
_CUT_SECONDS, _OFTEN = 0.02, 16
"""Seconds that are expected for a frame in which a cut is looked for; so many frames a report."""


_DEEPEST = 8
"""Finishings of finishings that are followed back to what was made."""


def finish(
    master: Path, out: Path, output: OutputSettings = OutputSettings(), fps: Fraction | None = None,
    device: str | None = None, cancel: CancelToken | None = None, marks: MarkSettings = MarkSettings(),
) -> Generator[Event, None, None]:  # fmt: skip
    """Enlarge, interpolate and encode a master. The last event is `Finished`.

    Args:
        master: a video, or a folder of numbered PNG or OpenEXR pictures. It is only read.
        fps: the rate of a folder that tells none; None is 24.
        device: where networks compute; None is the GPU, if there is one.

    Raises:
        InputError: the master cannot be used; networks are missing. OutputError: the result cannot be written. Cancelled.
    """
    return cancellable(_finish(Path(master), Path(out), output, fps, best_device(device), marks), cancel)


def _finish(
    master: Path, out: Path, output: OutputSettings, fps: Fraction | None, device: torch.device, marks: MarkSettings
) -> Generator[Event, None, None]:
    for name in _OF_A_JOB:
        if getattr(output, name):
            rule = "it belongs to jobs that generate frames"
            raise InputError(f"output.{name}", getattr(output, name), rule, "Leave it out.")
    clock, notices = Clock(), list[str]()
    asked, told = marks_for(output, marks)
    quarantine = bool(output.quarantine) and not _is_free(master, output.quarantine or ())
    lock, version = locked(out, output, [master, *files_read(None, None, output, asked)], asked, quarantine)
    with lock, Hashes() as hashes:
        fps = fps or _recorded_rate(master)
        found = open_master(master, fps)
        _check_opacity(found, output)
        spec = VideoSpec(found.size, found.fps, found.count)
        result = result_for(output, spec)
        check_space(lock.out, output, result, asked)
        told += check_marks(asked, result)
        hashes.add([master])
        clock.expect([Expected(Stage.FINISH, result.count, cost_of(output, spec, result, device).seconds)])
        before = None if asked is None else _known(master, hashes, asked)
        if output.is_finished:
            spec = replace(spec, cuts=(yield from _cuts(found, clock)))
        carried, said = carried_of(found, {}, result.fps, output)
        places = [*lock.notices, *([quarantined_told(lock.out)] if quarantine else [])]
        told = [*(Notice(text) for text in places), *told, *said, *_told(found, output, fps)]
        order = Order(spec, stages_of(output, device), found.clip, carried, version)
        if asked is not None:
            order = replace(
                order, marks=_lacking(asked, before), id=asked.id or (new_id() if before is None else before.id)
            )
        with Delivery(order, lock) as delivery:
            for notice in told:
                yield from _noted(notice, clock, notices)
            yield from clock.start(Stage.FINISH, result.count)
            for chunk in found.with_opacity():
                frames, opacity = chunk[:, :3].to(device), chunk[:, 3:].to(device) if chunk.shape[1] > 3 else None
                yield from deliver(delivery, clock, frames, opacity)
                yield clock.placed(StageProgress(Stage.FINISH, delivery.written, result.count))
            yield from clock.start(Stage.WRITE)
            for notice in delivery.finish():
                yield from _noted(notice, clock, notices)
            made = delivery.facts() | {
                "mode": "finish", "inputs": {"master": hashes.of(master)}, "frames": found.count, "fps": found.fps,
                "size": found.size, "output": output.model_dump(mode="json"), "version": version, "device": str(device),
            }  # fmt: skip
            marked = _mark(delivery, made, asked, order.id)
            made |= marked
            for text in marked.get("marks", {}).get("notices", ()):
                yield from _noted(Notice(text, "warning"), clock, notices)
            yield from clock.stop()
            made |= {"warnings": notices, "seconds": clock.seconds}
            written = commit(delivery.writer, lock, made, None, delivery.matte, delivery.beside)
        made_of = Result(lock.out, result.count, result.size, result.fps, None, None, written)
        yield clock.placed(Finished(result=made_of))


def _known(master: Path, hashes: Hashes, marks: MarkSettings) -> About | None:
    """What the master's record tells of it. Waits for its hash. Raises InputError where that is needed, and missing."""
    try:
        return about_job({"mode": "finish", "inputs": {"master": hashes.of(master)}})
    except InputError:
        if marks.whole:
            raise
        return None


def _lacking(marks: MarkSettings, before: About | None) -> MarkSettings:
    """The marks that frames do not have yet."""
    if before is None:
        return marks
    label: LabelKind = marks.label if before.label == "none" else "none"
    return marks.model_copy(update={"label": label, "invisible": marks.invisible and not before.watermarked})


def _mark(delivery: Delivery, made: dict[str, Any], marks: MarkSettings | None, id: str) -> dict[str, Any]:
    """What the record says of marks: those that are put in now, or that the master's frames have."""
    if marks is not None and marks.whole:
        said = stamp()
        told = delivery.mark(about_job(made | said, id))
        return said | {"marks": told | {"settings": marks.model_dump(mode="json")}}
    try:
        before = about_job(made)
    except InputError:
        return {}
    if not before.watermarked and (before.label == "none" or made["output"]["watermark"]):
        return {}
    payload = f"{before.payload:08x}" if before.watermarked else None
    return {
        "marks": {"id": before.id, "payload": payload, "label": before.label, "xmp": None, "c2pa": None, "notices": []}
    }


def _cuts(master: Master, clock: Clock) -> Generator[Event, None, tuple[int, ...]]:
    """Frames that begin a shot: the master is decoded once for them."""
    found = list[int]()
    clock.expect([Expected(Stage.CUTS, master.count, _CUT_SECONDS)])
    yield from clock.start(Stage.CUTS, master.count)
    for number, begins in enumerate(shots(master.thumbnails())):
        if begins:
            found.append(number)
        if number % _OFTEN == 0:
            yield clock.placed(StageProgress(Stage.CUTS, number + 1, master.count))
    yield from clock.stop()
    return tuple(found)


def _noted(notice: Notice, clock: Clock, notices: list[str]) -> Iterator[Event]:
    if notice.level == "warning":
        notices.append(notice.message)
    yield from clock.note(notice)


def _check_opacity(master: Master, output: OutputSettings) -> None:
    wanted: dict[str, Any] = {
        "output.alpha": output.alpha if output.alpha != "none" else None,
        "output.matte": output.matte,
    }
    for field, value in wanted.items():
        if value is not None and not master.has_alpha:
            raise InputError(field, value, "the master has no opacity", "Leave it out, or give a master with alpha.")


def _recorded_rate(master: Path) -> Fraction | None:
    """The rate that the record beside a folder of pictures tells."""
    made = read_own_json(record_path(master)) if master.is_dir() else None
    try:
        return parse_rate(made["delivered"]["fps"]) if made else None
    except (KeyError, TypeError, ValueError):
        return None


def _is_free(master: Path, held: Sequence[Mode], depth: int = _DEEPEST) -> bool:
    """Whether the record beside a master says that it is of a mode whose results may leave. Without one nobody knows."""
    made = read_own_json(record_path(master))
    if not isinstance(made, dict) or made.get("out") != master.name or is_quarantined(master):
        return False
    if made.get("mode") == "finish" and depth:
        told = made.get("inputs", {}).get("master", {}).get("path")
        return isinstance(told, str) and _is_free(Path(told), held, depth - 1)
    return made.get("mode") in get_args(Mode) and made["mode"] not in held


def _told(master: Master, output: OutputSettings, fps: Fraction | None) -> Iterator[Notice]:
    if master.lossy and output.upscale is not None:
        text = "the master's codec has lost detail, so that enlarging it gains little; a master of ffv1 or png keeps it"
        yield Notice(text, "warning")
    if master.has_alpha and output.alpha == "none" and output.matte is None:
        yield Notice(f"the master's opacity is left out; {setting('output.alpha')} keeps it", "warning")
    if master.pictures and fps is None and master.pictures[0].suffix.lower() == ".png":
        yield Notice(f"nothing tells the rate of the pictures; they are taken as {master.fps} a second", "warning")
