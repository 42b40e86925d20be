"""The Python interface: `animate`, `replace`, and `Animator` for more than one job with the same weights."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from wanimate.approval.quarantine import in_house
from wanimate.config import GenerateSettings, Job, MarkSettings, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.config.job import LIBRARY
from wanimate.engines.registry import engine_for
from wanimate.errors import InputError
from wanimate.events import Event, Finished
from wanimate.jobs import run as jobs
from wanimate.jobs.cancel import CancelToken
from wanimate.media.probe import probe
from wanimate.preprocess.shot.clip import analyse_clip
from wanimate.preprocess.shot.record import ShotRecord
from wanimate.preprocess.shot.stored import read_record
from wanimate.types import Guides, Result
from wanimate.weights.checkpoint import Checkpoint, drained


class Animator:
    """A checkpoint, ready for any number of jobs, one after the other. Its weights are opened by the first job that needs them,
    and stay until `close` or the end of the `with` block.

    >>> with Animator("models/Wan2.2-Animate-14B") as animator:
    ...     for event in animator.run(Job(image=image, video=video, out=out)):
    ...         print(event)

    Args:
        checkpoint: a folder; None is the small checkpoint in the package.
        runtime: where the networks live, and how exact they compute.
        parallel: over how many GPUs a job is spread. The processes of the others start with the first job.
        text_on_cpu: the text encoder never goes to the GPU.

    Raises:
        CheckpointError: there is no such folder or file, or its `wanimate.json` is not valid.
        InputError: settings that do not go together, or a device that is not there.
    """

    def __init__(
        self, checkpoint: Path | str | None = None, runtime: RuntimeSettings = RuntimeSettings(),
        parallel: ParallelSettings = ParallelSettings(), text_on_cpu: bool = False,
    ) -> None:  # fmt: skip
        self.engine = engine_for(checkpoint, runtime, parallel, text_on_cpu)

    @classmethod
    def from_checkpoint(
        cls, path: Path | str | None = None, device: str | None = None, runtime: RuntimeSettings = RuntimeSettings(),
        parallel: ParallelSettings = ParallelSettings(),
    ) -> Animator:  # fmt: skip
        """The same, with the device as an argument of its own; None leaves it to `runtime`."""
        return cls(path, runtime if device is None else runtime.model_copy(update={"device": device}), parallel)

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks, opened if they are not. Raises CheckpointError, naming the keys, if the files do not hold them."""
        return drained(self.engine.networks.open())

    def run(self, job: Job, cancel: CancelToken | None = None) -> Generator[Event, None, None]:
        """Do a job; the last event is `Finished`. Closing the generator cancels the job; nothing half-written is left then.

        Raises:
            InputError: an input cannot be used. OutputError: the result cannot be written. OutOfMemory. Cancelled: by `cancel`.
        """
        job = job.model_copy(update={"output": in_house(job.output)})
        return jobs.run(self.engine, _with_files(job), cancel)

    def generate(
        self, guides: Path | str | Guides, out: Path | str, generate: GenerateSettings = GenerateSettings(),
        output: OutputSettings = OutputSettings(), cancel: CancelToken | None = None,
        marks: MarkSettings = MarkSettings(),
    ) -> Generator[Event, None, None]:  # fmt: skip
        """The same from a guides folder, ours or a published one. Its sound is the clip's, where the folder names one."""
        if not isinstance(guides, str | Path | Guides):
            raise InputError("guides", guides, "it is no path", "Give a folder of guides.")
        given = guides if isinstance(guides, Guides) else Path(guides)
        return jobs.generate(self.engine, given, Job.checked("out", out), generate, in_house(output), cancel, marks)

    def close(self) -> None:
        """Give the memory of the weights back, and end the processes of other GPUs. A later job opens them again."""
        self.engine.close()

    def __enter__(self) -> Animator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _with_files(job: Job) -> Job:
    """The job with files in place of entries of the library. Raises InputError: one is not there, or may not be used."""
    if not any(str(path).startswith(LIBRARY) for path in (job.image, job.video)):
        return job
    from wanimate.library.home import with_files

    return with_files(job)


def shot_record(source: Path | str) -> ShotRecord:
    """Camera, light and size of a clip's shots: what a guides folder has in its manifest, or a clip analysed by itself.

    Raises:
        InputError: it is neither, or it cannot be read.
    """
    path = Path(source)
    return read_record(path) if path.is_dir() else drained(analyse_clip(probe(path, None)))


def animate(
    image: Path | str, video: Path | str, out: Path | str, checkpoint: Path | str | None = None, **settings: Any
) -> Result:
    """Animate `image` by `video` and write `out`; `settings` are fields of `Job`, its parts, `RuntimeSettings` and
    `ParallelSettings`, by name.

    >>> wanimate.animate(image="character.png", video="performer.mp4", out="result.mp4", steps=8, seed=1, device="cuda:1")

    Raises:
        InputError: an input or a setting cannot be used. OutputError, OutOfMemory.
    """
    runtime, settings = RuntimeSettings.split(settings)
    parallel, settings = ParallelSettings.split(settings)
    job = Job.of(image=image, video=video, out=out, **settings)
    with Animator(checkpoint, runtime, parallel) as animator:
        for event in animator.run(job):
            if isinstance(event, Finished):
                return event.result
    raise AssertionError("a job ends with its result")


def replace(
    image: Path | str, video: Path | str, out: Path | str, checkpoint: Path | str | None = None, **settings: Any
) -> Result:
    """Put the character of `image` in the place of the performer of `video`; otherwise as `animate`.

    >>> wanimate.replace(image="character.png", video="performer.mp4", out="result.mp4", seed=1)

    Raises:
        InputError: an input or a setting cannot be used. OutputError, OutOfMemory.
    """
    return animate(image, video, out, checkpoint, mode="replacement", **settings)
