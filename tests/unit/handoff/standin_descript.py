"""Descript's API on loopback, as far as the hand-off uses it, and as strict as its contract."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from standin import Refused, Reply, Request, StandIn


@dataclass
class Job:
    id: str
    project: str
    name: str
    size: int
    ends: float
    got: bytes | None = None
    got_at: float = 0.0
    state: str = ""


@dataclass
class Project:
    id: str
    name: str
    media: dict[str, bytes] = field(default_factory=dict)
    compositions: list[dict[str, Any]] = field(default_factory=list)
    access: str = "none"
    folder: str = ""


class DescriptStandIn(StandIn):
    """Attributes:
    minutes: imports that the account can still pay. seconds: that an import takes. broken: names that cannot be imported.
    calls, window, wait: how often it may be called, and what `Retry-After` says.
    """

    routes = [  # noqa: RUF012
        ("POST", "/v1/jobs/import/project_media", "ask"),
        ("GET", r"/v1/jobs/([\w-]+)", "job"),
        ("GET", "/v1/projects", "listed"),
        ("GET", r"/v1/projects/([\w-]+)", "project"),
        ("PUT", r"/upload/([\w-]+)", "sent"),
    ]

    def __init__(self, now: Callable[[], float], token: str = "dx_bearer_1:dx_secret_2") -> None:
        super().__init__(now, token)
        self.minutes, self.seconds, self.broken = 100, 5.0, set[str]()
        self.calls, self.window, self.wait = 5, 1.0, "7"
        self.jobs: dict[str, Job] = {}
        self.projects: dict[str, Project] = {}

    def limit_of(self, method: str, path: str) -> tuple[str, int, float] | None:
        return ("all", self.calls, self.window) if path.startswith("/v1/") else None

    def told(self, calls: int, left: int, seconds: float) -> dict[str, str]:
        return {"X-RateLimit-Remaining": str(left)} | ({} if left else {"Retry-After": self.wait})

    def ask(self, request: Request) -> Reply:
        body = request.json()
        if self.minutes <= 0:
            raise Refused(402, "Insufficient media minutes to start the job")
        if ("project_id" in body) == ("project_name" in body):
            raise Refused(400, "exactly one of project_id and project_name")
        if "project_id" in body:
            project = self._project(body["project_id"])
        else:
            project = Project(str(uuid.uuid4()), body["project_name"])
            project.access, project.folder = body.get("team_access", "none"), body.get("folder_name", "")
        urls = {}
        for name, told in body["add_media"].items():
            if set(told) != {"content_type", "file_size"}:
                raise Refused(400, f"add_media with {sorted(told)}")
            if name in project.media:
                self.violations.append(f"{name} is in the project")
                raise Refused(400, "media filenames must not conflict with existing files")
            job = Job(str(uuid.uuid4()), project.id, name, told["file_size"], self.now() + 3 * 3600)
            self.jobs[job.id] = job
            urls[name] = {"upload_url": f"{self.url}/upload/{job.id}?sig=1", "asset_id": "a", "artifact_id": "b"}
        for one in body.get("add_compositions", []):
            if any(clip["media"] not in body["add_media"] for clip in one["clips"]):
                raise Refused(400, "a composition of media that is not there")
            project.compositions.append(one)
        self.projects[project.id] = project
        self.minutes -= 1
        url = f"https://web.descript.com/{project.id}"
        return Reply({"job_id": job.id, "project_id": project.id, "project_url": url, "upload_urls": urls}, 201)

    def _project(self, id_: str) -> Project:
        if id_ not in self.projects:
            raise Refused(404, "Project not found")
        return self.projects[id_]

    def sent(self, request: Request, id_: str) -> Reply:
        job = self.jobs[id_]
        if "authorization" in request.headers:
            self.violations.append("a token at a signed address")
        if request.headers.get("content-type") != "application/octet-stream":
            raise Refused(403, "SignatureDoesNotMatch")
        if self.now() > job.ends:
            raise Refused(400, "ExpiredToken: the address has expired")
        if len(request.body) != job.size or "transfer-encoding" in request.headers:
            self.violations.append(f"{len(request.body)} bytes of {job.size}")
            raise Refused(400, "size")
        if job.got is not None:
            self.violations.append("sent twice") if not self.faults else None
        job.got, job.got_at = request.body, self.now()
        if job.name not in self.broken:
            self.projects[job.project].media[job.name] = request.body
        return Reply(None)

    def job(self, request: Request, id_: str) -> Reply:
        if id_ not in self.jobs:
            raise Refused(404, "Job not found")
        job = self.jobs[id_]
        told: dict[str, Any] = {"job_id": id_, "job_type": "import/project_media", "project_id": job.project}
        if job.got is None or self.now() < job.got_at + self.seconds:
            return Reply({**told, "job_state": "queued" if job.got is None else "running"})
        if job.state == "cancelled":
            return Reply({**told, "job_state": "cancelled"})
        if job.name in self.broken:
            status = {job.name: {"status": "failed", "error_message": "cannot be decoded"}}
            return Reply({**told, "job_state": "stopped", "result": {"status": "partial", "media_status": status}})
        done = {"status": "success", "media_status": {job.name: {"status": "success"}}}
        return Reply({**told, "job_state": "stopped", "result": done})

    def listed(self, request: Request) -> Reply:
        wanted = request.query.get("name", "").lower()
        found = [{"id": one.id, "name": one.name} for one in self.projects.values() if wanted in one.name.lower()]
        start = int(request.query.get("cursor", 0))
        page = {"next_cursor": str(start + 2)} if start + 2 < len(found) else {}
        return Reply({"data": found[start : start + 2], "pagination": page})

    def project(self, request: Request, id_: str) -> Reply:
        found = self._project(id_)
        media = {name: {"type": "video"} for name in found.media}
        return Reply({"id": id_, "name": found.name, "media_files": media, "compositions": []})
