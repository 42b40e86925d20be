"""The service as tools of a language model: through the protocol, over the service's own HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from own_service import JOB, MP4, PNG, Served, served

from wanimate.library.entries import About, File
from wanimate.serve.mcp import Remote, server

Asked = Callable[..., Any]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "data") as found:
        yield found


def tools(service: Served, owner: str = "ann") -> Asked:
    """Calls a tool through the protocol; a refusal is a text."""

    def ask(tool: str, /, **given: Any) -> Any:
        async def asked() -> Any:
            transport = httpx.ASGITransport(service.app)
            remote = Remote("http://service", service.keys[owner], transport)
            async with Client(server(remote)) as client:
                answer = await client.call_tool(tool, given)
            text: Any = answer.content[0]
            return text.text if answer.is_error else json.loads(text.text)

        return asyncio.run(asked())

    return ask


def run(work: Callable[[Client], Awaitable[Any]], service: Served) -> Any:
    async def whole() -> Any:
        async with Client(
            server(Remote("http://service", service.keys["ann"], httpx.ASGITransport(service.app)))
        ) as client:
            return await work(client)

    return asyncio.run(whole())


def test_there_are_four_tools_that_explain_themselves(service: Served) -> None:
    found = {tool.name: tool for tool in run(lambda client: client.list_tools(), service).tools}
    assert set(found) == {"submit", "status", "cancel", "library"}
    assert all(tool.description for tool in found.values())
    assert found["submit"].input_schema["required"] == ["image", "video"]


def test_a_job_through_the_tools(service: Served, tmp_path: Path) -> None:
    ask = tools(service)
    (tmp_path / "hero.png").write_bytes(PNG)
    job = ask("submit", image=str(tmp_path / "hero.png"), video=JOB["video"]["url"], name="from a model",
              settings={"generate": {"seed": 3}, "tier": "wan-std"})  # fmt: skip
    assert (job["state"], job["position"], job["tier"]) == ("pending", 1, "wan-std")
    assert ask("status")["queue"][0]["id"] == job["id"]
    service.runner.gate.set()
    with service.worker():
        done = ask("status", job=job["id"], wait_seconds=10)
    assert done["state"] == "succeeded"
    client = service.client("ann")
    assert client.get(done["files"]["video"]).content == MP4
    assert client.get(f"/v1/jobs/{job['id']}").json()["submission"]["generate"] == {"seed": 3}
    found = ask("library", search="model")
    assert [row["name"] for row in found["jobs"]] == ["from a model"]
    assert ask("library", search="other")["jobs"] == []
    assert found["uploads"][0]["filename"] == "hero.png"
    assert (found["checkpoints"], found["loras"], found["tiers"]) == (["mannequin"], ["hero"], ["wan-std", "wan-pro"])
    again = ask("submit", image=found["uploads"][0]["id"], video=JOB["video"]["url"])
    assert ask("cancel", job=again["id"])["state"] == "cancelled"


def test_refusals_reach_the_model_as_sentences(service: Served, tmp_path: Path) -> None:
    ask = tools(service)
    assert "There is no such job." in ask("status", job="none")
    assert "cannot be read" in ask("submit", image=str(tmp_path / "none.png"), video="https://example.org/a.mp4")
    (tmp_path / "secrets.txt").write_text("password")
    assert "no picture" in ask("submit", image=str(tmp_path / "secrets.txt"), video="https://example.org/a.mp4")
    told = ask("submit", image="https://a.org/a.png", video="https://a.org/a.mp4", settings={"tier": "x"})
    assert "there is no such tier" in told
    job = ask("submit", image="https://a.org/a.png", video="https://a.org/a.mp4")["id"]
    assert "There is no such job." in tools(service, "bob")("cancel", job=job)
    assert "no scope" in tools(service, "reader")("cancel", job=job)


def test_an_id_from_a_model_is_no_path(service: Served) -> None:
    ask = tools(service, "boss")
    for job in ("../queue/pause#", "../queue/pause?", "..", "", "a/b", "x%2Fy"):
        assert ask("cancel", job=job).endswith("There is no such job."), job
        assert ask("status", job=job).endswith("There is no such job."), job
    assert service.client("boss").get("/v1/queue").json()["paused"] is False


def test_a_service_that_is_not_there_is_told(service: Served) -> None:
    async def asked(transport: httpx.AsyncBaseTransport) -> str:
        async with Client(server(Remote("http://127.0.0.1:9", "wan_x", transport))) as client:
            answer = await client.call_tool("library", {})
        text: Any = answer.content[0]
        return str(text.text)

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert "does not answer" in asyncio.run(asked(httpx.MockTransport(refuse)))
    assert "no wanimate service" in asyncio.run(
        asked(httpx.MockTransport(lambda _: httpx.Response(200, text="<html>")))
    )


@pytest.mark.slow
def test_the_command_speaks_over_stdin_and_stdout() -> None:
    first = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"},
        },
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "wanimate", "mcp"], input=json.dumps(first) + "\n", text=True, capture_output=True,
        env={**os.environ, "WANIMATE_KEY": "wan_x"}, timeout=60, check=False,
    )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[0])
    assert answer["result"]["serverInfo"]["name"] == "wanimate"


def test_clips_and_characters_of_the_library_are_listed_and_used(service: Served) -> None:
    library = service.service.library
    for shelf, name in (("clip", "wave-03"), ("character", "hero")):
        file = File(shelf, f"{name}.bin", ".bin", name.encode().hex().ljust(64, "0"), 4, [b"file"])  # type: ignore[arg-type]
        library.add("ann", file, About(name, tags=["slow"]), {"width": 4, "height": 4, "seconds": 2.0})
    ask = tools(service)
    found = ask("library", search="wav")
    said = {"name": "library:wave-03", "title": "wave-03", "kind": "other", "tags": ["slow"], "seconds": 2.0}
    assert found["clips"] == [said | {"status": "proposed"}]
    assert found["characters"] == []
    assert [one["name"] for one in ask("library")["characters"]] == ["library:hero"]
    job = ask("submit", image="library:hero", video="library:wave-03")
    submission = service.client("ann").get(f"/v1/jobs/{job['id']}").json()["submission"]
    assert (submission["image"]["library"], submission["video"]["library"]) == ("hero", "wave-03")
    assert "no such entry" in ask("submit", image="library:hero", video="library:none")
