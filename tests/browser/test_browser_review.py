"""Review: comments pinned and drawn, decisions, the shuttle, guests, exports."""

from __future__ import annotations

import csv
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect
from stage import FRAMES, Actor, Playhouse
from visit import Visit

from wanimate.serve.tables import GuestLink, now

WIDTHS = (390, 768, 1440, 3840)


def shown(visit: Visit, frame: int) -> None:
    """Have the player show a frame, and wait until all videos do."""
    visit.page.locator("wa-reel").evaluate("(player, frame) => player.show(frame)", frame)


def frame_of(visit: Visit) -> int:
    found: int = visit.page.locator("wa-reel").evaluate("(player) => player.frame")
    return found


def until(visit: Visit, holds: Callable[[int], bool]) -> None:
    """Wait until the player is at a frame for which it holds."""
    ends = time.monotonic() + 10
    while not holds(frame_of(visit)):
        assert time.monotonic() < ends, frame_of(visit)
        visit.page.wait_for_timeout(20)


def reviewed(visit: Visit, job: str) -> str:
    """Open the shot of a job. Returns its id."""
    visit.open(f"review/of/{job}")
    expect(visit.page.locator("wa-reel video").first).to_be_visible()
    visit.page.wait_for_url(re.compile("#/review/shot_"))
    return visit.page.url.rpartition("/")[2]


def test_a_review_from_a_drawn_comment_to_the_approval(visit: Visit, actor: Actor) -> None:
    """Pinned and drawn, changes asked, a new version, compared, approved; who and when is shown."""
    key = visit.sign_in("ann")
    job = visit.live.made(key, "Noon")
    visit.open(f"jobs/{job}")
    visit.page.get_by_role("main").get_by_role("link", name="Review", exact=True).click()
    visit.title("Noon")
    expect(visit.page.get_by_text("Needs review").first).to_be_visible()
    visit.page.get_by_label("Your name").fill("Ann Lee")
    shown(visit, 7)
    picture = visit.page.locator("wa-ink")
    box = picture.bounding_box()
    assert box is not None
    picture.click(position={"x": box["width"] * 0.25, "y": box["height"] * 0.5})
    visit.page.get_by_label("Comment at frame 8").fill("The hand is gone.")
    visit.button("Draw").click()
    visit.page.get_by_label("Yellow").check(force=True)
    x, y = box["x"], box["y"]
    visit.page.mouse.move(x + 40, y + 40)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 90, y + 80, steps=5)
    visit.page.mouse.up()
    visit.page.mouse.move(x + 90, y + 40)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 40, y + 80, steps=5)
    visit.page.mouse.up()
    expect(visit.page.locator("wa-ink polyline")).to_have_count(2)
    visit.button("Undo").click()
    expect(visit.page.locator("wa-ink polyline")).to_have_count(1)
    visit.page.get_by_label("Frames that it lasts").fill("3")
    visit.page.get_by_label("Comment at frame 8").press("Control+Enter")
    note = visit.page.locator(".note-of")
    expect(note.get_by_text("The hand is gone.")).to_be_visible()
    expect(note.get_by_text("Ann Lee")).to_be_visible()
    expect(visit.page.get_by_role("button", name="Comment 1", exact=True)).to_be_visible()
    with visit.live.http(key) as client:
        (row,) = client.get("/v1/shots").json()["data"]
        (comment,) = client.get(f"/v1/shots/{row['id']}").json()["comments"]
    assert (comment["frame"], comment["duration"], comment["author"]) == (7, 3, "Ann Lee")
    assert (comment["x"], comment["y"]) == (pytest.approx(0.25, abs=0.01), pytest.approx(0.5, abs=0.01))
    (mark,) = comment["marks"]
    assert mark["colour"] == "#ffcc00"
    assert mark["points"][0] == [
        pytest.approx(40 / box["width"], abs=0.01),
        pytest.approx(40 / box["height"], abs=0.01),
    ]
    shown(visit, 10)
    expect(visit.page.locator("wa-ink polyline")).to_have_count(0)
    shown(visit, 9)
    expect(visit.page.locator("wa-ink polyline")).to_have_count(1)
    visit.button("Ask for changes").click()
    visit.page.get_by_label("What has to change?").fill("Bring the hand back.")
    visit.button("Ask for changes").click()
    history = visit.page.get_by_role("list", name="Decisions")
    expect(history.get_by_text("asked for changes of version 1")).to_be_visible()
    expect(history.get_by_text("Bring the hand back.")).to_be_visible()
    visit.live.made(key, "Noon", kind="redraw", parent=job, segment=2, image=None, video=None, generate={"seed": 3})
    expect(visit.page.get_by_role("heading", name="Version 2")).to_be_visible()
    expect(visit.page.get_by_label("Shown").locator("option:checked")).to_have_text("Version 2 · Needs review")
    visit.page.get_by_label("Compare with").select_option(label="Version 1")
    expect(visit.page.locator("video[data-track=other]")).to_be_visible()
    shown(visit, 17)
    visit.sees(version=17, other=17)
    visit.button("Wipe").click()
    expect(visit.page.get_by_label("Divider")).to_be_visible()
    visit.button("Approve").click()
    visit.button("Approve").click()
    expect(history.get_by_text("approved version 2")).to_be_visible()
    expect(history.locator("time")).to_have_count(2)
    expect(history.get_by_text("Ann Lee")).to_have_count(2)
    expect(visit.page.locator(".head").get_by_text("Approved")).to_be_visible()
    visit.open("review")
    expect(visit.page.get_by_role("link", name="Noon")).to_contain_text("2 versions")


