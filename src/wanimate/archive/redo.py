"""A job runs again from an archive alone, and its result is held against the archived one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wanimate.api import Animator
from wanimate.approval.quarantine import in_house
from wanimate.archive.compare import Comparison, compare
from wanimate.archive.make import INDEX
from wanimate.archive.names import unsafe
from wanimate.archive.verify import checked
from wanimate.config import GenerateSettings, Job, MarkSettings, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.config.values import parse_rate
from wanimate.errors import InputError, OutputError, setting
from wanimate.events import Event, Finished, Notice
from wanimate.finish.lock import record_path
from wanimate.finish.naming import quarantined
from wanimate.finish.record import Hashes, versions
from wanimate.jobs.finish import finish
from wanimate.media.files import json_bytes, read_own_json
from wanimate.media.places import is_within
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.manifest import told_settings
from wanimate.types import Guides, Mode, Result
from wanimate.versions import commit, version_of
from wanimate.weights.fingerprint import fingerprint
from wanimate.weights.relighting import find_relighting

Way = Literal["guides", "inputs", "master"]
"""What a job begins with: the guides, clip and picture, or a master that is finished."""
_Told = TypeVar("_Told", bound=BaseModel)


@dataclass(frozen=True)
class Again:
    """How a job is done again.

    checkpoint: a folder with the weights; None is the package's mannequin. device: None is the kind that the job ran on.
    from_inputs: clip and picture are where it begins, though the archive has guides. result: its name, where the archive has
    several. loras: files of LoRAs that are not in the archive; they are told by their hashes.
    """

    checkpoint: Path | None = None
    device: str | None = None
    from_inputs: bool = False
    result: str | None = None
    loras: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Archived:
    """A result in an archive. `inputs`: by role; `loras`: in the order of the record, None for those that are not there."""

    name: str
    record: Mapping[str, Any]
    record_file: Path
    result: Path
    guides: Path | None
    inputs: Mapping[str, Path]
    loras: tuple[Path | None, ...]
    network: Path | None

    @property
    def mode(self) -> Mode:
        return cast(Mode, self.record["mode"])


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Entry(_Form):
    """A result in the index of an archive, which may be a stranger's."""

    name: str
    result: str
    record: str
    guides: str | None
    inputs: dict[str, str]
    lora: list[str | None]
    network: str | None


class _Index(_Form):
    format: Literal["wanimate-archive"]
    results: list[_Entry]


class _Weights(_Form):
    name: str = ""
    hashes: dict[str, str] = {}


class _Lora(_Form):
    path: Any
    sha256: str | None = None


class _Redraw(_Form):
    seed: int


class _Record(_Form):
    """What a job's record has to tell. Settings are read where they are used."""

    mode: str
    settings: dict[str, Any] = {}
    output: dict[str, Any]
    runtime: dict[str, Any] = {}
    checkpoint: _Weights = _Weights()
    lora: list[_Lora] = []
    redraws: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}$")], _Redraw] = {}
    marks: dict[str, Any] | None = None
    versions: dict[str, str | None] = {}
    preprocess: dict[str, Any] | None = None
    gpus: int | None = None
    fps: str | None = None
    device: str = "cpu"
    attention_asked: str | None = None


@dataclass(frozen=True)
class Redone:
    """What came of it. `way`: what it began with."""

    result: Result
    way: Way
    comparison: Comparison


