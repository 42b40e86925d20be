"""THE sequence of a job, one line a stage, no tensor maths.

    look at the inputs -> find the performer, draw the guides -> plan, open the weights -> segments -> finish -> record

`preprocess` and `generate` are two jobs that can run in two processes; `run` is the two in a row. Each is a generator of
events; closing it cancels the job, and nothing half-written is left then.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from wanimate.conditions.read import GuidesReader
from wanimate.config import GenerateSettings, Job, MarkSettings, OutputSettings, PreprocessSettings
from wanimate.engines.base import Engine, State
from wanimate.engines.resolved import ResolvedJob
from wanimate.errors import OutOfMemory, OutputError, is_out_of_memory, setting
from wanimate.events import Clock, Event, Expected, Finished, Notice, Stage
from wanimate.finish.commit import commit
from wanimate.finish.labels import carried_of
from wanimate.finish.lock import record_path, sheet_path
from wanimate.finish.record import Hashes, stamp
from wanimate.finish.sheet import sheet_of
from wanimate.jobs.cancel import CancelToken, cancellable
from wanimate.jobs.delivery import Delivery, Order, Scene, check_delivery, deliver
from wanimate.jobs.resume import Resumption, check_redraw, guides_key
from wanimate.jobs.segments import FramesDone, SegmentDone, run_segments
from wanimate.jobs.workspace import Workspace, check_mask_sheet, files_read, guides_folder, marks_for, workspace
from wanimate.media.image import load_image
from wanimate.media.sheet import sample_columns
from wanimate.media.stretch import missing_handles, probe_used
from wanimate.post.base import VideoSpec, result_of
from wanimate.post.stages import Cost, cost_of, stages_of
from wanimate.preprocess import drive
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.layout import plan_layout
from wanimate.preprocess.manifest import named_clip, source_clip, told_settings
from wanimate.preprocess.shot.stored import told_record
from wanimate.provenance.about import Source, about_job
from wanimate.types import AttentionStep, Clip, Frame, Guides, Mode, Result, Segment

_DETECT, _DRAW = 0.06, 0.01
"""Seconds that are expected for a frame in which the performer is looked for, and for one that is drawn."""


@dataclass
class _Task:
    """A job from its guides on. `inputs`: files for the record, by what they are; `preprocess`: settings the guides were made
    with, as the record gives them; `result`: what is delivered, and `cost`: what finishing it takes; `kept`: where its guides
    are kept."""

    engine: Engine
    job: ResolvedJob
    place: Workspace
    output: OutputSettings
    hashes: Hashes
    clock: Clock
    inputs: dict[str, Path]
    clip: Clip | None
    preprocess: dict[str, Any] | None
    result: VideoSpec
    cost: Cost
    kept: Path | None = None
    notices: list[str] = field(default_factory=list)

    def finishing(self) -> list[Expected]:
        """The work of finishing before the job."""
        return [Expected(Stage.FINISH, self.result.count, self.cost.seconds)] if self.output.is_finished else []

    def note(self, event: Event) -> Iterator[Event]:
        """Pass an event on; warnings go into the record, too."""
        if isinstance(event, Notice) and event.level == "warning":
            self.notices.append(event.message)
        yield from self.clock.note(event)

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            yield from self.note(event)


def run(engine: Engine, job: Job, cancel: CancelToken | None = None) -> Generator[Event, None, None]:
    """The character of `job.image` performs what happens in `job.video`, in its own picture or in the clip's scene.

    The last event is `Finished`.

    Raises:
        InputError: an input cannot be used. OutputError: the result cannot be written. OutOfMemory. Cancelled.
    """
    return cancellable(_memory_checked(_run(engine, job)), cancel)


def generate(
    engine: Engine, guides: Path | Guides, out: Path, settings: GenerateSettings = GenerateSettings(),
    output: OutputSettings = OutputSettings(), cancel: CancelToken | None = None, marks: MarkSettings = MarkSettings(),
) -> Generator[Event, None, None]:  # fmt: skip
    """The same from a guides folder, ours or a published one. Its sound is the clip's, where the folder names one."""
    return cancellable(_memory_checked(_generate(engine, guides, out, settings, output, marks)), cancel)


