"""The runner of real jobs: guides by the detectors, frames by the engine."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wanimate.api import Animator
from wanimate.config import FORMATS, MarkSettings, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.config.generate import Defaults
from wanimate.errors import InputError
from wanimate.events import Event, Finished, StepDone
from wanimate.finish.lock import record_path, sheet_path, work_path
from wanimate.jobs import run as jobs
from wanimate.jobs.store import SEGMENTS
from wanimate.media.files import sha256
from wanimate.media.image import load_image
from wanimate.media.png import png_bytes, write_png
from wanimate.media.probe import probe
from wanimate.media.resize import AREA, letterbox
from wanimate.media.stretch import probe_used, stretch_of
from wanimate.media.video import iter_indices
from wanimate.preprocess.candidates import write_people
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.inspection import inspect
from wanimate.preprocess.shot.record import ShotRecord
from wanimate.preprocess.shot.stored import KEY, told_record
from wanimate.provenance.certificates import identity
from wanimate.provenance.forms import manifest_beside, xmp_beside, zip_of
from wanimate.provenance.frames import key_of
from wanimate.provenance.signing import library
from wanimate.serve.addresses import Allowed
from wanimate.serve.checks import ContractLimits, check_clip, check_picture
from wanimate.serve.fetch import FetchError, FetchLimits, decode_data_uri, fetch
from wanimate.serve.settings import ServeSettings
from wanimate.serve.shot_records import with_statement
from wanimate.serve.storage import NotStored, StorageAway
from wanimate.serve.submission import FROM_SEGMENTS, Source, Submission
from wanimate.serve.worker.previews import write_previews
from wanimate.serve.worker.relight import compare_relighting, moment
from wanimate.serve.worker.shelf import PreparedClip, look
from wanimate.serve.worker.work import Broken, Refused, Work
from wanimate.types import Guides, Result
from wanimate.weights.locate import read_checkpoint_config

RESULT = "result"
_THUMBNAIL = 512
"""Longer side of thumbnails in pixels."""
_log = logging.getLogger(__name__)


def check_weights(settings: ServeSettings) -> None:
    """Look at the headers of the checkpoints that requests may name, and for their LoRAs: before a service takes jobs.

    Raises:
        InputError: one cannot be used.
    """
    for folder in settings.known_checkpoints.values():
        read_checkpoint_config(folder)
    for name, file in settings.loras.items():
        if not file.is_file():
            raise InputError(f"serve.loras.{name}", file, "there is no such file", "Name a LoRA's .safetensors file.")


def check_marks(settings: ServeSettings) -> None:
    """Look at key and certificate of the marks of finals: before a service takes jobs.

    Raises:
        InputError: one cannot be used.
    """
    if settings.marks.whole:
        key_of(settings.marks)
        if identity(settings.marks) is not None:
            library()


class WanRunner:
    """Does jobs with one checkpoint at a time, whose weights stay in memory until a job needs another one.

    Args:
        device: where the networks compute; None is the GPU, if there is one.
    """

    def __init__(self, settings: ServeSettings, device: str | None = None) -> None:
        self._settings, self._device = settings, device
        self._animator: Animator | None = None
        self._opened: tuple[str, str] | None = None
        self._loras = ""
        self._stored: dict[str, tuple[int, int]] = {}

    @property
    def holds(self) -> str:
        return "" if self._opened is None else f"{self._opened[0]}|{self._loras}"

    def close(self) -> None:
        if self._animator is not None:
            self._animator.close()
        self._animator, self._opened = None, None

    # Inputs to guides

    def prepare(self, work: Work) -> Iterator[Event]:
        submission, settings = work.submission, self._settings
        if submission.kind == "library":
            self._look(work)
            return
        assert submission.video is not None
        if submission.kind == "people":
            self._find_people(work, submission.video)
            return
        assert submission.image is not None
        image = self._input(work, submission.image, "image", settings.largest_picture if submission.contract else None)
        video = self._input(work, submission.video, "video", settings.largest_clip)
        if submission.kind == "check":
            yield from self._inspect(work, image, video)
            return
        if submission.contract:
            for found in (check_picture(image, look=submission.check_image), check_clip(video)):
                if found is not None:
                    raise Refused(found.code, found.message)
        more: dict[str, Any] = {"limits": ContractLimits().of_job()} if submission.contract else {}
        if submission.mask is not None:
            more["mask"] = self._input(work, submission.mask, "mask", settings.largest_clip)
        chosen, area = submission.preprocess_settings(settings, **more), self._area(work.job.checkpoint)
        if submission.kind == "relight":
            chosen = moment(probe_used(video, chosen), chosen, area)
        work.clip_seconds = stretch_of(probe(video, None), chosen).seconds
        prepared = None if submission.kind == "relight" else PreparedClip.of(work, image, chosen, area)
        manifest = None if prepared is None else prepared.manifest()
        if prepared is None:
            place = f"guides/{work.job.id}/{work.claim.attempt}"
            manifest = yield from self._prepared(work, (image, video), chosen, area, place)
        elif manifest is None:
            prepared.fetch()
            known = chosen.model_copy(update={"performers": prepared.found})
            manifest = yield from self._prepared(work, (image, video), known, area, prepared.place)
            prepared.keep()
        else:
            yield from prepared.told(manifest)
        work.guides = place if prepared is None else prepared.place
        work.facts |= {name: manifest[key] for name, key in (("frames", "count"), ("fps", "fps"), ("size", "size"))}
        work.facts["no_person"] = manifest.get("no_person", [])
        work.facts["start"] = manifest["source"]["times"][0]
        work.facts["sources"] = {"image": sha256(image), "video": sha256(video)}
        if (record := told_record(manifest)) is not None:
            work.facts["shots"] = len(record["shots"])
        if submission.kind == "preprocess":
            work.result = {name: f"{work.guides}/guides/{file}" for name, file in _files(manifest).items()}

    def _prepared(
        self, work: Work, inputs: tuple[Path, Path], settings: PreprocessSettings, area: int, place: str
    ) -> Generator[Event, None, Any]:
        """Guides of picture and clip, their previews and the clip, stored below `place`. Returns the manifest."""
        image, video = inputs
        folder = work.scratch / "guides"
        yield from jobs.preprocess(work.submission.mode, image, video, folder, settings, area)
        _hide_paths(folder / MANIFEST)
        guides = load_guides(folder)
        work.put(folder, f"{place}/guides")
        if work.submission.kind == "relight":
            return guides.manifest
        write_previews(guides, video, work.scratch / "previews", work.cancel)
        work.put(work.scratch / "previews", f"{place}/previews")
        work.keep(video, f"{place}/clip{video.suffix}")
        return guides.manifest

    def _look(self, work: Work) -> None:
        """A look into a file of the library."""
        submission = work.submission
        source, field = (submission.video, "video") if submission.video is not None else (submission.image, "image")
        if source is None or source.library is None:
            raise Refused("InvalidParameter", "video: name an entry of the library.")
        look(work, self._input(work, source, field, self._settings.largest_clip))

    def _find_people(self, work: Work, video: Source) -> None:
        """Everybody in one frame of the clip, in a picture with their numbers."""
        chosen = work.submission.preprocess_settings(self._settings)
        any_length = chosen.limits.model_copy(update={"min_seconds": 0.0, "max_seconds": None})
        clip = probe(self._input(work, video, "video", self._settings.largest_clip), any_length)
        picture = work.scratch / "people.png"
        crowd = write_people(clip, chosen, picture)
        stored = f"{work.place}/{picture.name}"
        work.storage.put(stored, picture)
        work.result["picture"] = stored
        work.facts |= {
            "people": [list(box) for box in crowd.boxes], "frame": crowd.frame, "size": [clip.width, clip.height],
            "seconds": float(clip.duration), "fps": str(clip.fps),
        }  # fmt: skip

    def _inspect(self, work: Work, image: Path, video: Path) -> Iterator[Event]:
        """What a job would be told of its picture and clip."""
        submission, said = work.submission, list[str]()
        chosen = submission.preprocess_settings(self._settings)
        clip = probe_used(video, chosen)
        picture = load_image(image, notices=said)
        area = chosen.area or self._area(work.job.checkpoint)
        found = yield from inspect(submission.mode, clip, picture, chosen, area, tuple(said))
        work.facts |= {
            "frames": found.count, "fps": str(found.fps), "seconds": stretch_of(clip, chosen).seconds,
            "findings": [asdict(finding) for finding in found.findings],
        }  # fmt: skip

    def _input(self, work: Work, source: Source, field: str, most: int | None) -> Path:
        """A file of the request, in the scratch folder. Its name says nothing; its content is looked at later."""
        place = work.scratch / "inputs" / field
        place.parent.mkdir(parents=True, exist_ok=True)
        largest = most if most is not None else self._settings.largest_clip
        if source.upload is not None or source.library is not None:
            stored = work.uploads[field]
            place = place.with_suffix(Path(stored).suffix or ".bin")
            try:
                work.storage.fetch(stored, place)
            except NotStored as error:
                raise Refused("InvalidURL", f"{field}: the file is not kept any more.") from error
        elif source.url is not None and source.url.startswith("data:"):
            if field == "video":
                raise Refused("InvalidVideo.FileFormat", "Invalid video type. Only mp4/mov/avi is supported.")
            place.write_bytes(decode_data_uri(source.url, largest))
        else:
            assert source.url is not None
            limits = FetchLimits(max_bytes=largest, seconds=self._settings.fetch_seconds)
            try:
                fetch(source.url, place, limits, Allowed.parse(self._settings.allow_fetch))
            except FetchError as error:
                raise Refused(error.code, f"{field}_url: {error}") from error
        if place.stat().st_size > largest:
            raise Refused("InvalidFile.Size", f"{field}: the file has more than {largest / 2**20:g} MB.")
        return place

    def _area(self, checkpoint: str) -> int:
        return self._usual(checkpoint).area

    def _usual(self, checkpoint: str) -> Defaults:
        return read_checkpoint_config(self._settings.known_checkpoints[checkpoint])[1].defaults

    # Guides to a result

    def generate(self, work: Work) -> Iterator[Event]:
        submission, job = work.submission, work.job
        assert work.guides is not None
        guides = self._guides(work)
        animator = self._animator_for(job.checkpoint, submission)
        self._loras = submission.lora_key
        if submission.kind == "relight":
            yield from compare_relighting(work, animator, guides, self._usual(job.checkpoint).steps)
            return
        out = _out(work, self._settings)
        if not work.fetch(work.kept, work_path(out)) and submission.kind in FROM_SEGMENTS:
            self._take_parent(work, out)
        self._stored = {file.name: _mark(file) for file in work_path(out).glob("*")}
        redraw = {} if submission.segment is None else {"redraw": submission.segment}
        settings = submission.generate_settings(self._settings, **redraw)
        output = submission.output_settings(self._settings, keep_segments=True, overwrite=True, quarantine=())
        result: Result | None = None
        marks = self._settings.marks if output.final else MarkSettings()
        for event in animator.generate(guides, out, settings, output, work.cancel, marks):
            if isinstance(event, StepDone) and event.preview is not None:
                self._preview(work, event)
            if isinstance(event, Finished):
                result = event.result
            yield event
        assert result is not None
        self._finish(work, out, result, output)

    def store(self, work: Work) -> bool:
        """Bring new files of the job's work folder to the storage."""
        folder = work_path(_out(work, self._settings))
        new = False
        for file in sorted(folder.glob("*")):
            mark = _mark(file)
            if not file.is_file() or file.name.startswith(".") or self._stored.get(file.name) == mark:
                continue
            try:
                work.storage.put(f"{work.kept}/{file.name}", file)
            except StorageAway as error:  # the job goes on; a worker after this one would begin this segment anew
                _log.warning("a segment of job %s could not be stored: %s", work.job.id, error)
                return new
            self._stored[file.name] = mark
            new = new or file.match(SEGMENTS)
        return new

    def _guides(self, work: Work) -> Guides:
        assert work.guides is not None
        folder = work.scratch / "guides"
        if not work.fetch(f"{work.guides}/guides", folder):
            raise Broken("the guides are not in the storage")
        guides = _with_said(work, load_guides(folder))
        clips = [stored.name for stored in work.storage.list(work.guides) if Path(stored.name).stem == "clip"]
        if not clips or not guides.manifest.get("source"):
            return guides
        clip = work.scratch / Path(clips[0]).name
        work.storage.fetch(clips[0], clip)
        source = {**guides.manifest["source"], "path": str(clip)}
        return replace(guides, manifest={**guides.manifest, "source": source})

    def _take_parent(self, work: Work, out: Path) -> None:
        """What a segment is redrawn of, or frames are finished of: the earlier job's result, record and segments."""
        parent = work.submission.parent
        prefix = f"jobs/{parent}"
        if not work.fetch(f"{prefix}/work", work_path(out)):
            raise Refused("InvalidParameter", "parent: its segments are not kept any more.")
        for stored in work.storage.list(prefix):
            name = Path(stored.name).name
            if name == out.name or name == record_path(out).name:
                work.storage.fetch(stored.name, out.with_name(name))

    def _animator_for(self, checkpoint: str, submission: Submission) -> Animator:
        speed = submission.speed_of(self._settings)
        if self._opened != (checkpoint, speed) or self._animator is None:
            self.close()
            runtime = RuntimeSettings(speed=speed, device=self._device)  # type: ignore[arg-type]
            self._animator = Animator(self._settings.known_checkpoints[checkpoint], runtime)
            self._opened = (checkpoint, speed)
        return self._animator

    def _preview(self, work: Work, event: StepDone) -> None:
        """The newest picture of what is being made. It is no harm if one is missing."""
        assert event.preview is not None
        try:
            work.storage.put(f"jobs/{work.job.id}/preview.png", [png_bytes(event.preview.picture())])
        except (OSError, InputError, StorageAway) as error:
            _log.info("a preview of job %s: %s", work.job.id, error)

    def _finish(self, work: Work, out: Path, result: Result, output: OutputSettings) -> None:
        files = {"record": record_path(out)}
        if out.is_dir():
            signed = zip_of(out)
            files["video"] = signed if signed.is_file() else _zipped(out)
        else:
            files["video"] = out
            files["thumbnail"] = _thumbnail(out, work.scratch / "thumbnail.png")
        if output.sheet:
            files["sheet"] = sheet_path(out)
        record = _hide_paths(files["record"])
        files |= {file.suffix[1:]: file for file in (xmp_beside(out), manifest_beside(out)) if file.is_file()}
        for name, file in files.items():
            work.keep(file, f"{work.place}/{file.name}")
            work.result[name] = f"{work.place}/{file.name}"
        work.facts |= {
            "frames": result.count, "fps": str(result.fps), "size": list(result.size), "seed": result.seed,
            "sha256": sha256(files["video"]), "seconds": float(result.count / result.fps),
            "segments": len(record["segments"]), "stages": record.get("seconds", {}),
        }  # fmt: skip
        if (marks := record.get("marks")) is not None:
            work.facts["marks"] = {name: marks[name] for name in ("id", "payload", "label", "xmp", "c2pa")}
        self.store(work)