def archived(folder: Path, name: str | None = None) -> Archived:
    """A result of an archive, every byte of which has been checked.

    Raises:
        InputError: it is no archive of this program, it is not whole, or it has no such result.
    """
    payload = checked(folder).absolute()  # guides name their clip by an absolute path, or its sound is left out
    index = _read(_Index, folder, payload / INDEX)
    entries = {one.name: one for one in index.results}
    known = ", ".join(sorted(entries))
    if name is None and len(entries) != 1:
        raise InputError("result", "", f"the archive has {len(entries)} results: {known}", "Name one of them.")
    entry = next(iter(entries.values())) if name is None else entries.get(name)
    if entry is None:
        raise InputError("result", name, f"the archive has no such result; it has {known}", "Name one of them.")
    file = _in(payload, entry.record)
    record = _read(_Record, folder, file).model_dump()
    return Archived(
        name=entry.name, record=record, record_file=file, result=_in(payload, entry.result),
        guides=None if entry.guides is None else _in(payload, entry.guides),
        inputs={role: _in(payload, path) for role, path in entry.inputs.items()},
        loras=tuple(None if path is None else _in(payload, path) for path in entry.lora),
        network=None if entry.network is None else _in(payload, entry.network),
    )  # fmt: skip


def redo(folder: Path, out: Path, again: Again = Again()) -> Generator[Event, None, Redone]:
    """Do a job again from an archive alone, and compare. What differs from the job's circumstances is told before it begins.

    Raises:
        InputError: the archive is not whole, lacks what the job needs, or the checkpoint is another one. OutputError: `out`
            cannot be written. As the job itself.
    """
    if is_within(out, folder):
        raise OutputError("out", out, "it lies in the archive, which stays as it is", "Choose another folder.")
    found = archived(folder, again.result)
    way = _way(found, again)
    marks = found.record.get("marks") or {}
    are_in_frames = marks.get("payload") or marks.get("label", "none") != "none"
    if are_in_frames and (way == "master" or "settings" not in marks):
        text = "the archived frames carry a label or a watermark, which are not put in again: they will differ"
        yield Notice(text, "warning")
    if way == "master":
        yield from map(Notice, differences(found.record, str(found.record.get("device")), again.device))
        result = yield from _finished(_of_master(found, out, again.device))
    else:
        result = yield from _generated(found, out, again, way)
    return Redone(result, way, compare(found.result, result.out))


def differences(record: Mapping[str, Any], ran_on: str, runs_on: str | None) -> list[str]:
    """What is not as it was when the job ran, as sentences. `runs_on`: None where that is chosen later."""
    told = dict(record.get("versions") or {})
    told = {"wanimate": record.get("wanimate"), "commit": record.get("commit"), **told}
    now: dict[str, Any] = {"wanimate": version_of("wanimate"), "commit": commit(), **versions()}
    found = [
        f"{name} was {was or 'not there'} and is {now.get(name) or 'not there'}"
        for name, was in told.items()
        if now.get(name) != was and not (name == "commit" and was is None)
    ]
    if runs_on is not None and ran_on.partition(":")[0] != runs_on.partition(":")[0]:
        found.append(f"the job ran on {ran_on} and runs on {runs_on}: frames differ by rounding at least")
    return [f"not as it was: {one}" for one in found]


def _way(found: Archived, again: Again) -> Way:
    if found.mode not in ("animation", "replacement"):
        if "master" not in found.inputs:
            raise _lacks(found, "its master is not in the archive")
        return "master"
    both = "image" in found.inputs and "video" in found.inputs
    if found.guides is not None and not again.from_inputs:
        return "guides"
    if not both:
        what = "guides nor" if found.guides is None and not again.from_inputs else ""
        rule = f"it has neither {what} clip and picture" if what else "it does not have both clip and picture"
        raise _lacks(found, rule)
    return "inputs"


def _generated(found: Archived, out: Path, again: Again, way: Way) -> Generator[Event, None, Result]:
    runtime = _runtime(found.record, again.device)
    with Animator(again.checkpoint, runtime) as animator:
        _check_weights(found, animator, again.checkpoint)
        runs_on = animator.engine.device.type
        yield from map(Notice, differences(found.record, str(found.record.get("device")), runs_on))
        if (found.record.get("gpus") or 1) > 1:
            yield Notice(f"not as it was: the job ran on {found.record['gpus']} GPUs: frames can differ by rounding")
        generate = generate_settings(found, again, Path(animator.engine.facts()["checkpoint"]["path"]))
        output = _output_settings(found)
        if found.mode in (output.quarantine or ()):
            out = quarantined(out)
        if redraws := found.record.get("redraws"):
            number = max(map(int, redraws))
            generate = generate.model_copy(update={"redraw": number, "seed": redraws[str(number)]["seed"]})
        with _place(found, out, redrawn=bool(redraws)) as place:
            if way == "guides":
                events = animator.generate(_guides(found), place, generate, output, marks=marks_settings(found))
            else:
                events = animator.run(job_of(found, place, generate, output))
            result = yield from _finished(events)
        return replace(result, out=out)