def preprocess(
    mode: Mode, image: Path, video: Path, folder: Path, settings: PreprocessSettings, area: int
) -> Generator[Event, None, Guides]:
    """The guides alone, in `folder`; `area` where the settings name none. Returns them.

    Raises:
        InputError: as `run`. OutputError: the folder is taken or cannot be written.
    """
    clock = Clock()
    check_mask_sheet(settings, folder)
    with guides_folder(folder, [image, video, *files_read(settings)]) as notices:
        for notice in notices:
            yield from clock.note(notice)
        clip, picture, said = _look(image, video, settings)
        for notice in said:
            yield from clock.note(notice)
        area = settings.area or area
        clock.expect(_expected(plan_layout(mode, clip, (picture.shape[1], picture.shape[0]), settings, area).count))
        making = drive.preprocess(mode, clip, picture, settings, folder, area)
        guides = yield from clock.watch(making)
        yield from clock.stop()
    return guides


def _run(engine: Engine, job: Job) -> Generator[Event, None, None]:
    resolved = engine.resolve(job.generate, job.mode)
    drive.check(job.mode, job.preprocess)
    check_mask_sheet(job.preprocess, job.out, record_path(job.out), sheet_path(job.out), job.keep_guides)
    inputs = {"image": job.image, "video": job.video}
    inputs |= {} if job.preprocess.mask is None else {"mask": job.preprocess.mask}
    marks, told = marks_for(job.output, job.marks)
    read = (*inputs.values(), *files_read(job.preprocess, resolved.generate, job.output, marks), *engine.files)
    with workspace(job.out, job.output, read, job.keep_guides, marks, job.mode) as place, Hashes() as hashes:
        clip, image, said = _look(job.image, job.video, job.preprocess)
        engine.check(resolved)
        area = job.preprocess.area or engine.area
        layout = plan_layout(job.mode, clip, (image.shape[1], image.shape[0]), job.preprocess, area)
        check_redraw(resolved, layout.count, place.store)
        spec = VideoSpec(layout.size, layout.fps, layout.count)
        result = place.check_room(spec, job.mode)
        cost = cost_of(job.output, spec, result, engine.device)
        told += check_delivery(job.mode, place.lock, result)
        settings = job.preprocess.model_dump(mode="json")
        task = _Task(engine, resolved, place, job.output, hashes, Clock(), inputs, clip, settings, result, cost)
        task.kept = None if job.keep_guides is None else job.keep_guides.absolute()
        hashes.add(inputs.values())
        task.clock.expect([*_expected(layout.count), *engine.expected(resolved, layout.count), *task.finishing()])
        yield from task.watch(iter([*place.notices, *said, *told]))
        engine.read_ahead(resolved)
        guides = yield from _drawn(task, job, clip, image, area)
        yield from _finish(task, guides)


def _generate(
    engine: Engine, guides: Path | Guides, out: Path, settings: GenerateSettings, output: OutputSettings, marks: MarkSettings
) -> Generator[Event, None, None]:  # fmt: skip
    folder = guides.folder if isinstance(guides, Guides) else Path(guides)
    loaded = guides if isinstance(guides, Guides) else load_guides(guides)
    clip, unused = source_clip(loaded.manifest)
    resolved = engine.resolve(settings, loaded.mode)
    read = [*named_clip(loaded.manifest), *([] if folder is None else [folder])]
    asked, told = marks_for(output, marks)
    read += [*files_read(None, resolved.generate, output, asked), *engine.files]
    with workspace(out, output, read, marks=asked, mode=loaded.mode) as place, Hashes() as hashes:
        engine.check(resolved)
        engine.read_ahead(resolved)
        check_redraw(resolved, loaded.count, place.store, loaded)
        spec = VideoSpec(loaded.size, loaded.fps, loaded.count)
        result = place.check_room(spec, loaded.mode)
        cost = cost_of(output, spec, result, engine.device)
        told += check_delivery(loaded.mode, place.lock, result)
        inputs = {} if folder is None else {"guides": folder}
        settings_told = told_settings(loaded.manifest)
        task = _Task(engine, resolved, place, output, hashes, Clock(), inputs, clip, settings_told, result, cost)
        hashes.add(inputs.values())
        if unused is not None:
            yield from task.note(unused)
        task.clock.expect([*engine.expected(resolved, loaded.count), *task.finishing()])
        yield from task.watch(iter([*place.notices, *told]))
        yield from _finish(task, loaded)


def _look(image: Path, video: Path, settings: PreprocessSettings) -> tuple[Clip, Frame, list[Notice]]:
    """Everything that can be wrong with clip and picture by themselves is said here, and what is to be told of the picture."""
    clip, said = probe_used(video, settings), list[str]()
    said += [text for text in (missing_handles(clip, settings),) if text is not None]
    picture = load_image(image, notices=said)
    return clip, picture, [Notice(text, "warning") for text in said]