def _with_said(work: Work, guides: Guides) -> Guides:
    """Guides whose shot record has what people have said of it."""
    said, found = work.job.facts.get("shot_said"), told_record(guides.manifest)
    if not said or found is None:
        return guides
    record = ShotRecord.of(found)
    for statement in said:
        record = with_statement(record, *statement)
    return replace(guides, manifest={**guides.manifest, KEY: record.plain()})


def _mark(file: Path) -> tuple[int, int]:
    """What changes when a file does."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _out(work: Work, settings: ServeSettings) -> Path:
    """Where an attempt writes its result."""
    return work.scratch / f"{RESULT}{FORMATS[work.submission.output_settings(settings).codec].endings[0]}"


def _files(manifest: Any) -> dict[str, str]:
    """The files of a guides folder, by what they are."""
    return {**manifest["files"], "reference": manifest["reference"], "manifest": MANIFEST}


def _zipped(folder: Path) -> Path:
    import shutil

    return Path(shutil.make_archive(str(folder), "zip", folder))


def _thumbnail(video: Path, place: Path) -> Path:
    """A frame of the middle."""
    clip = probe(video, None)
    (frame,) = iter_indices(clip, [clip.count // 2])
    height, width = frame.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(width, height))
    write_png(place, letterbox(frame, round(scale * width), round(scale * height), AREA))
    return place


def _hide_paths(file: Path) -> Any:
    """Write a record or a manifest, which its job's owner can fetch, without the server's folders. Returns what it holds."""
    found = _without_paths(json.loads(file.read_text()))
    file.write_text(json.dumps(found, indent=1))
    return found


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return value
