"""Frame.io V4 and Adobe's tokens on loopback, as far as the hand-off uses them, and as strict as their contract."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from standin import Refused, Reply, Request, StandIn

_A = r"/v4/accounts/([\w-]+)"


@dataclass
class Node:
    id: str
    name: str
    type: str
    parent_id: str
    project_id: str
    file_size: int = 0
    media_type: str = ""
    url_ends: float = 0.0
    sizes: list[int] = field(default_factory=list)
    got: dict[int, bytes] = field(default_factory=dict)
    whole_at: float | None = None
    failed: bool = False


class FrameIoStandIn(StandIn):
    """One account, one project called Spots.

    Attributes:
        part: bytes of a part.
        life: seconds that signed addresses hold.
        arrive, transcode: seconds until a file is complete, and can be played.
        page: entries of a page.
        puts: (file, part) of every PUT that was taken.
        remote: address -> bytes that `remote_upload` finds there.
    """

    routes = [  # noqa: RUF012
        ("POST", "/ims/token/v3", "ims"),
        ("GET", "/v4/accounts", "accounts"),
        ("GET", rf"{_A}/workspaces", "workspaces"),
        ("GET", rf"{_A}/workspaces/([\w-]+)/projects", "projects"),
        ("GET", rf"{_A}/folders/([\w-]+)", "folder"),
        ("GET", rf"{_A}/folders/([\w-]+)/children", "children"),
        ("POST", rf"{_A}/folders/([\w-]+)/folders", "make_folder"),
        ("POST", rf"{_A}/folders/([\w-]+)/files/local_upload", "local_upload"),
        ("POST", rf"{_A}/folders/([\w-]+)/files/remote_upload", "remote_upload"),
        ("PUT", r"/bucket/([\w-]+)/(\d+)", "part_sent"),
        ("GET", rf"{_A}/files/([\w-]+)", "file"),
        ("DELETE", rf"{_A}/files/([\w-]+)", "remove"),
        ("GET", rf"{_A}/files/([\w-]+)/status", "status"),
        ("POST", rf"{_A}/folders/([\w-]+)/version_stacks", "make_stack"),
        ("GET", rf"{_A}/version_stacks/([\w-]+)", "stack"),
        ("PATCH", rf"{_A}/files/([\w-]+)/move", "move"),
        ("GET", rf"{_A}/files/([\w-]+)/comments", "comments_of"),
        ("POST", rf"{_A}/files/([\w-]+)/comments", "say"),
        ("GET", rf"{_A}/metadata/field_definitions", "definitions"),
        ("POST", rf"{_A}/metadata/field_definitions", "define"),
        ("PATCH", rf"{_A}/projects/([\w-]+)/metadata/values", "set_values"),
    ]

    def __init__(self, now: Callable[[], float], token: str = "tok-frameio-0123456789") -> None:
        super().__init__(now, token)
        self.part, self.life, self.arrive, self.transcode, self.page = 1000, 86_400.0, 0.0, 0.0, 100
        self.account, self.project, self.root = (str(uuid.UUID(int=n)) for n in (1, 2, 3))
        self.nodes = {self.root: Node(self.root, "root", "folder", "", self.project)}
        self.puts: list[tuple[str, int]] = []
        self.remote: dict[str, bytes] = {}
        self.said: dict[str, list[dict[str, Any]]] = {}
        self.fields: dict[str, dict[str, Any]] = {}
        self.values: dict[str, dict[str, Any]] = {}
        self.more_projects: list[dict[str, str]] = []
        self.secret, self.ims_tokens = "client-secret-42", 0

    # For tests

    def files(self, name: str = "") -> list[Node]:
        return [node for node in self.nodes.values() if node.type == "file" and name in ("", node.name)]

    def bytes_of(self, node: Node) -> bytes:
        return b"".join(node.got[number] for number in range(len(node.sizes)))

    def add(self, name: str, kind: str, parent: str) -> Node:
        node = Node(str(uuid.uuid4()), name, kind, parent, self.project)
        self.nodes[node.id] = node
        return node

    # Calls

    def limit_of(self, method: str, path: str) -> tuple[str, int, float] | None:
        if not path.startswith("/v4/"):
            return None
        end = path.rpartition("/")[2]
        if end in ("local_upload", "remote_upload", "status"):
            return end, 5, 1.0
        if (method == "POST" and end == "version_stacks") or end == "move":
            return "version_stacks", 10, 60.0
        if end == "field_definitions" or end == "values":
            return "fields", 10, 60.0
        return ("comments" if end == "comments" else "other"), 100, 60.0

    def ims(self, request: Request) -> Reply:
        form = {key: value[0] for key, value in parse_qs(request.body.decode()).items()}
        wanted = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": self.secret}
        if form != {**wanted, "scope": "openid AdobeID frame.s2s.all"}:
            raise Refused(400, f"invalid_client {form.get('client_secret')}")
        self.ims_tokens += 1
        self.token = f"ims-token-{self.ims_tokens}"
        return Reply({"access_token": self.token, "token_type": "bearer", "expires_in": 86399})

    def _paged(self, request: Request, items: list[Any]) -> Reply:
        start = int(request.query.get("after", 0))
        page = items[start : start + self.page]
        more = start + self.page < len(items)
        query = "&".join(f"{key}={value}" for key, value in request.query.items() if key != "after")
        link = f"{request.path}?{query}&after={start + self.page}" if more else None
        return Reply({"data": page, "links": {"next": link}})

    def accounts(self, request: Request) -> Reply:
        return self._paged(request, [{"id": self.account, "display_name": "Studio"}])

    def workspaces(self, request: Request, account: str) -> Reply:
        return self._paged(request, [{"id": "ws-1", "name": "One"}, {"id": "ws-2", "name": "Two"}])

    def projects(self, request: Request, account: str, workspace: str) -> Reply:
        own = {"id": self.project, "name": "Spots", "root_folder_id": self.root, "view_url": "https://next.frame.io/p"}
        return self._paged(request, [*self.more_projects, own] if workspace == "ws-2" else [])

    def _node(self, id_: str, *kinds: str) -> Node:
        node = self.nodes.get(id_)
        if node is None or node.type not in kinds:
            raise Refused(404, "Not Found")
        return node

    def _shown(self, node: Node) -> dict[str, Any]:
        told = {name: getattr(node, name) for name in ("id", "name", "type", "parent_id", "project_id", "file_size")}
        url = f"https://next.frame.io/project/{node.project_id}/view/{node.id}"
        return {**told, "media_type": node.media_type, "status": self._status(node), "view_url": url}

    def _status(self, node: Node) -> str:
        if node.whole_at is None or self.now() < node.whole_at + self.arrive:
            return "created"
        return "transcoded" if self.now() >= node.whole_at + self.arrive + self.transcode else "uploaded"

    def folder(self, request: Request, account: str, folder: str) -> Reply:
        return Reply({"data": self._shown(self._node(folder, "folder"))})

    def children(self, request: Request, account: str, folder: str) -> Reply:
        self._node(folder, "folder")
        kind = request.query.get("type", "")
        found = [one for one in self.nodes.values() if one.parent_id == folder and kind in ("", one.type)]
        return self._paged(request, [self._shown(one) for one in found])

    def make_folder(self, request: Request, account: str, folder: str) -> Reply:
        self._node(folder, "folder")
        return Reply({"data": self._shown(self.add(request.json()["data"]["name"], "folder", folder))}, 201)

    def local_upload(self, request: Request, account: str, folder: str) -> Reply:
        self._node(folder, "folder")
        data = request.json()["data"]
        if set(data) != {"name", "file_size"} or not isinstance(data["file_size"], int):
            self.violations.append(f"local_upload with {sorted(data)}")
            raise Refused(422, "unexpected field")
        node = self.add(data["name"], "file", folder)
        node.file_size, node.url_ends = data["file_size"], self.now() + self.life
        node.media_type = mimetypes.guess_type(node.name)[0] or "application/octet-stream"
        whole, rest = divmod(node.file_size, self.part)
        node.sizes = [self.part] * whole + ([rest] if rest else [])
        urls = [{"size": size, "url": self._signed(node, number)} for number, size in enumerate(node.sizes)]
        return Reply({"data": {**self._shown(node), "upload_urls": urls}}, 201)

    def _signature(self, node: Node, number: int, ends: str) -> str:
        return hashlib.sha256(f"{node.id} {number} {node.media_type} {ends} key".encode()).hexdigest()

    def _signed(self, node: Node, number: int) -> str:
        ends = str(node.url_ends)
        signature = self._signature(node, number, ends)
        return f"{self.url}/bucket/{node.id}/{number}?X-Amz-Expires={ends}&X-Amz-Signature={signature}"

    def part_sent(self, request: Request, file: str, number_text: str) -> Reply:
        node, number = self._node(file, "file"), int(number_text)
        if "authorization" in request.headers or "cookie" in request.headers:
            self.violations.append("a token at a signed address")
            raise Refused(400, "Only one auth mechanism allowed")
        ends = request.query.get("X-Amz-Expires", "")
        right = request.query.get("X-Amz-Signature") == self._signature(node, number, ends)
        if not right or request.headers.get("content-type") != node.media_type:
            raise Refused(403, "SignatureDoesNotMatch")
        if request.headers.get("x-amz-acl") != "private":
            raise Refused(403, "SignatureDoesNotMatch: x-amz-acl")
        if self.now() > float(ends):
            raise Refused(403, "AccessDenied: Request has expired")
        if len(request.body) != node.sizes[number] or "transfer-encoding" in request.headers:
            self.violations.append(f"part {number} has {len(request.body)} bytes")
            raise Refused(400, "IncompleteBody")
        if number > len(node.got):
            self.violations.append(f"part {number} before {len(node.got)}")
            raise Refused(409, "order")
        node.got[number] = request.body
        self.puts.append((file, number))
        if len(node.got) == len(node.sizes) and node.whole_at is None:
            node.whole_at = self.now()
        return Reply(None)

    def remote_upload(self, request: Request, account: str, folder: str) -> Reply:
        data = request.json()["data"]
        found = self.remote.get(data["source_url"])
        node = self.add(data["name"], "file", folder)
        if found is None:
            node.failed = True
        else:
            node.file_size, node.sizes, node.got, node.whole_at = len(found), [len(found)], {0: found}, self.now()
        node.media_type = mimetypes.guess_type(node.name)[0] or "application/octet-stream"
        return Reply({"data": self._shown(node)}, 202)

    def file(self, request: Request, account: str, file: str) -> Reply:
        return Reply({"data": self._shown(self._node(file, "file"))})

    def remove(self, request: Request, account: str, file: str) -> Reply:
        if self._node(file, "file").whole_at is not None:
            self.violations.append("a whole file is removed")
        del self.nodes[file]
        return Reply(None, 204)

    def status(self, request: Request, account: str, file: str) -> Reply:
        node = self._node(file, "file")
        return Reply({"data": {"upload_complete": self._status(node) != "created", "upload_failed": node.failed}})

    def make_stack(self, request: Request, account: str, folder: str) -> Reply:
        ids = request.json()["data"]["file_ids"]
        if not 2 <= len(ids) <= 10:
            raise Refused(422, "A version stack has 2 to 10 files")
        if any(self._node(one, "file").parent_id != folder for one in ids):
            raise Refused(422, "All files have to be in the folder")
        stack = self.add(self.nodes[ids[-1]].name, "version_stack", folder)
        for one in ids:
            self.nodes[one].parent_id = stack.id
        return Reply({"data": self._shown(stack)}, 201)

    def stack(self, request: Request, account: str, stack: str) -> Reply:
        return Reply({"data": self._shown(self._node(stack, "version_stack"))})

    def move(self, request: Request, account: str, file: str) -> Reply:
        parent = self._node(request.json()["data"]["parent_id"], "folder", "version_stack")
        self._node(file, "file").parent_id = parent.id
        return Reply({"data": self._shown(self.nodes[file])})

    def comments_of(self, request: Request, account: str, file: str) -> Reply:
        self._node(file, "file")
        include = request.query.get("include", "").split(",")
        shown = []
        for one in self.said.get(file, []):
            left_out = {name for name in ("owner", "replies") if name not in include}
            shown.append({key: value for key, value in one.items() if key not in left_out})
        return self._paged(request, shown)

    def say(self, request: Request, account: str, file: str) -> Reply:
        self._node(file, "file")
        data = request.json()["data"]
        anchor, drawn = data.get("anchor"), data.get("annotation")
        known = {"text", "timestamp", "duration", "anchor", "annotation"}
        fits = (
            set(data) <= known
            and str(data["text"]).strip()
            and isinstance(data.get("timestamp"), int)
            and isinstance(data.get("duration"), int)
            and (anchor is None or (set(anchor) == {"x", "y"} and all(0 <= value <= 1 for value in anchor.values())))
            and (drawn is None or isinstance(json.loads(drawn), list))
        )
        if not fits:
            self.violations.append(f"a comment with {data}")
            raise Refused(422, "unexpected")
        text, timestamp = data.pop("text"), data.pop("timestamp")
        return Reply({"data": self.comment(file, text, timestamp, "Service account", **data)}, 201)

    def comment(self, file: str, text: str, timestamp: int | None, name: str, **more: Any) -> dict[str, Any]:
        """Somebody says something."""
        owner = {"id": f"user-{name}", "name": name}
        made = {"id": str(uuid.uuid4()), "owner": owner, "replies": []}
        found: dict[str, Any] = {**made, "duration": None, **more, "text": text, "timestamp": timestamp}
        self.said.setdefault(file, []).append(found)
        return found

    def definitions(self, request: Request, account: str) -> Reply:
        return self._paged(request, list(self.fields.values()))

    def define(self, request: Request, account: str) -> Reply:
        data = request.json()["data"]
        made = {"id": str(uuid.uuid4()), "name": data["name"], "field_type": data["field_type"]}
        self.fields[made["id"]] = made
        return Reply({"data": made}, 201)

    def set_values(self, request: Request, account: str, project: str) -> Reply:
        data = request.json()["data"]
        for file in data["file_ids"]:
            self._node(file, "file")
            for one in data["values"]:
                name = self.fields[one["field_definition_id"]]["name"]
                self.values.setdefault(file, {})[name] = one["value"]
        return Reply(None, 204)