def _expected(count: int) -> list[Expected]:
    return [Expected(Stage.DETECT, count, _DETECT), Expected(Stage.DRAW, count, _DRAW)]


def _drawn(task: _Task, job: Job, clip: Clip, image: Frame, area: int) -> Generator[Event, None, Guides]:
    """The guides, as an earlier run has left them or made anew."""
    store, folder = task.place.store, task.place.guides

    def key() -> dict[str, Any]:
        return guides_key(job.mode, job.preprocess, area, task.inputs, task.hashes)

    found = store.guides(folder, key()) if store.has_guides(folder) else None
    if found is not None:
        task.clock.expect([Expected(Stage.DETECT, 0, 0), Expected(Stage.DRAW, 0, 0)])
        yield from task.note(Notice("the guides are there from an earlier run"))
        return found
    store.begin()
    guides = yield from _made_guides(task, job, clip, image, area)
    try:
        store.add_guides(guides, key())
    except OutputError as error:
        yield from task.note(Notice(f"the guides could not be stored ({error}); the job goes on without", "warning"))
    return guides


def _made_guides(task: _Task, job: Job, clip: Clip, image: Frame, area: int) -> Generator[Event, None, Guides]:
    """The guides. Where a GPU has no room for detectors beside open weights, the weights make room."""
    while True:
        try:
            making = drive.preprocess(job.mode, clip, image, job.preprocess, task.place.guides, area)
            return (yield from task.clock.watch(making))
        except torch.OutOfMemoryError:
            if task.engine.state is State.CLOSED:
                raise
        task.engine.close()
        text = "too little memory beside the weights: they are read again after the performer is found"
        yield from task.note(Notice(text, "warning"))


def _finish(task: _Task, guides: Guides) -> Iterator[Event]:
    """From the guides to the result. The record is there before the video gets its name."""
    engine, clock, resolved = task.engine, task.clock, task.job
    segments = resolved.segments(guides.count)
    reader = GuidesReader(guides)
    reader.begin(segments[0])  # beside what comes before the first segment
    warnings = [] if resolved.warning is None else [Notice(resolved.warning, "warning")]
    try:
        yield from task.watch(iter(warnings))
        yield from task.watch(engine.plan(resolved, guides.size, guides.count, task.cost.bytes))
        clock.expect(engine.expected(resolved, guides.count))
        yield from task.watch(engine.open(resolved, reader))
        yield from clock.stop()
        task.hashes.add([*(use.path for use in resolved.generate.lora), *engine.files])
        task.hashes.add([] if guides.folder is None else [guides.folder])
        earlier = Resumption(task.place.store, engine, resolved, guides, segments, task.hashes)
        yield from task.watch(earlier.prepare())
        clock.expect(engine.expected(resolved, guides.count, earlier.finished))
        yield from _written(task, guides, segments, earlier)
    finally:
        reader.wait()
        engine.release()


def _written(task: _Task, guides: Guides, segments: tuple[Segment, ...], earlier: Resumption) -> Iterator[Event]:
    clock, output, place = task.clock, task.output, task.place
    columns = tuple(sample_columns(guides.count)) if output.sheet else ()
    skipped: list[int] = []
    attention: list[tuple[AttentionStep, ...]] = []
    resumed, seed = earlier.finished, earlier.seed
    order, said = _order(task, guides, columns)
    scene = Scene(guides, output)
    with Delivery(order, place.lock) as delivery:
        yield from task.watch(iter(said))
        for event in run_segments(task.engine, segments, guides.count, seed, earlier.archive):
            if isinstance(event, FramesDone):
                for pair in scene.add(event.frames, event.start):
                    yield from deliver(delivery, clock, *pair)
            elif isinstance(event, SegmentDone):
                skipped.append(event.result.skipped)
                attention.append(event.result.attention)
            else:
                yield from task.note(event)
        yield from clock.start(Stage.WRITE)
        for pair in scene.rest():
            yield from deliver(delivery, clock, *pair)
        yield from task.watch(iter(delivery.finish()))
        marks = yield from _marked(task, delivery, guides, segments, seed)
        caching = task.job.caching
        if caching is not None:
            steps = len(segments) * task.job.settings.steps
            yield from task.note(Notice(f"{caching}: {sum(skipped)} of {steps} steps were skipped"))
        yield from clock.stop()  # the last moment to cancel; the job's files get their names at one go
        made = _record(task, guides, segments, seed) | delivery.facts() | {
            "handles": guides.manifest.get("handles", [0, 0]), "fingerprint": earlier.key,
            "redraws": earlier.redraws, "resumed": resumed, **marks,
        }  # fmt: skip
        made["cache"] = caching and {"kind": caching.kind, "gate": caching.gate, "skipped": skipped}
        made["sparse_attention"] = {
            "density": [[step.density for step in steps] for steps in attention],
            "error": [[step.error for step in steps] for steps in attention],
        } if any(attention) else None  # fmt: skip
        sheet = None
        if output.sheet:
            title = f"wanimate, checkpoint {task.engine.facts()['checkpoint']['name']}"
            sheet = sheet_of(guides, task.clip, list(columns), delivery.shown, title)
        written = commit(delivery.writer, place.lock, made, sheet, delivery.matte, delivery.beside)
    place.store.done()
    beside = sheet_path(place.out) if output.sheet else None
    result = delivery.result
    finished = Finished(result=Result(place.out, result.count, result.size, result.fps, seed, beside, written))
    yield clock.placed(finished)


