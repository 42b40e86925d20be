"""The service as tools of a language model: submit, status, cancel, library, over the Model Context Protocol.

`wanimate mcp` runs on the user's own machine and speaks over stdin and stdout with the program that started it. It asks a
running service over HTTP, with the user's key and for nothing that the key does not allow.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio
import httpx
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from wanimate.config.job import LIBRARY
from wanimate.errors import InputError
from wanimate.versions import version_of

_INSTRUCTIONS = """Character animation on the user's own GPUs: a character (a picture) performs what a performer does in a
clip. A job takes minutes: submit it, tell the user its id, and look with status now and then. Ask library for names of
checkpoints and LoRAs and for what was made before."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_WAIT = 60.0
_PACE = 1.0
_SHOWN = 20
Answer = dict[str, Any]


class Remote:
    """The service's own HTTP interface, as far as the tools need it.

    Raises (methods):
        ToolError: the service refuses, or does not answer; the text is for the model.
    """

    def __init__(self, url: str, key: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._url = url
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=60, transport=transport, trust_env=False)

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        try:
            answer = await self._http.request(method, path, **more)
            told: Answer = answer.json()
        except httpx.HTTPError as error:
            raise ToolError(f"The service at {self._url} does not answer ({type(error).__name__}).") from error
        except ValueError as error:
            raise ToolError(f"What answers at {self._url} is no wanimate service.") from error
        if answer.is_error:
            raise ToolError(str(told.get("error", {}).get("message", f"The service answered {answer.status_code}.")))
        return told

    async def source(self, text: str) -> Answer:
        """A picture or clip as jobs take it: an address, the id of an upload, library:NAME, or a local file, which is sent."""
        if text.startswith(LIBRARY):
            return {"library": text.removeprefix(LIBRARY)}
        if urlsplit(text).scheme in ("http", "https"):
            return {"url": text}
        if text.startswith("file_"):
            return {"upload": text}
        place = Path(text).expanduser()
        try:
            with open(place, "rb") as file:
                sent = await self.ask("POST", "/v1/uploads", files={"file": (place.name, file)})
        except OSError as error:
            raise ToolError(f"{text} cannot be read: {error.strerror}.") from error
        return {"upload": sent["id"]}

    async def job(self, job_id: str) -> Answer:
        """What a model needs to know of a job."""
        row = await self.ask("GET", _path_of(job_id))
        told = _told(row)
        if row["results"]:
            files = await self.ask("GET", f"{_path_of(job_id)}/files")
            told["files"] = {file["name"]: file["url"] for file in files["data"] if "/" not in file["name"]}
            if any(file["withheld"] for file in files["data"]):
                told["withheld"] = "The video needs an approval by people first; its link works from then on."
        return told


def _path_of(job_id: str) -> str:
    """A model may have its words from anybody: an id leads to no other route."""
    if not _ID.fullmatch(job_id):
        raise ToolError("There is no such job.")
    return f"/v1/jobs/{job_id}"


def _told(row: Answer) -> Answer:
    names = (
        "id",
        "name",
        "kind",
        "mode",
        "state",
        "stage",
        "checkpoint",
        "tier",
        "position",
        "progress",
        "warnings",
        "error",
    )
    return {name: row[name] for name in names if row.get(name) not in (None, [], "")}


def _entry(row: Answer) -> Answer:
    """What a model needs to know of an entry of the library."""
    told = {
        "name": f"{LIBRARY}{row['name']}",
        **{name: row[name] for name in ("title", "kind", "tags", "seconds", "status")},
    }
    return {name: value for name, value in told.items() if value not in (None, [], "")}


def server(remote: Remote) -> MCPServer:
    """The four tools over a service."""
    app = MCPServer("wanimate", instructions=_INSTRUCTIONS, version=version_of("wanimate") or "0", log_level="WARNING")

    async def submit(
        image: str, video: str, mode: Literal["animation", "replacement"] = "animation", name: str = "", prompt: str = "",
        settings: dict[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        """Make a job: the character of `image` performs what happens in `video`.

        Args:
            image: picture of the character: a local path, an http(s) address, the id of an upload (file_...), or library:NAME.
            video: clip of the performer, 2 to 30 s, likewise.
            mode: animation puts the character into its own picture; replacement into the clip's scene.
            name: a title for the job.
            prompt: text for the network; most jobs need none.
            settings: further fields of a job: tier ("wan-std", "wan-pro"), checkpoint, loras ([{"name", "strength"}]),
                speed, priority, generate ({"seed", "steps" ...}), preprocess ({"person", "fps", "start", "end" ...}), output.
        """
        asked = {**(settings or {}), "mode": mode, "name": name, "prompt": prompt}
        asked |= {"image": await remote.source(image), "video": await remote.source(video)}
        return _told(await remote.ask("POST", "/v1/jobs", json=asked))

    async def status(job: str | None = None, wait_seconds: float = 0.0) -> Answer:
        """How a job is doing, with links to its files once it has some; without `job`, the queue and the last jobs.

        Args:
            job: its id.
            wait_seconds: wait so long, at most 60, for the job to end.
        """
        if job is None:
            queue = await remote.ask("GET", "/v1/queue")
            last = await remote.ask("GET", "/v1/jobs", params={"limit": _SHOWN})
            waiting = [_told(row) for row in queue["jobs"]]
            return {"paused": queue["paused"], "queue": waiting, "last": [_told(row) for row in last["data"]]}
        until = time.monotonic() + min(wait_seconds, _LONGEST_WAIT)
        while True:
            told = await remote.job(job)
            if told["state"] not in ("pending", "running") or time.monotonic() >= until:
                return told
            await anyio.sleep(_PACE)

    async def cancel(job: str) -> Answer:
        """Stop a job that waits or runs. What it has made so far is lost."""
        return _told(await remote.ask("POST", f"{_path_of(job)}/cancel"))

    async def library(search: str = "") -> Answer:
        """What there is to work with: clips and characters of the library with words that begin as those of `search` (jobs name
        them library:NAME), uploads, checkpoints, LoRAs, tiers, and finished jobs with `search` in name or prompt."""
        models = await remote.ask("GET", "/v1/models")
        uploads = await remote.ask("GET", "/v1/uploads")
        query = {"state": "succeeded", "limit": _SHOWN} | ({"search": search} if search else {})
        jobs = await remote.ask("GET", "/v1/jobs", params=query)
        shelves = {
            shelf: await remote.ask("GET", "/v1/library", params={"shelf": shelf, "search": search, "limit": _SHOWN})
            for shelf in ("clip", "character")
        }
        return {
            "clips": [_entry(row) for row in shelves["clip"]["data"]],
            "characters": [_entry(row) for row in shelves["character"]["data"]],
            "checkpoints": [model["id"] for model in models["data"]], "loras": models["loras"],
            "tiers": list(models["tiers"]),
            "uploads": [{"id": row["id"], "filename": row["filename"]} for row in uploads["data"][:_SHOWN]],
            "jobs": [_told(row) for row in jobs["data"]],
        }  # fmt: skip

    tools: tuple[Callable[..., Any], ...] = (submit, status, cancel, library)
    for tool in tools:
        app.add_tool(tool)
    return app


def run(url: str, key: str) -> None:
    """Serve the tools over stdin and stdout until stdin ends.

    Raises:
        InputError: `url` is no address of a service.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            "url", url, "it is no http or https address", "Give the service's, http://127.0.0.1:8420 for instance."
        )
    server(Remote(url, key)).run("stdio")
