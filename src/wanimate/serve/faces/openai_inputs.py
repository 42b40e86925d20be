"""What clients of OpenAI's videos contract send, in all their ways, as one job."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from fastapi import Request

from wanimate.serve.content import Received, TooLarge, receive, sniff
from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.faces.hosted_uploads import MODELS
from wanimate.serve.forms import MALFORMED, is_clean, json_object, landing, media_type, nested, parts
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.submission import Source, Submission
from wanimate.serve.tables import Upload, now

Role = Literal["image", "video"]
Mode = Literal["animation", "replacement"]
_ROLES: tuple[Role, ...] = ("image", "video")
_MODES: dict[str, Mode] = {
    "animation": "animation", "animate": "animation", "move": "animation",
    "replacement": "replacement", "replace": "replacement", "mix": "replacement",
}  # fmt: skip
_PICTURES = ("reference_url", "image_url", "image_reference", "image", "input_image", "input_reference")
_CLIPS = ("video_url", "input_video", "video", "reference_video", "video_reference")
_MANY = "input_references"
_REFERENCES = ("input_reference", "image_reference", "video_reference", _MANY)
_PATHS = ("video_path", "image_path", "reference_path", "input_path")
_SETTINGS = {
    "preprocess": {"person": "person", "fps": "fps", "size": "area"},
    "generate": {
        "seed": "seed", "negative_prompt": "negative_prompt", "steps": "steps", "num_inference_steps": "steps",
        "guidance": "guidance", "guidance_scale": "guidance",
    },
    "output": {"watermark": "watermark"},
}  # fmt: skip
"""Fields of a request, by the group and the name of the setting that they are."""
_FIELDS_LIMIT = 2**20
"""Bytes of all fields of a form together."""
_PARTS = 4


@dataclass(frozen=True)
class File:
    """A file of a form, on the disk. `role` is what it is by its field's name, or else by its content."""

    field: str
    filename: str
    path: Path
    received: Received
    role: Role


@dataclass
class Given:
    """What a request brings. `fields` is as JSON would have it, whether it came as JSON or as a form."""

    fields: dict[str, Any]
    files: list[File] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """Raises ServiceError (400)."""
        found = self.fields.get(name)
        if found is None:
            return default
        if not isinstance(found, (str, int, float)) or isinstance(found, bool):
            raise wrong(name, f"{name}: it has to be a string.")
        if not is_clean(str(found).translate({9: " ", 10: " ", 13: " "})):
            raise wrong(name, f"{name}: it has control characters.")
        return str(found)

    def switch(self, name: str) -> bool:
        """Raises ServiceError (400)."""
        found = self.fields.get(name)
        known = {True: True, False: False, None: False, "true": True, "false": False, "1": True, "0": False, "": False}
        if not isinstance(found, (bool, str, type(None))) or (word := _lower(found)) not in known:
            raise wrong(name, f"{name}: it has to be true or false.")
        return known[word]


