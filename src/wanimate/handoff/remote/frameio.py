"""Frame.io V4: its calls, as its public SDK 4.0.0 makes them, each with the limit of how often it may be made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wanimate.errors import InputError
from wanimate.handoff.remote.base import Target
from wanimate.handoff.remote.http import RemoteError, Service, UnsureError
from wanimate.handoff.remote.limits import CallClass, Clock, pause_after

FRAMEIO_URL = "https://api.frame.io"
MOST_IN_A_STACK = 10
"""Files that a new version stack may have; others are moved into it afterwards."""
_FIND = CallClass("find", 100, 60.0)
_UPLOAD = CallClass("upload", 5, 1.0)
_STATUS = CallClass("status", 5, 1.0)
_STACK = CallClass("stack", 10, 60.0)
_COMMENT = CallClass("comment", 100, 60.0)
_FIELDS = CallClass("fields", 10, 60.0)
_PAGES = 1000
_TRIES = 6
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Place:
    """A folder of a project."""

    account: str
    project: str
    folder: str
    url: str = ""


@dataclass(frozen=True)
class Part:
    """A stretch of a file and the signed address it goes to."""

    size: int
    url: str = field(repr=False)


@dataclass(frozen=True)
class RemoteFile:
    """A file, folder or version stack. `kind`: "file", "folder" or "version_stack". `parent`: what it lies in. `status`: of a
    file: "created", "uploaded", "transcoded". `parts`: of one that was just created."""

    id: str
    name: str
    kind: str
    parent: str
    size: int
    status: str
    media_type: str
    url: str
    parts: tuple[Part, ...] = ()


class LostError(RemoteError):
    """The service has given an upload up, or its addresses have expired: the file has to be sent anew."""


class FrameIo:
    """Every method raises RemoteError."""

    def __init__(self, service: Service) -> None:
        self.service, self.clock = service, service.wire.clock

    # Finding

    def find(self, target: Target, make_folders: bool = False) -> Place:
        """The place that a target names, each part by its name or id.

        Raises:
            InputError: there is none, or there are several of that name.
        """
        project = self._project(target)
        place = Place(project["account"], project["id"], project["root_folder_id"], project["view_url"])
        for depth, part in enumerate(target.path):
            found = _one(self.children(place, "folder"), part, f"folder {part!r}", target)
            if found is None and depth == 0 and _ID.fullmatch(part):
                found = self._folder(place, part)
            if found is None and not make_folders:
                rule = f"there is no folder {part!r}"
                raise InputError("to", target.text, rule, "Name one that is there, or allow folders to be made.")
            folder = found or self.make_folder(place, part)
            place = Place(place.account, place.project, folder.id, folder.url)
        return place

    def children(self, place: Place, kind: str = "") -> list[RemoteFile]:
        """What lies in a folder. `kind`: only such."""
        path = f"/v4/accounts/{place.account}/folders/{place.folder}/children"
        found = [_file(one) for one in self._pages(_FIND, path, {"type": kind} if kind else {})]
        return [one for one in found if kind in ("", one.kind)]

    def make_folder(self, place: Place, name: str) -> RemoteFile:
        """A folder of this name; made unless it is there."""

        def look() -> RemoteFile | None:
            return next((one for one in self.children(place, "folder") if one.name == name), None)

        def make() -> RemoteFile:
            path = f"/v4/accounts/{place.account}/folders/{place.folder}/folders"
            return _file(_data(self.service.post(_UPLOAD, path, {"data": {"name": name}})))

        return made(look, make, self.clock)

    def _project(self, target: Target) -> dict[str, str]:
        found = []
        for account in self._pages(_FIND, "/v4/accounts"):
            base = f"/v4/accounts/{_text(account, 'id')}/workspaces"
            for workspace in self._pages(_FIND, base):
                for one in self._pages(_FIND, f"{base}/{_text(workspace, 'id')}/projects"):
                    if target.project in (one.get("id"), one.get("name")):
                        told = {name: _text(one, name) for name in ("id", "name", "root_folder_id")}
                        url = str(one.get("view_url") or "")
                        found.append({**told, "view_url": url, "account": _text(account, "id")})
        if len(found) != 1:
            rule = f"{len(found)} projects have this name" if found else "there is no such project for this token"
            ids = f"Give its id: {', '.join(one['id'] for one in found)}." if found else "Make it at Frame.io first."
            raise InputError("to", target.text, rule, ids)
        return found[0]

    def _folder(self, place: Place, folder: str) -> RemoteFile | None:
        """A folder anywhere in the project, by its id."""
        try:
            data = _data(self.service.get(_FIND, f"/v4/accounts/{place.account}/folders/{folder}"))
        except RemoteError as error:
            if error.status == 404:
                return None
            raise
        return _file(data) if data.get("project_id") == place.project else None

    # Files

    def create(self, place: Place, name: str, size: int) -> RemoteFile:
        """A new file, with the addresses that its parts go to. Raises UnsureError, too."""
        path = f"/v4/accounts/{place.account}/folders/{place.folder}/files/local_upload"
        return _file(_data(self.service.post(_UPLOAD, path, {"data": {"name": name, "file_size": size}})))

    def fetch(self, place: Place, name: str, url: str) -> RemoteFile:
        """A new file that Frame.io gets from an address itself."""

        def look() -> RemoteFile | None:
            known = (one for one in self.children(place, "file") if one.name == name and one.id not in before)
            return next(known, None)

        def make() -> RemoteFile:
            path = f"/v4/accounts/{place.account}/folders/{place.folder}/files/remote_upload"
            return _file(_data(self.service.post(_UPLOAD, path, {"data": {"name": name, "source_url": url}})))

        before = {one.id for one in self.children(place, "file")}
        return made(look, make, self.clock)

    def file(self, account: str, file: str) -> RemoteFile | None:
        """A file as it is now; None where it is gone."""
        try:
            return _file(_data(self.service.get(_FIND, f"/v4/accounts/{account}/files/{file}")))
        except RemoteError as error:
            if error.status == 404:
                return None
            raise

    def uploaded(self, account: str, file: str) -> bool:
        """Whether all parts have arrived. Raises LostError, too, where Frame.io has given it up."""
        data = _data(self.service.get(_STATUS, f"/v4/accounts/{account}/files/{file}/status"))
        if data.get("upload_failed") is True:
            raise LostError("to", self.service.name, "it has lost an upload", "Run the same command again.")
        return data.get("upload_complete") is True

    def remove(self, account: str, file: str) -> None:
        """Remove a file that never got its bytes. One that is gone already is none the worse."""
        try:
            self.service.delete(_FIND, f"/v4/accounts/{account}/files/{file}")
        except RemoteError as error:
            if error.status != 404:
                raise

    # Version stacks

    def stack(self, place: Place, files: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
        """Make files the versions of one stack, oldest first. The newest lies in the folder of `place`.

        Files that are in a stack already stay there, and the newest such stack takes the others of that folder. Returns the
        stack's id, None where the newest stays alone, and files that lie elsewhere by now.
        """
        found = [(file, self.file(place.account, file)) for file in files]
        above = {file: known.parent for file, known in found if known is not None}
        stacks = [parent for parent in dict.fromkeys(reversed(above.values())) if self._is_stack(place, parent)]
        loose = [file for file, parent in above.items() if parent == place.folder]
        stack = stacks[0] if stacks else None
        left = tuple(file for file, parent in above.items() if parent not in (place.folder, stack))
        if stack is None:
            if len(loose) < 2:
                return None, left
            first, loose = loose[:MOST_IN_A_STACK], loose[MOST_IN_A_STACK:]
            stack = self._new_stack(place, first)
        for file in loose:
            path = f"/v4/accounts/{place.account}/files/{file}/move"
            self.service.patch(_STACK, path, {"data": {"parent_id": stack}})
        return stack, left

    def _new_stack(self, place: Place, files: Sequence[str]) -> str:
        def look() -> str | None:
            found = self.file(place.account, files[0])
            return None if found is None or found.parent == place.folder else found.parent

        def make() -> str:
            path = f"/v4/accounts/{place.account}/folders/{place.folder}/version_stacks"
            return _text(_data(self.service.post(_STACK, path, {"data": {"file_ids": list(files)}})), "id")

        return made(look, make, self.clock)

    def _is_stack(self, place: Place, parent: str) -> bool:
        if parent == place.folder:
            return False
        try:
            self.service.get(_FIND, f"/v4/accounts/{place.account}/version_stacks/{parent}")
        except RemoteError as error:
            if error.status == 404:
                return False
            raise
        return True

    # Comments and fields

    def comments(self, account: str, file: str) -> list[dict[str, Any]]:
        """All comments of a file, with who said them and their answers."""
        path = f"/v4/accounts/{account}/files/{file}/comments"
        return list(self._pages(_COMMENT, path, {"include": "owner,replies"}))

    def comment(self, account: str, file: str, data: Mapping[str, Any]) -> str:
        """Say something of a file. Returns the comment's id. Raises UnsureError, too."""
        path = f"/v4/accounts/{account}/files/{file}/comments"
        return _text(_data(self.service.post(_COMMENT, path, {"data": dict(data)})), "id")

    def definitions(self, account: str) -> dict[str, tuple[str, str]]:
        """Fields of the account: name -> (id, type)."""
        found = self._pages(_FIELDS, f"/v4/accounts/{account}/metadata/field_definitions")
        return {_text(one, "name"): (_text(one, "id"), str(one.get("field_type"))) for one in found}

    def define(self, account: str, name: str) -> str:
        """A field for text of this name; made unless it is there. Returns its id."""

        def make() -> str:
            path = f"/v4/accounts/{account}/metadata/field_definitions"
            data = {"data": {"name": name, "field_type": "text"}}
            return _text(_data(self.service.post(_FIELDS, path, data)), "id")

        def look() -> str | None:
            known = self.definitions(account).get(name)
            return None if known is None else known[0]

        return made(look, make, self.clock)

    def set_fields(self, place: Place, files: Sequence[str], values: Mapping[str, Any]) -> None:
        """Give files values: id of a field -> value."""
        told = [{"field_definition_id": name, "value": value} for name, value in values.items()]
        path = f"/v4/accounts/{place.account}/projects/{place.project}/metadata/values"
        self.service.patch(_FIELDS, path, {"data": {"file_ids": list(files), "values": told}})

    def _pages(self, kind: CallClass, path: str, params: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Everything of a list, over its pages."""
        seen, page = set[str](), self.service.get(kind, path, params)
        for _ in range(_PAGES):
            items = page.get("data") if isinstance(page, dict) else None
            if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
                raise RemoteError("to", self.service.name, f"its answer to {path} is no list", _CHANGED)
            yield from items
            links = page.get("links")
            link = links.get("next") if isinstance(links, dict) else None
            if not isinstance(link, str) or not link or link in seen:
                return
            seen.add(link)
            page = self.service.get(kind, self.service.here(link))


_CHANGED = "The service has changed, or something stands in between; report it with this message"


def made(look: Callable[[], _Made | None], make: Callable[[], _Made], clock: Clock) -> _Made:
    """What `look` finds, or else what `make` makes. Where a making broke off, it is looked for before it is made again."""
    failures = 0
    while True:
        found = look()
        if found is not None:
            return found
        try:
            return make()
        except UnsureError as error:
            failures += 1
            if failures >= _TRIES:
                raise
            clock.sleep(max(error.wait, pause_after(failures)))


def _one(found: Sequence[RemoteFile], name: str, what: str, target: Target) -> RemoteFile | None:
    """The one of this id, else of this name."""
    named = [one for one in found if one.id == name] or [one for one in found if one.name == name]
    if len(named) > 1:
        remedy = f"Give its id: {', '.join(one.id for one in named)}."
        raise InputError("to", target.text, f"there are several of the name {what}", remedy)
    return named[0] if named else None


def _data(answer: Any) -> dict[str, Any]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise RemoteError("to", "Frame.io", "its answer has no data", _CHANGED)
    return data


def _text(data: Mapping[str, Any], name: str) -> str:
    found = data.get(name)
    if not isinstance(found, str) or not found:
        raise RemoteError("to", "Frame.io", f"its answer has no {name}", _CHANGED)
    return found


def _file(data: Mapping[str, Any]) -> RemoteFile:
    urls = data.get("upload_urls")
    parts = []
    for one in urls if isinstance(urls, list) else []:
        size = one.get("size") if isinstance(one, dict) else None
        if not isinstance(size, int) or size < 0:
            raise RemoteError("to", "Frame.io", "it names a part without a size", _CHANGED)
        parts.append(Part(size, _text(one, "url")))
    size = data.get("file_size")
    return RemoteFile(
        _text(data, "id"), str(data.get("name") or ""), str(data.get("type") or "file"), str(data.get("parent_id") or ""),
        size if isinstance(size, int) else -1, str(data.get("status") or ""), str(data.get("media_type") or ""),
        str(data.get("view_url") or ""), tuple(parts),
    )  # fmt: skip