def test_the_shuttle_and_the_steps(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    reviewed(visit, visit.live.made(key, "Noon"))
    keys = visit.page.keyboard
    visit.page.locator("main").focus()
    shown(visit, 12)
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    keys.press("ArrowLeft")
    until(visit, lambda frame: frame == 13)
    keys.press("Shift+ArrowLeft")
    keys.down("k")
    for _ in range(3):
        keys.press("l")
    keys.press("j")
    keys.up("k")
    visit.page.wait_for_timeout(300)
    assert frame_of(visit) == 5
    visit.sees(version=5)
    keys.press("j")
    until(visit, lambda frame: frame < 4)
    keys.press("k")
    shown(visit, 4)
    keys.press("l")
    keys.press("l")
    expect(visit.page.get_by_text("2×", exact=True).last).to_be_visible()
    assert visit.page.locator("wa-reel video").evaluate("(video) => video.playbackRate") == 2
    until(visit, lambda frame: frame > 8)
    keys.press("k")
    visit.page.wait_for_timeout(300)
    visit.sees(version=frame_of(visit))
    keys.press("End")
    until(visit, lambda frame: frame == FRAMES - 1)
    keys.press("j")
    keys.press("j")
    until(visit, lambda frame: frame == 0)
    keys.press(" ")
    until(visit, lambda frame: frame > 2)
    assert visit.page.locator("wa-reel video").evaluate("(video) => video.playbackRate") == 1
    keys.press(" ")
    keys.press("?")
    expect(visit.page.get_by_role("heading", name="Shortcuts")).to_be_visible()


def test_a_comment_by_keyboard_alone(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    shot = reviewed(visit, visit.live.made(key, "Noon"))
    keys = visit.page.keyboard
    visit.page.locator("main").focus()
    keys.press("ArrowRight")
    keys.press("i")
    expect(visit.page.get_by_label("Comment at frame 2")).to_be_focused()
    shown(visit, 4)
    expect(visit.page.get_by_label("Comment at frame 5")).to_be_focused()
    shown(visit, 1)
    keys.type("jkl look here")  # letters are letters
    visit.button("Set a point").focus()
    keys.press("Enter")
    visit.page.get_by_role("button", name="The point of your comment").focus()
    for _ in range(5):
        keys.press("ArrowRight")
    keys.press("Shift+ArrowUp")
    visit.page.get_by_label("Comment at frame 2").press("Control+Enter")
    expect(visit.page.locator(".note-of")).to_have_count(1)
    visit.button("Answer").focus()
    keys.press("Enter")
    keys.type("Seen.")
    keys.press("Tab")
    keys.press("Enter")
    expect(visit.page.locator(".answers")).to_contain_text("Seen.")
    visit.page.get_by_label("Resolved").focus()
    keys.press(" ")
    expect(visit.page.get_by_text("Resolved by").first).to_be_visible()
    keys.press("Escape")
    visit.page.locator("main").focus()
    keys.press("End")
    keys.press("p")
    until(visit, lambda frame: frame == 1)
    with visit.live.http(key) as client:
        (comment,) = client.get(f"/v1/shots/{shot}").json()["comments"]
    assert (comment["text"], comment["frame"], comment["x"], comment["y"]) == ("jkl look here", 1, 0.55, 0.45)
    assert comment["resolved"] is not None


def test_a_guest_sees_one_shot_and_nothing_else(visit: Visit, other: Visit, live: Playhouse, actor: Actor) -> None:
    key = visit.sign_in("ann")
    shot = reviewed(visit, live.made(key, "Noon"))
    hidden = live.made(key, "Hidden")
    visit.button("Invite guests").click()
    visit.page.get_by_label("For whom").fill("Client")
    visit.page.get_by_label("Guests may").select_option(label="look, comment and decide")
    visit.button("Make a link").click()
    link = visit.page.get_by_label("The new link").input_value()
    expect(visit.page.get_by_role("button", name="Revoke the link for Client")).to_be_visible()
    other.page.goto(link)
    expect(other.page.get_by_role("heading", name="Noon")).to_be_visible()
    other.page.get_by_label("Your name").fill("Gil")
    other.button("Look at it").click()
    expect(other.page.locator("wa-reel video")).to_be_visible()
    expect(other.page.get_by_role("navigation")).to_have_count(0)
    expect(other.page.get_by_role("button", name="Invite guests")).to_have_count(0)
    shown(other, 11)
    other.sees(version=11)
    other.page.keyboard.press("i")
    other.page.get_by_label("Comment at frame 12").fill("From the client.")
    other.button("Send").click()
    expect(other.page.locator(".note-of")).to_contain_text("Gil guest")
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator(".note-of")).to_contain_text("From the client.")
    other.button("Approve").click()
    other.button("Approve").click()
    expect(visit.page.get_by_role("list", name="Decisions")).to_contain_text("Gil guest approved version 1")
    assert other.faults() == []
    for width in WIDTHS:
        other.page.set_viewport_size({"width": width, "height": 900})
        assert other.overflow() <= 0, width
    answers = other.page.evaluate(
        """async (paths) => Promise.all(paths.map(async (path) => (await fetch(path)).status))""",
        ["/v1/jobs", f"/v1/jobs/{hidden}", f"/v1/shots/{shot}", "/v1/me", "/v1/events", f"/v1/guest/versions/{hidden}/video"],
    )  # fmt: skip
    assert answers == [401, 401, 401, 401, 401, 404]
    other.refusals = True
    other.said.clear()
    other.page.goto(f"{live.base}/#/jobs/{hidden}")
    expect(other.page.get_by_role("button", name="Sign in")).to_be_visible()
    other.page.goto(link)
    expect(other.page.locator("wa-reel video")).to_be_visible()
    with live.service.database.write() as session:
        row = session.query(GuestLink).filter_by(shot_id=shot).one()
        row.expires = now() - 1
    other.page.reload()
    expect(other.page.get_by_text("This link has expired or was revoked.")).to_be_visible()
    expect(other.page.locator("video")).to_have_count(0)


def test_exports_are_saved_and_can_be_read(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    shot = reviewed(visit, visit.live.made(key, "Noon"))
    with visit.live.http(key) as client:
        client.post(f"/v1/shots/{shot}/comments", json={"text": "=1", "frame": 16}).raise_for_status()
    found: dict[str, Path] = {}
    for name in ("JSON", "CSV", "EDL"):
        with visit.page.expect_download() as download:
            visit.page.get_by_role("link", name=f"Save the comments as {name}").click()
        found[name] = Path(download.value.path())
        assert download.value.suggested_filename == f"noon-v1.{name.lower()}"
    assert json.loads(found["JSON"].read_text())["comments"][0]["text"] == "=1"
    lines = found["CSV"].read_text(encoding="utf-8-sig").splitlines()
    assert "rate 15 frames/s" in lines[0]
    row = next(csv.DictReader(lines[1:]))
    assert (row["comment"], row["in"], row["out"], row["colour"]) == ("'=1", "16", "17", "Red")
    assert re.search(
        r"00:00:01:01 00:00:01:02 01:00:01:01 01:00:01:02\n \|C:ResolveColorRed \|M:.*: =1 \|D:1",
        found["EDL"].read_text(),
    )


def test_a_version_is_handed_off(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    shot = reviewed(visit, visit.live.made(key, "Noon"))
    with visit.live.http(key) as client:
        client.post(f"/v1/shots/{shot}/comments", json={"text": "Too dark", "frame": 4}).raise_for_status()
    with visit.page.expect_download() as download:
        visit.button("Hand off").click()
    assert download.value.suggested_filename == "Noon_v001.zip"
    expect(visit.page.get_by_text("Noon_v001.zip is saved.")).to_be_visible()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = {name.removeprefix("Noon_v001/") for name in archive.namelist()}
        assert {"Noon_v001.review.mp4", "Noon_v001.otio", "Noon_v001.fcpxml", "Noon_v001.sha256"} <= names
        assert "|M:" in archive.read("Noon_v001/Noon_v001.markers.edl").decode()


def free(route: Route) -> None:
    """Answer that no version is held."""
    said = route.fetch().json()
    for one in said["versions"]:
        one["approval"] |= {"held": False, "missing": []}
    route.fulfill(json=said)


def test_what_may_not_leave_is_told(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    visit.page.route(
        "**/v1/shots/shot_*", free
    )  # something else than an approval may be missing, which only the gate sees
    reviewed(visit, visit.live.made(key, "Noon", mode="replacement"))
    visit.button("Hand off").click()
    told = visit.page.locator(".toast.error")
    expect(told).to_contain_text("replacement needs an approval")
    expect(told).to_contain_text("Approve this version first.")
    expect(visit.button("Hand off")).to_be_enabled()
    visit.said.clear()  # the refusal is in the browser's log


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_a_review(
    browser: Browser, live: Playhouse, actor: Actor, tmp_path: Path, scheme: str
) -> None:
    with Visit(browser, live, tmp_path, color_scheme=scheme) as visit:
        key = visit.sign_in()
        job = live.made(key, "Noon")
        with live.http(key) as client:
            shot = client.post("/v1/shots", json={"job": job}).json()["id"]
            for frame in (3, 4, 20):
                client.post(f"/v1/shots/{shot}/comments", json={"text": "Here", "frame": frame, "x": 0.4, "y": 0.5})
            client.post(f"/v1/shots/{shot}/decisions", json={"state": "changes_asked", "reason": "No."})
            one = client.get(f"/v1/shots/{shot}").json()["comments"][0]["id"]
            client.patch(f"/v1/shots/{shot}/comments/{one}", json={"resolved": True})
            client.post(f"/v1/shots/{shot}/comments/{one}/replies", json={"text": "Done"})
        found: dict[str, list[str]] = {}

        def look(name: str) -> None:
            visit.page.wait_for_timeout(250)
            found[name] = visit.faults()
            for width in WIDTHS if scheme == "light" else ():
                visit.page.set_viewport_size({"width": width, "height": 900})
                if visit.overflow() > 0:
                    found[name].append(f"{visit.overflow()} pixels too wide at {width}")
            visit.page.set_viewport_size({"width": 1440, "height": 900})

        visit.open("review")
        visit.title("Review")
        look("list")
        visit.open(f"review/{shot}")
        visit.title("Noon")
        shown(visit, 4)
        look("shot")
        visit.button("Comment at this frame").click()
        visit.button("Draw").click()
        look("writing")
        visit.button("Cancel").click()
        visit.button("Approve").click()
        look("deciding")
        visit.button("Invite guests").click()
        visit.button("Make a link").click()
        expect(visit.page.get_by_label("The new link")).to_be_visible()
        look("inviting")
        visit.page.keyboard.press("Escape")
        visit.button("Shortcuts").click()
        look("shortcuts")
        assert {name: faults for name, faults in found.items() if faults} == {}


def test_the_same_again_is_the_next_version(visit: Visit, actor: Actor) -> None:
    """Unless another clip or character is chosen."""
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    for i in range(2):
        visit.open(f"start?from={job}")
        expect(visit.page.get_by_text("are filled in")).to_be_visible()
        if i:
            visit.page.get_by_role("button", name="Change").first.click()
            visit.page.get_by_role("button", name="Example character 1").click()
        visit.button("Make it").click()
        visit.page.wait_for_url(re.compile("#/jobs/"))
        expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    with visit.live.http(key) as client:
        rows = client.get("/v1/shots").json()["data"]
    assert sorted(row["versions"] for row in rows) == [1, 2]


def test_the_same_again_of_a_job_that_is_gone_begins_anew(visit: Visit, actor: Actor) -> None:
    visit.refusals = True  # the first try is refused
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    visit.open(f"start?from={job}")
    expect(visit.page.get_by_text("are filled in")).to_be_visible()
    with visit.live.http(key) as client:
        client.delete(f"/v1/jobs/{job}").raise_for_status()
    visit.button("Make it").click()
    visit.page.wait_for_url(re.compile("#/jobs/"))
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()


def test_a_shot_is_named_and_put_into_a_project(visit: Visit, actor: Actor) -> None:
    """Who has a key sees the project; an empty one takes the shot out of it."""
    key = visit.sign_in()
    reviewed(visit, visit.live.made(key, "Noon"))
    head = visit.page.locator("wa-review .head")
    for project in ("Spring campaign", ""):
        visit.button("Rename").click()
        visit.page.get_by_label("Name of the shot").fill("Scene 12")
        visit.page.get_by_label("Project").fill(project)
        assert visit.faults() == []
        visit.button("Save").click()
        visit.title("Scene 12")
        expect(head.get_by_text("Spring campaign")).to_have_count(int(bool(project)))
    visit.page.set_viewport_size({"width": 390, "height": 900})
    visit.button("Rename").click()
    assert visit.overflow() <= 0