@asynccontextmanager
async def read(request: Request, service: Service) -> AsyncIterator[Given]:
    """The body of a request, JSON or a form. Its files are on the disk within the block.

    Raises:
        ServiceError: 400, it is neither, or a file is too large or no picture and no clip. StorageAway.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        with landing(service.settings.scratch) as folder:
            given = await _form(request, service, folder)
            _spread(given.fields)
            yield given
    elif kind == "application/json":
        given = Given(await json_object(request))
        _spread(given.fields)
        yield given
    else:
        raise wrong("body", "The Content-Type has to be multipart/form-data or application/json.", MALFORMED)


async def _form(request: Request, service: Service, folder: Path) -> Given:
    fields: list[tuple[str, str]] = []
    files: list[File] = []
    left = _FIELDS_LIMIT
    async for part in parts(request):
        if part.filename is None:
            value = await part.text(left)
            left -= len(value.encode()) + len(part.name.encode())
            if left < 0:
                raise wrong("body", "The fields of the form are too long.")
            fields.append((part.name, value))
            continue
        path = folder / str(len(files))
        try:
            received = await receive(part.stream(), path, service.settings.largest_clip)
        except TooLarge as error:
            most = f"{error.limit / 2**20:g} MB"
            raise wrong(part.name, f"{part.name}: the file is larger than {most}.", "BadRequest.TooLarge") from error
        if len(files) == 3:
            raise wrong(part.name, f"{part.name}: there are more files than a picture and a clip.")
        files.append(File(part.name, part.filename, path, received, _role(part.name, path, part.content_type)))
    return Given(nested(fields), files)


def _role(name: str, path: Path, declared: str) -> Role:
    """What a file is. Its content decides; what cannot be told from it is what the client says it is."""
    kind = sniff(path)
    by_name = name.partition("[")[0]
    if kind is not None:
        found: Role = "image" if kind.family == "picture" else "video"
        if found == "image" and by_name in _CLIPS:
            raise wrong(name, f"{name}: the file is a picture; it has to be a clip.", "InvalidVideo.FileFormat")
        return found
    if by_name in _CLIPS or declared.startswith("video/"):
        return "video"
    raise wrong(name, f"{name}: the file is no picture and no clip that is known here.", "InvalidImage.FileFormat")


def _spread(fields: dict[str, Any]) -> None:
    """Fields within `extra_params` and `extra_body` count as fields of the request, unless they are there, too.

    Forms bring objects as `a[b]`, or as one field that holds JSON.
    """
    for name in ("extra_params", "extra_body", *_REFERENCES):
        found = fields.get(name)
        if isinstance(found, str) and (name not in _REFERENCES or found.lstrip()[:1] in ("{", "[")) and found.strip():
            try:
                fields[name] = json.loads(found)
            except (ValueError, RecursionError) as error:
                raise wrong(name, f"{name}: it is no JSON.") from error
    for name in ("extra_params", "extra_body"):
        inner = fields.pop(name, None)
        if isinstance(inner, dict):
            fields.update({key: value for key, value in inner.items() if key not in fields})
        elif inner:
            raise wrong(name, f"{name}: it has to be an object.")


def asked_for(given: Given, service: Service, caller: Caller) -> tuple[str, Submission]:
    """The model's name and the job. Files of the request are stored when everything else has been found right.

    Raises:
        ServiceError: 400 what is wrong, 503 a file cannot be stored.
    """
    for name in _PATHS:
        if given.fields.get(name):
            raise wrong(name, f"{name}: the service opens no paths. Send the file, or give an address.")
    model, checkpoint, mode = _model(given, service)
    tier, mode = _tier(given, service, mode)
    groups = {group: _settings(given, group, names) for group, names in _SETTINGS.items()}
    groups["output"].setdefault("sheet", True)
    check_image = given.switch("check_image")
    base = {
        "mode": mode, "tier": tier, "checkpoint": checkpoint, "contract": check_image, "check_image": check_image,
        "prompt": given.text("prompt"), **groups,
    }  # fmt: skip
    sources: dict[Role, Source | File] = {}
    for role in _ROLES:
        sources[role] = _source(given, role, service, caller)
    trial = {role: Source(upload="file") if isinstance(one, File) else one for role, one in sources.items()}
    try:
        Submission.of(base | trial).check(service.settings)
    except ServiceError as error:
        raise ServiceError(error.status, error.code, error.message, _field_of(given, error.field)) from error
    stored = {
        role: Source(upload=_kept(service, caller, one).id) if isinstance(one, File) else one
        for role, one in sources.items()
    }
    return model, Submission.of(base | stored)


def _model(given: Given, service: Service) -> tuple[str, str | None, Mode]:
    """As the client named it, which checkpoint it is (None: the default), and the mode that it stands for."""
    name = given.text("model")
    if name in MODELS or name in _MODES:
        return name, None, MODELS[name] if name in MODELS else _MODES[name]
    if not name:
        return service.settings.default_checkpoint, None, "animation"
    if name in service.settings.known_checkpoints:
        return name, name, "animation"
    known = ", ".join([*MODELS, *service.settings.known_checkpoints])
    raise wrong("model", f"The model {name[:100]!r} does not exist; known are {known}.", "model_not_found")


def _tier(given: Given, service: Service, mode: Mode) -> tuple[str | None, Mode]:
    """`mode` is a tier of the hosted contract, or what the job does."""
    name = given.text("mode")
    if not name or name in service.settings.tiers:
        return name or None, mode
    if name in _MODES:
        return None, _MODES[name]
    known = ", ".join([*service.settings.tiers, "animation", "replacement"])
    raise wrong("mode", f"mode: it has to be one of {known}.")


def _settings(given: Given, group: str, names: dict[str, str]) -> dict[str, Any]:
    """Settings of a group: those in an object of its name, and those that fields of the request stand for."""
    inner = given.fields.get(group)
    if inner is not None and not isinstance(inner, dict):
        raise wrong(group, f"{group}: it has to be an object.")
    found = dict(inner or {})
    for name, setting in names.items():
        if name == "watermark":
            found |= {setting: True} if given.switch(name) else {}
        elif (value := given.fields.get(name)) not in (None, ""):
            found[setting] = _spelt(name, value)
    return found


def _field_of(given: Given, setting: str | None) -> str | None:
    """What the request calls a setting."""
    names = {own: name for group in _SETTINGS.values() for name, own in group.items() if name in given.fields}
    return names.get(setting or "", setting)


def _spelt(name: str, value: Any) -> Any:
    """A value as the setting takes it: clients write `720*1280`, and a person's number as a number."""
    if name == "size" and isinstance(value, str):
        return value.replace("*", "x")
    return str(value) if name == "person" and isinstance(value, int) else value