def _finished(events: Iterator[Event]) -> Generator[Event, None, Result]:
    result: Result | None = None
    for event in events:
        if isinstance(event, Finished):
            result = event.result
        yield event
    assert result is not None, "a job ends with its result"
    return result


def _of_master(found: Archived, out: Path, device: str | None) -> Iterator[Event]:
    master = found.inputs["master"]
    fps: Fraction | None = parse_rate(str(found.record["fps"])) if master.is_dir() else None
    return finish(master, out, _output_settings(found), fps, device)


def _check_weights(found: Archived, animator: Animator, given: Path | None) -> None:
    """Refuse weights that are not the job's."""
    told: dict[str, str] = found.record["checkpoint"]["hashes"]
    path = animator.engine.facts()["checkpoint"]["path"]
    with Hashes() as hashes:
        hashes.add(animator.engine.files)
        here = hashes.by_name(animator.engine.files, path)
    other = sorted(name for name in told.keys() | here.keys() if told.get(name) != here.get(name))
    if not other:
        return
    name = found.record["checkpoint"]["name"]
    rule = f"it is not the checkpoint of the job ({name}): {len(other)} files differ, {other[0]} first"
    raise InputError("checkpoint", given or "mannequin", rule, "Name the folder of that checkpoint.")


def _runtime(record: Mapping[str, Any], device: str | None) -> RuntimeSettings:
    """The job's own, on this machine: another device where its kind is not here."""
    told = RuntimeSettings.model_validate(record.get("runtime") or {})
    ran_on = str(record.get("device") or "cpu").partition(":")[0]
    if device is None and (ran_on != "cuda" or torch.cuda.is_available()):
        device = ran_on
    return told.model_copy(update={"device": device, "attention": record.get("attention_asked") or "auto"})


def generate_settings(found: Archived, again: Again, checkpoint: Path) -> GenerateSettings:
    """The job's own, with LoRAs from the archive, or from this machine by their hashes."""
    told = GenerateSettings.model_validate(found.record["settings"])
    relighting = find_relighting(checkpoint)
    here = {fingerprint(path): path for path in again.loras}
    if relighting is not None:
        here[fingerprint(relighting)] = relighting
    uses = []
    if not len(told.lora) == len(found.record["lora"]) == len(found.loras):
        raise _lacks(found, "its record and its index tell of other LoRAs")
    for use, record, packed in zip(told.lora, found.record["lora"], found.loras, strict=True):
        path = here.get(record.get("sha256"), packed)
        if path is None:
            rule = f"its LoRA {Path(record['path']).name} is not in the archive ({record.get('sha256')})"
            raise _lacks(found, rule, f"Name the file with {setting('loras')}.")
        uses.append(use.model_copy(update={"path": path}))
    taken = {use.path for use in uses}
    relight = told.relight if relighting in taken or not uses else False
    return told.model_copy(update={"lora": tuple(uses), "redraw": None, "relight": relight})


def _output_settings(found: Archived) -> OutputSettings:
    """The job's own, but for what lies beside the result, and for a quarantined name, which the policy in force decides."""
    told = dict(found.record["output"]) | {
        "matte": None, "sheet": False, "overwrite": False, "fresh": False, "keep_segments": False,
        "upscale_network": found.network, "quarantine": None,
    }  # fmt: skip
    return in_house(OutputSettings.model_validate(told))


