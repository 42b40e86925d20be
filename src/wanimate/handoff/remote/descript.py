"""Descript: media into a project by its public API, which is in early access."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from wanimate.errors import InputError
from wanimate.handoff.remote.base import (
    REVIEW,
    Item,
    Options,
    Package,
    Sent,
    SentFile,
    Shipment,
    Steps,
    Target,
    place_of,
)
from wanimate.handoff.remote.delivery import chosen, journal_path
from wanimate.handoff.remote.frameio import LostError, made
from wanimate.handoff.remote.http import RemoteError, Service
from wanimate.handoff.remote.journal import Entry, Journal
from wanimate.handoff.remote.limits import CallClass, done_within
from wanimate.handoff.remote.upload import Stretch, stamp

DESCRIPT_URL = "https://descriptapi.com"
URL_HOLDS = 3 * 3600.0
"""Seconds for which an address takes a file."""
VIDEO, SOUND = ("h264", "hevc"), ("flac", "aac", "mp3")
"""Codecs that Descript reads, and WAV."""
_CALLS = CallClass("descript", 5, 1.0)
_MARGIN = 300.0
_ANEW = 3
_PAGES = 1000
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TAKES = "Descript takes H.264 and HEVC in mov and mp4, and WAV, FLAC, AAC and MP3"


@dataclass(frozen=True)
class Media:
    """A file that Descript takes. `size`: columns and rows; None for sound."""

    item: Item
    path: Path
    size: tuple[int, int] | None


def descript_media(package: Package, options: Options) -> tuple[list[Media], list[str]]:
    """What of a package Descript takes, and the names of what it does not take.

    Without `options.roles` what it does not take is left out.

    Raises:
        InputError: it takes nothing of it, or not all that was asked for.
    """
    found, left = list[Media](), list[str]()
    for item in chosen(package, options):
        path = place_of(package, item)
        trouble, size = _looked(path)
        if not trouble:
            found.append(Media(item, path, size))
        elif options.roles:
            remedy = f"{_TAKES}: make a review copy and send that, or leave the role {item.role} out."
            raise InputError("roles", item.name, f"it is {trouble}, which Descript does not take", remedy)
        else:
            left.append(item.name)
    if not found:
        rule = "it has nothing that Descript takes"
        raise InputError("package", package.folder, rule, f"{_TAKES}: make a review copy in H.264.")
    return found, left


def _looked(path: Path) -> tuple[str, tuple[int, int] | None]:
    """What stands against a file, "" if nothing does, and its size."""
    try:
        with av.open(str(path)) as file:
            form, streams = file.format.name.split(","), file.streams
            if streams.video:
                codec = streams.video[0].codec_context
                if codec.codec.canonical_name in VIDEO and "mp4" in form:
                    return "", (codec.width, codec.height)
                return f"{codec.codec.canonical_name} in {form[0]}", None
            sound = streams.audio[0].codec_context.codec.canonical_name if streams.audio else "no sound"
            fits = sound in SOUND or (sound.startswith("pcm_") and "wav" in form)
            return "" if fits else f"{sound} in {form[0]}", None
    except (OSError, ValueError):
        return path.suffix.lstrip(".") or "no video and no sound", None


def to_descript(
    service: Service,
    package: Package,
    target: Target,
    shipment: Shipment,
    options: Options,
    leave: Callable[[Journal], None],
) -> Steps[Sent]:
    """Import what Descript takes of a package into a project, which is made where there is none of this name.

    The caller has asked the gate, and has looked at the bytes.

    Args:
        leave: called before the first import is asked for.

    Raises:
        InputError: Descript takes nothing of it. RemoteError: it does not do what it is asked. HeldError: another process is
            at it.
    """
    media, left = descript_media(package, options)
    path = journal_path(options, shipment, "descript", target.text)
    about = {"service": "descript", "shot": shipment.shot, "target": target.text}
    with Journal(path, about) as journal:
        leave(journal)
        imports, done = _Imports(service, journal, target, shipment, options), []
        for one in media:
            entry = yield from imports.send(one)
            done.append(entry)
    files = tuple(SentFile(entry["name"], entry["job"], entry["url"]) for entry in done)
    return Sent(target.text, files[0].url, files, (), tuple(left))


class _Imports:
    def __init__(
        self, service: Service, journal: Journal, target: Target, shipment: Shipment, options: Options
    ) -> None:
        self._service, self._journal, self._target, self._shipment = service, journal, target, shipment
        self._options = options
        self._clock = service.wire.clock

    def send(self, media: Media) -> Steps[Entry]:
        """Import one file, from where an earlier run has stopped."""
        tries = _ANEW
        while True:
            entry = self._known(media) or self._asked(media)
            try:
                if not self._journal.has("put", job=entry["job"]):
                    self._put(entry, media)
                    yield f"{media.item.name} is sent"
                yield from self._finished(entry, media)
                return entry
            except LostError:
                self._journal.add("lost", job=entry["job"])
                tries -= 1
                if not tries:
                    raise
                yield f"{media.item.name} is sent anew"

    def _known(self, media: Media) -> Entry | None:
        """What an earlier run has begun of these very bytes, and can still be gone on with."""
        item = media.item
        entry = self._journal.last("import", version=self._shipment.version, name=item.name)
        if entry is None or entry["sha256"] != item.sha256 or self._journal.has("lost", job=entry["job"]):
            return None
        old = self._clock.now() - entry["at"] > URL_HOLDS - _MARGIN
        return None if old and not self._journal.has("put", job=entry["job"]) else entry

    def _asked(self, media: Media) -> Entry:
        """Ask for an import: a job, and the address that takes the bytes."""
        answer, name = made(lambda: None, lambda: self._ask(media), self._clock)
        urls = answer.get("upload_urls")
        url = urls.get(name, {}).get("upload_url") if isinstance(urls, dict) else None
        told = {key: answer.get(key) for key in ("job_id", "project_id", "project_url")}
        if not isinstance(url, str) or not all(isinstance(value, str) and value for value in told.values()):
            raise RemoteError("to", self._service.name, "its answer names no job or address", "Report this message.")
        self._journal.add(
            "import", version=self._shipment.version, name=media.item.name, sha256=media.item.sha256, media=name,
            job=told["job_id"], project=told["project_id"], url=told["project_url"], address=url,
            at=round(self._clock.now()),
        )  # fmt: skip
        entry = self._journal.last("import", job=told["job_id"])
        assert entry is not None
        return entry

    def _ask(self, media: Media) -> tuple[Mapping[str, Any], str]:
        project = self._project()
        name = self._free(media.item, project)
        told: dict[str, Any] = {"content_type": media.item.media_type, "file_size": media.item.size}
        body: dict[str, Any] = {"add_media": {name: told}}
        if project is not None:
            body["project_id"] = project
        else:
            body |= {"project_name": self._target.project, "team_access": self._options.team}
            if self._options.team_folder:
                body["folder_name"] = self._options.team_folder
        if media.item.role == REVIEW and media.size is not None:
            width, height = media.size
            cut = {"name": Path(name).stem, "width": width, "height": height, "clips": [{"media": name}]}
            body["add_compositions"] = [cut]
        answer = self._service.post(_CALLS, "/v1/jobs/import/project_media", body)
        return answer if isinstance(answer, dict) else {}, name

    def _project(self) -> str | None:
        """The project's id; None where it has to be made."""
        known, name = self._journal.last("import"), self._target.project
        if known is not None and self._details(known["project"]) is not None:
            return str(known["project"])
        if _ID.fullmatch(name):
            if self._details(name) is None:
                raise InputError("to", self._target.text, "there is no such project", "Give another id, or a name.")
            return name
        found, params = list[str](), {"name": name, "limit": "100"}
        for _ in range(_PAGES):
            page = self._service.get(_CALLS, "/v1/projects", params)
            data = page.get("data") if isinstance(page, dict) else None
            rows: Sequence[Any] = data if isinstance(data, list) else ()
            found += [str(one["id"]) for one in rows if isinstance(one, dict) and one.get("name") == name]
            cursor = page.get("pagination", {}).get("next_cursor") if isinstance(page, dict) else None
            if not cursor:
                break
            params = {**params, "cursor": str(cursor)}
        if len(found) > 1:
            rule = f"{len(found)} projects have this name"
            raise InputError("to", self._target.text, rule, f"Give an id: {', '.join(found)}.")
        return found[0] if found else None

    def _details(self, project: str) -> Mapping[str, Any] | None:
        try:
            found = self._service.get(_CALLS, f"/v1/projects/{project}")
        except RemoteError as error:
            if error.status == 404:
                return None
            raise
        return found if isinstance(found, dict) else {}

    def _free(self, item: Item, project: str | None) -> str:
        """A name that the project does not have yet: hero.mp4, hero (2).mp4."""
        details = (self._details(project) or {}) if project is not None else {}
        taken, place, number = details.get("media_files") or {}, Path(item.name), 1
        name = place.name
        while name in taken:
            number += 1
            name = f"{place.stem} ({number}){place.suffix}"
        return name

    def _put(self, entry: Entry, media: Media) -> None:
        size = media.item.size
        stretch = Stretch(media.path, 0, size, stamp(media.path))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        answer = self._service.put(entry["address"], headers, stretch.pieces)
        if answer.status in (404, 410) or (answer.status in (400, 403) and b"expired" in answer.body.lower()):
            raise LostError("to", self._service.name, "its address has expired", "Run the same command again.")
        if not answer.good:
            raise self._service.wrong(answer, f"the bytes of {media.item.name}")
        self._journal.add("put", job=entry["job"])

    def _finished(self, entry: Entry, media: Media) -> Iterator[str]:
        """Wait for the import."""
        if self._journal.has("done", job=entry["job"]):
            return
        patience, job = self._options.patience, dict[str, Any]()

        def done() -> bool:
            job.update(self._job(entry))
            return job.get("job_state") in ("stopped", "cancelled")

        if not done_within(patience, done, self._clock):
            rule = f"the import of {media.item.name} is not finished after {patience:g} s"
            remedy = "Run the same command again later; nothing is sent twice."
            raise RemoteError("to", self._service.name, rule, remedy)
        result = job.get("result")
        result = result if isinstance(result, dict) else {}
        if job["job_state"] == "cancelled" or result.get("status") != "success":
            self._journal.add("lost", job=entry["job"])
            rule = f"the import of {media.item.name} has failed ({_why(result, entry['media'])})"
            raise RemoteError("to", self._service.name, rule, "Look into the project, then run the same command again.")
        self._journal.add("done", job=entry["job"])
        yield f"{media.item.name} is in the project as {entry['media']}"

    def _job(self, entry: Entry) -> Mapping[str, Any]:
        try:
            found = self._service.get(_CALLS, f"/v1/jobs/{entry['job']}")
        except RemoteError as error:
            if error.status == 404:
                raise LostError("to", self._service.name, "the import is gone", "Run the same command again.") from None
            raise
        return found if isinstance(found, dict) else {}


def _why(result: Mapping[str, Any], media: str) -> str:
    """What Descript says of a failed import."""
    status = result.get("media_status")
    one = status.get(media) if isinstance(status, dict) else None
    said = one.get("error_message") if isinstance(one, dict) else None
    return str(said or result.get("error_message") or "no reason is given")[:300]
