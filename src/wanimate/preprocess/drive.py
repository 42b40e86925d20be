"""A performer's clip and a character's picture to guides, in either mode (preprocess spec, section 3; ours: section 18).

Two passes over the clip, both streaming: the first finds the performer, the second draws skeletons and cuts out faces.
Between them only keypoints are kept (3 kB a frame), so memory does not grow with the size or length of the clip.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, setting
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted
from wanimate.log import log_choice
from wanimate.media.video import iter_indices
from wanimate.preprocess import report
from wanimate.preprocess.detect.base import Measured, MeasuringBackend, PoseBackend
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.folder import check_folder
from wanimate.preprocess.guides import GuidesWriter, load_guides
from wanimate.preprocess.known import known_performer
from wanimate.preprocess.layout import Layout, plan_layout
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.preprocess.masks.explain import MaskSheet
from wanimate.preprocess.masks.registry import open_masks
from wanimate.preprocess.modes import Animation, ModeWork, Replacement
from wanimate.preprocess.performer import Performer
from wanimate.preprocess.shot.analysis import ShotWatch
from wanimate.preprocess.shot.proposals import record_of
from wanimate.preprocess.shot.record import ShotRecord
from wanimate.preprocess.shot.stored import KEY, earlier_record
from wanimate.types import Clip, Frame, Guides, Keypoints, Mode


def check(mode: Mode, settings: PreprocessSettings) -> None:
    """Refuse settings that the mode cannot follow. Nothing is opened.

    Raises:
        InputError: masks in animation, retargeting or two sources of masks in replacement.
    """
    elsewhere = settings.mask is not None or settings.sam2 is not None
    if settings.mask_quality == "high" and (mode == "animation" or elsewhere):
        rule = (
            "the performer's pixels are not looked for here" if mode == "animation" else "the masks come from elsewhere"
        )
        raise InputError("preprocess.mask_quality", "high", rule, "Leave it out")
    if mode == "animation":
        for name in ("mask", "sam2", "mask_debug"):
            if (value := getattr(settings, name)) is not None:
                rule = "animation cuts nobody out of the clip, so it takes no masks"
                raise InputError(f"preprocess.{name}", value, rule, "Leave it out, or take replacement")
        return
    if settings.retarget not in (None, "off"):
        rule = "the character has to fit into the performer's place, so its skeleton is the performer's"
        raise InputError("preprocess.retarget", settings.retarget, rule, "Leave it out in replacement")
    if settings.mask is not None and settings.sam2 is not None:
        rule = f"the masks are given with {setting('preprocess.mask')} already"
        raise InputError("preprocess.sam2", settings.sam2, rule, "Leave one of them out")


def preprocess(
    mode: Mode, clip: Clip, image: Frame, settings: PreprocessSettings, folder: Path, area: int,
    detector: PoseBackend | None = None, masks: MaskBackend | None = None,
) -> Generator[Event, None, Guides]:  # fmt: skip
    """The guides of a probed clip and a character picture, written to `folder` and returned.

    Settings, folder and sizes are checked before models are loaded or frames are decoded. Models that are loaded here are
    dropped at the end.

    Args:
        image: the character, uint8 RGB [H, W, 3]. Its aspect is the output's in animation; the clip's is in replacement.
        area: pixel area of the output (width x height, only the product counts).
        detector: finds the people; None loads the one that the settings name.
        masks: finds the performer's pixels in replacement; None loads the backend that the settings ask for.

    Yields:
        The started, progress and finished events of each stage, and notices. Every warning is in the guides' manifest, too.

    Raises:
        InputError: the mode cannot do what the settings say, guides of this size cannot be read again, nobody is in the
            clip, models are missing, or the clip cannot be read.
        OutputError: `folder` is taken or cannot be written. Nothing is left there then.
    """
    check(mode, settings)
    check_folder(folder)
    layout = plan_layout(mode, clip, (image.shape[1], image.shape[0]), settings, area)
    yield from _written(mode, layout, image, settings, folder, detector, masks)
    if settings.sam2 is not None:
        _free_gpu()
    return load_guides(folder)


def _written(
    mode: Mode, layout: Layout, image: Frame, settings: PreprocessSettings, folder: Path,
    detector: PoseBackend | None, masks: MaskBackend | None,
) -> Generator[Event, None, None]:  # fmt: skip
    """Write the guides. No model is referenced once this has ended."""
    work: ModeWork
    sheet = None if settings.mask_debug is None else MaskSheet(settings.mask_debug, layout.count)
    if detector is None:
        detector = open_detector(settings)
        log_choice("pose backend", detector.name, "as the settings say")
    if mode == "animation":
        work = Animation(layout, image, settings)
    else:
        if masks is None:
            explain = None if sheet is None else sheet.explain
            masks, why = open_masks(settings, layout.clip, layout.indices, layout.fitted, _everybody(detector), explain)
            log_choice("mask backend", masks.name, why)
        work = Replacement(layout, image, settings, masks, sheet)
    warnings: list[str] = []
    yield from _warned(layout.clip.notices, warnings)
    character = None if work.character is None else detector.detect(work.character)
    if work.character is not None and character is None:
        yield from _warned([work.nobody], warnings)
    points = None if character is None else character.keypoints
    performer = yield from known_performer(detector, layout, settings)
    damage = layout.damage.told(layout.clip)
    yield from _warned([] if damage is None else [damage], warnings)
    yield from _warned(report.told(performer, settings), warnings)
    yield from _warned(work.doubts(performer, points), warnings)
    measured = None if points is None else Measured(points, None, {}, ())
    if measured is not None and mode == "animation" and isinstance(detector, MeasuringBackend):
        measured = _measured(detector, layout, performer, work, measured.character)
        yield from _warned(measured.warnings, warnings)
    drawing = work.drawing(performer, measured)
    watch = ShotWatch(layout.count, layout.fps, performer.cuts) if settings.shot_record else None

    started = time.perf_counter()
    yield StageStarted(Stage.DRAW, layout.count)
    with GuidesWriter(folder, mode, layout.fps, layout.size, settings.face_size) as writer:
        for done, pictures in enumerate(work.pictures(performer, drawing, watch), start=1):
            writer.write(*pictures)
            yield StageProgress(Stage.DRAW, done, layout.count)
        texts, facts = work.closing(performer)
        yield from _warned(texts, warnings)
        facts |= report.manifest(layout, image, settings)
        facts |= report.findings(detector.name, performer, drawing, warnings)
        if watch is not None:
            record = _shot_record(layout, watch, folder, facts["source"])
            facts[KEY] = record.plain()
            if mode == "replacement":
                yield Notice(f"advice on the light: {record.advice.text}")
        writer.finish(work.reference(), facts, report.arrays(performer, drawing))
    yield StageFinished(Stage.DRAW, time.perf_counter() - started)


def _shot_record(layout: Layout, watch: ShotWatch, folder: Path, source: dict[str, Any]) -> ShotRecord:
    """The record of the clip's shots, with what people have said in older guides of the same frames."""
    record, earlier = record_of(layout.clip, watch), earlier_record(folder, source)
    return record if earlier is None else record.taking_over(earlier)


def _everybody(detector: PoseBackend) -> Callable[[Frame], list[Keypoints]]:
    return lambda frame: [person.keypoints for person in detector.candidates(frame, deep=False)]


def _measured(
    detector: MeasuringBackend, layout: Layout, performer: Performer, work: ModeWork, character: Keypoints
) -> Measured:
    """Proportions as the detector measures them in other pictures."""
    assert work.character is not None

    def frame(index: int) -> Frame:
        return next(iter_indices(layout.clip, [layout.indices[index]]))

    return detector.measure(performer.keypoints, layout.seen, frame, work.character, character)


def _warned(texts: Sequence[str], warnings: list[str]) -> Generator[Event, None, None]:
    """Every warning goes to the user and to the manifest."""
    for text in texts:
        warnings.append(text)
        yield Notice(text, "warning")


def _free_gpu() -> None:
    """Give back what a mask network took of the GPU, so that it does not count when generation is planned."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