def marks_settings(found: Archived) -> MarkSettings:
    """Those that the job's frames were marked with, under the same id. Nothing is signed anew: a key is nobody else's.

    Raises:
        InputError: a font or a key of them is not on this machine.
    """
    marks = found.record.get("marks") or {}
    if "settings" not in marks:
        return MarkSettings(when="off")
    unsigned = {"certificate": None, "private_key": None, "sign": False, "timestamp": "", "id": marks.get("id")}
    told = MarkSettings.model_validate({**marks["settings"], **unsigned})
    for path in told.files():
        if not path.exists():
            raise _lacks(found, f"{path}, with which it was marked, is not on this machine", "Bring it back.")
    return told


def _guides(found: Archived) -> Guides:
    """The guides of the archive; their clip, which has the sound, is the archive's, too."""
    assert found.guides is not None
    guides = load_guides(found.guides)
    source, clip = guides.manifest.get("source"), found.inputs.get("video")
    if not source:
        return guides
    return replace(
        guides,
        manifest={**guides.manifest, "source": {**source, "path": str(clip or Path(str(source.get("path"))).name)}},
    )


def job_of(found: Archived, out: Path, generate: GenerateSettings, output: OutputSettings) -> Job:
    """The job from clip and picture. Raises InputError: something that it needs is not there."""
    told = found.record.get("preprocess")
    if told is None and found.guides is not None:
        told = told_settings(load_guides(found.guides).manifest)
    if told is None:
        raise _lacks(found, "nothing tells with which settings its guides were made")
    chosen = PreprocessSettings.model_validate({**told, "mask": None, "mask_debug": None, "performers": None})
    for name in ("models", "sam2"):
        path = getattr(chosen, name)
        if path is not None and not path.exists():
            raise _lacks(found, f"{path}, with which its performer was found, is not on this machine", "Bring it back.")
    if told.get("mask") is not None and "mask" not in found.inputs:
        raise _lacks(found, "its hand-made mask is not in the archive")
    chosen = chosen.model_copy(update={"mask": found.inputs.get("mask")})
    return Job(
        image=found.inputs["image"], video=found.inputs["video"], out=out, mode=found.mode, preprocess=chosen,
        generate=generate, output=output, marks=marks_settings(found),
    )  # fmt: skip


@contextmanager
def _place(found: Archived, out: Path, redrawn: bool) -> Iterator[Path]:
    """Where the job writes. A redraw needs the finished result and its record: they lie in a hidden folder beside `out`."""
    if not redrawn:
        yield out
        return
    names = (out, record_path(out))
    if any(os.path.lexists(name) for name in names):
        raise OutputError("out", out, "the name is taken", "Choose another one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wanimate-redo-", dir=out.parent) as folder:
        place = Path(folder) / out.name
        shutil.copyfile(found.result, place)
        told = json.loads(found.record_file.read_bytes())
        told |= {"out": out.name, "version": None, "result": {**told["result"], "name": out.name}}
        record_path(place).write_bytes(json_bytes(told, 2))
        yield place
        os.rename(record_path(place), record_path(out))
        os.rename(place, out)


def _read(form: type[_Told], folder: Path, file: Path) -> _Told:
    """A JSON file of the payload. Raises InputError where it is none of this form."""
    try:
        return form.model_validate(read_own_json(file))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ".".join(map(str, first["loc"])) or "JSON"
        rule = f"it is no archive of this program: {file.name} cannot be used ({what}: {first['msg']})"
        raise InputError("folder", folder, rule, "Name one that `wanimate archive` has made.") from error


def _in(payload: Path, name: Any) -> Path:
    """A file or folder of the payload. Raises InputError where the index names something else."""
    text = str(name).removesuffix("/")
    path = payload / text
    if unsafe(text) or not path.exists():
        rule = f"its {INDEX} names {text!r}, which is not in it"
        raise InputError("folder", payload.parent, rule, "Name another archive.")
    return path


def _lacks(found: Archived, rule: str, remedy: str = "Name another archive of it.") -> InputError:
    return InputError("folder", found.name, f"the job cannot be done again from it: {rule}", remedy)