def _marked(
    task: _Task, delivery: Delivery, guides: Guides, segments: tuple[Segment, ...], seed: int
) -> Generator[Event, None, dict[str, Any]]:
    """What the record says of the finished file's marks, in which the same is told."""
    marks, clip = task.place.lock.marks, task.clip
    if marks is None or not marks.whole:
        return {}
    said = stamp()
    about = about_job(
        said | _record(task, guides, segments, seed) | delivery.facts(), task.place.store.result_id(marks.id)
    )
    if clip is not None and "performance" not in [one.role for one in about.sources]:
        about = replace(about, sources=(*about.sources, Source("performance", clip.path)))
    told = delivery.mark(about)
    for text in told["notices"]:
        yield from task.note(Notice(text, "warning"))
    return said | {"marks": told | {"settings": marks.model_dump(mode="json")}}


def _order(task: _Task, guides: Guides, columns: tuple[int, ...]) -> tuple[Order, list[Notice]]:
    """What is delivered, and what is to be told of it."""
    output, cuts = task.output, tuple(guides.manifest.get("cuts", []))
    spec = VideoSpec(guides.size, guides.fps, guides.count, cuts)
    stages = stages_of(output, task.engine.device)
    carried, said = carried_of(task.clip, guides.manifest, result_of(stages, spec).fps, output)
    marks, store = task.place.lock.marks, task.place.store
    id = store.result_id(marks.id) if marks is not None and marks.whole else ""
    return Order(spec, stages, task.clip, carried, task.place.version, columns, marks, id), said


def _record(task: _Task, guides: Guides, segments: tuple[Segment, ...], seed: int) -> dict[str, Any]:
    """What the record says. `settings`, `output`, `runtime` and `parallel` are settings that make the same job again."""
    resolved, facts, hashes = task.job, task.engine.facts(), task.hashes
    filled = {name: value for name, value in resolved.settings.model_dump(mode="json").items() if name != "area"}
    facts["checkpoint"]["hashes"] = hashes.by_name(task.engine.files, facts["checkpoint"]["path"])
    facts["lora"] = [hashes.of(Path(lora["path"])) | lora for lora in facts["lora"]]
    return facts | {
        "mode": guides.mode,
        "inputs": {name: hashes.of(path) for name, path in task.inputs.items()},
        "frames": guides.count, "fps": guides.fps, "size": guides.size, "seed": seed,
        "settings": resolved.generate.model_dump(mode="json") | filled | {"seed": seed, "redraw": None},
        "output": task.output.model_dump(mode="json"), "version": task.place.version, "preprocess": task.preprocess,
        "guides": task.kept,
        "segments": [[s.start, s.length, s.overlap] for s in segments],
        "shot": told_record(guides.manifest),
        "warnings": [*guides.manifest.get("warnings", []), *task.notices],
        "seconds": task.clock.seconds,
    }  # fmt: skip


def _memory_checked(events: Generator[Event, None, None]) -> Generator[Event, None, None]:
    try:
        yield from events
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        rule = "the memory of this machine is not enough for this size and clip length"
        smaller = f"{setting('preprocess.area')} or {setting('generate.clip_length')}"
        raise OutOfMemory(f"{rule} ({error}). Give a smaller {smaller}.") from error