def _source(given: Given, role: Role, service: Service, caller: Caller) -> Source | File:
    """Where the picture or the clip comes from. Raises ServiceError (400): nowhere, or from two places."""
    found: list[Source | File] = [file for file in given.files if file.role == role]
    for name in _PICTURES if role == "image" else _CLIPS:
        found += _addressed(given.fields.get(name), name, role, service, caller)
    many = given.fields.get(_MANY) or []
    reference = given.fields.get("input_reference")
    for name, several in ((_MANY, many), ("input_reference", reference if isinstance(reference, list) else [])):
        for one in several if isinstance(several, list) else [several]:
            if role in _kinds_of_entry(one):
                found += _addressed(one, name, role, service, caller)
    if not found:
        what = "the character's picture (input_reference)" if role == "image" else "the performer's clip (video_url)"
        raise wrong("input_reference" if role == "image" else "video_url", f"Field required: {what}.")
    if len(found) > 1:
        what = "picture" if role == "image" else "clip"
        raise wrong("input_reference", f"There is more than one {what}.")
    return found[0]


def _addressed(value: Any, name: str, role: Role, service: Service, caller: Caller) -> list[Source | File]:
    """What a field says: an address, or an object with one, or with the id of an upload."""
    if value is None or value == "" or isinstance(value, list):
        return []
    if isinstance(value, dict):
        inner = next((value[key] for key in (f"{role}_url", "url") if value.get(key)), None)
        if inner is None and (id_ := value.get("file_id")):
            upload = service.upload(caller.owner, id_) if isinstance(id_, str) and is_clean(id_) else None
            if upload is None:
                raise wrong(name, f"{name}: there is no such upload.")
            return [Source(upload=upload.id)]
        if inner is None:
            raise wrong(name, f"{name}: it has to have {role}_url or file_id.")
        return _addressed(inner, name, role, service, caller)
    if not isinstance(value, str) or not is_clean(value):
        raise wrong(name, f"{name}: it has to be an address.")
    if value.partition(":")[0].lower() not in ("http", "https", "data"):
        raise wrong(name, f"{name}: it has to be an http:// or https:// address, or a file of the form.", "InvalidURL")
    return [Source(url=value)]


def _kinds_of_entry(entry: Any) -> set[Role]:
    """What an entry of a list of references is, by its keys, or by the name that it ends in. A form may bring both as one."""
    if isinstance(entry, dict):
        named: set[Role] = {role for role in _ROLES if f"{role}_url" in entry}
        kind = str(entry.get("type", "")).removeprefix("input_").partition("_")[0]
        if named or kind in _ROLES:
            return named or {role for role in _ROLES if role == kind}
        entry = entry.get("url", "")
    guess = mimetypes.guess_type(str(entry).partition("?")[0])[0] or ""
    return {"video"} if guess.startswith("video/") or str(entry).startswith("data:video/") else {"image"}


def _kept(service: Service, caller: Caller, file: File) -> Upload:
    """A file of the form as an upload. The same file, sent again within hours, is the same upload, so that a creation that a
    client repeats is the same job."""
    content = f"{caller.owner}\0{file.received.sha256}\0{file.filename}"
    lasts = max(1, int(service.settings.keep_uploads * 3_600_000) // _PARTS)
    part = now() // lasts
    names = [f"form/{sha256(content.encode('utf-8', 'replace')).hexdigest()}/{number}" for number in (part, part - 1)]
    for name in names:
        if (known := service.upload(caller.owner, name)) is not None:
            return known
    try:
        return service.add_upload(caller.owner, file.path, file.filename, file.received.sha256, names[0])
    except ServiceError as error:
        known = service.upload(caller.owner, names[0])
        if error.status != 409 or known is None:
            raise
        return known


def _lower(value: bool | str | None) -> bool | str | None:
    return value.strip().lower() if isinstance(value, str) else value
