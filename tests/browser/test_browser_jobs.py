"""The queue: watched, put in order, stopped; it outlives the page and the server."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from live import until
from playwright.sync_api import Browser, Route, expect
from serve_jobs import SUBMISSION
from stage import Actor, Playhouse
from visit import Visit

from wanimate.serve.tables import Job, Stage, State, now

MANY = 5000


def held(visit: Visit, key: str, *names: str) -> list[str]:
    """Waiting jobs that no worker takes."""
    jobs = [visit.live.made(key, name, wait=False) for name in names]
    with visit.live.http(key) as client:
        for job in jobs:
            client.patch(f"/v1/jobs/{job}", json={"held": True}).raise_for_status()
    return jobs


def test_jobs_are_put_in_order_by_keys_and_by_dragging(visit: Visit) -> None:
    key = visit.sign_in()
    held(visit, key, "one", "two", "three")
    visit.open("jobs")
    expect(visit.page.locator(".row .what a")).to_have_text(["one", "two", "three"])
    visit.button("Move three: arrow keys change its place").focus()
    visit.page.keyboard.press("ArrowUp")
    expect(visit.page.locator(".row .what a").nth(1)).to_have_text("three")
    expect(visit.button("Move three: arrow keys change its place")).to_be_focused()
    visit.page.keyboard.press("ArrowUp")
    expect(visit.page.locator(".row .what a").nth(0)).to_have_text("three")
    first, last = visit.page.locator(".row").nth(0), visit.page.locator(".row").nth(2)
    first.drag_to(last, target_position={"x": 300, "y": 60})
    expect(visit.page.locator(".row .what a").nth(2)).to_have_text("three")
    with visit.live.http(key) as client:
        assert [job["name"] for job in client.get("/v1/queue").json()["jobs"]] == ["one", "two", "three"]


def test_priority_hold_and_cancel(visit: Visit) -> None:
    key = visit.sign_in()
    held(visit, key, "one", "two")
    visit.open("jobs")
    visit.page.get_by_label("Priority: two").select_option("10")
    expect(visit.page.locator(".row .what a").nth(0)).to_have_text("two")
    visit.button("Release: one").click()
    expect(visit.button("Hold: one")).to_be_visible()
    visit.button("Cancel two").click()
    expect(visit.page.locator(".row")).to_have_count(1)
    visit.button("Cancel one").click()
    expect(visit.page.get_by_role("heading", name="Nothing is waiting")).to_be_visible()


def test_a_running_job_is_watched_and_stopped(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "hold", wait=False)
    assert actor.holding.wait(10)
    visit.open("jobs")
    row = visit.page.locator(".row")
    expect(row).to_contain_text("Generating")
    visit.open(f"jobs/{job}")
    expect(visit.page.get_by_alt_text("Newest preview")).to_be_visible()
    expect(visit.page.get_by_role("progressbar")).to_be_visible()
    visit.button("Cancel hold").click()
    expect(visit.page.get_by_text("The job was cancelled")).to_be_visible()


def test_a_reload_in_the_middle_shows_the_job_as_it_is(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "hold", wait=False)
    visit.open(f"jobs/{job}")
    assert actor.holding.wait(10)
    visit.page.reload()
    expect(visit.page.get_by_text("50 %")).to_be_visible()
    expect(visit.page.get_by_alt_text("Newest preview")).to_be_visible()
    actor.released.set()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()


def test_a_job_that_ends_while_it_is_asked_for_is_seen_to_end(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "hold", wait=False)
    assert actor.holding.wait(10)
    asked = []

    def late(route: Route) -> None:
        """The answer is that of a running job; it comes when the job is done."""
        answer = route.fetch() if not asked else None
        if answer is None:
            route.continue_()
            return
        asked.append(answer)
        actor.released.set()
        with visit.live.http(key) as client:
            until(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded")
        time.sleep(1)
        route.fulfill(response=answer)

    visit.page.route(f"**/v1/jobs/{job}", late)
    visit.open(f"jobs/{job}")
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    assert asked[0].json()["state"] == "running"


def test_the_page_outlives_a_restart_of_the_server(browser: Browser, tmp_path: Path) -> None:
    """The stream comes back by itself and goes on behind the last event; the session holds."""
    first = Playhouse(tmp_path / "data")
    with first:
        visit = Visit(browser, first, tmp_path)
        key = visit.sign_in()
        (job,) = held(visit, key, "one")
        visit.open(f"jobs/{job}")
        expect(visit.page.locator(".tag")).to_have_text("On hold")
    with Playhouse(tmp_path / "data", first.port) as second, second.acting():
        with second.http(key) as client:
            client.patch(f"/v1/jobs/{job}", json={"held": False}).raise_for_status()
        expect(visit.page.get_by_role("link", name="Download")).to_be_visible(timeout=20_000)
        visit.said = [text for text in visit.said if "Failed to load resource" not in text and "ERR_" not in text]
        with visit:
            visit.page.get_by_role("link", name="Jobs").click()
            visit.title("Jobs")


def test_a_paused_queue_is_told_and_resumed(visit: Visit) -> None:
    key = visit.sign_in()
    held(visit, key, "one")
    visit.open("jobs")
    visit.button("Pause the queue").click()
    expect(visit.page.get_by_text("The queue is paused.")).to_be_visible()
    visit.button("Resume").click()
    expect(visit.page.get_by_text("The queue is paused.")).to_have_count(0)
    assert not visit.live.service.queue.paused


def test_five_thousand_jobs_scroll_smoothly(visit: Visit) -> None:
    visit.sign_in("busy")
    at = now()
    rows: list[dict[str, Any]] = [
        {
            "id": str(uuid.uuid4()), "owner": "busy", "key_id": "busy", "request_id": "r", "face": "own", "kind": "animate",
            "mode": "animation", "model": "mannequin", "checkpoint": "mannequin", "loras": "",
            "submission": SUBMISSION | {"name": f"job {i}", "prompt": "", "loras": [], "parent": None},
            "state": State.CANCELLED, "stage": Stage.PREPARE,
            "order_key": at + i, "created": at + i, "result": {}, "facts": {}, "warnings": [],
        }
        for i in range(MANY)
    ]  # fmt: skip
    with visit.live.service.database.write() as session:
        session.execute(sa.insert(Job), rows)
    visit.open("jobs?show=all")
    expect(visit.page.get_by_text(f"{MANY} jobs")).to_be_visible()
    expect(visit.page.get_by_role("link", name=f"job {MANY - 1}", exact=True)).to_be_visible()
    assert visit.page.locator(".list > li").count() < 60
    frames: list[float] = visit.page.evaluate(
        """async () => {
            const took = [];
            let last = performance.now();
            for (let i = 0; i < 90; i++) {
                scrollBy(0, 120);
                await new Promise(requestAnimationFrame);
                took.push(performance.now() - last);
                last = performance.now();
            }
            return took.sort((a, b) => a - b);
        }"""
    )
    assert frames[len(frames) // 2] < 50, frames
    began = time.monotonic()
    visit.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(visit.page.get_by_role("link", name="job 0", exact=True)).to_be_visible()
    assert time.monotonic() - began < 15
    assert visit.page.locator(".list > li").count() < 60
    visit.page.get_by_label("Search").fill("job 4321")
    expect(visit.page.get_by_text("1 job", exact=True)).to_be_visible()


def test_a_job_in_the_middle_outlives_a_restart_of_the_server(browser: Browser, tmp_path: Path) -> None:
    """The server is gone while it generates, and the page is loaded anew before the next one has taken the job up."""
    with Playhouse(tmp_path / "data") as first, first.acting() as actor:
        visit = Visit(browser, first, tmp_path)
        key = visit.sign_in()
        job = first.made(key, "hold", wait=False)
        behind = first.made(key, "behind", wait=False)
        assert actor.holding.wait(10)
        visit.open(f"jobs/{job}")
        expect(visit.page.get_by_text("50 %")).to_be_visible()
    with Playhouse(tmp_path / "data", first.port) as second:
        visit.page.reload()
        visit.title("hold")
        expect(visit.page.get_by_role("link", name="Download")).to_have_count(0)
        with second.acting() as other:
            assert other.holding.wait(10)
            expect(visit.page.get_by_text("50 %")).to_be_visible(timeout=20_000)
            expect(visit.page.get_by_alt_text("Newest preview")).to_be_visible()
            other.released.set()
            expect(visit.page.get_by_role("link", name="Download")).to_be_visible(timeout=20_000)
            assert [asked["name"] for asked in other.asked] == ["behind"], "the guides are not made again"
            visit.open(f"jobs/{behind}")
            expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
            with second.http(key) as client:
                assert client.get(f"/v1/jobs/{job}").json()["facts"]["segments"] == 2
            visit.said = [text for text in visit.said if "Failed to load resource" not in text and "ERR_" not in text]
            with visit:
                visit.page.get_by_role("link", name="Jobs").click()
                visit.title("Jobs")
