"""Before a GPU is used: the stretch of the clip, what there is to know of it, relighting, what it counts as."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, TimeoutError, expect
from stage import FPS, FRAMES, SIZE, Actor
from test_browser_start import give_both, tab_to
from test_browser_watch import shown
from visit import Visit


def handle(visit: Visit, name: str) -> Locator:
    return visit.page.get_by_role("slider", name=name)


FIRST, STOP = "First frame that is used", "End of what is used"


def found(kind: str, *spans: tuple[int, int], **more: Any) -> dict[str, Any]:
    spots = [{"first": a, "stop": b, "start": a / FPS, "end": b / FPS} for a, b in spans]
    return {"kind": kind, "text": f"the {kind}", "spans": spots, "count": None, "factor": None, **more}


def test_the_clip_is_trimmed_by_keys_and_by_dragging(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    actor.seconds = 6.0  # the clip's own two seconds could not be trimmed
    give_both(visit)
    expect(handle(visit, STOP)).to_have_value("90")
    handle(visit, FIRST).focus()
    for _ in range(3):
        visit.page.keyboard.press("ArrowRight")
    expect(handle(visit, FIRST)).to_have_attribute("aria-valuetext", "0.20 s, frame 4")
    reel = visit.page.locator(".reel").bounding_box()
    assert reel is not None
    y = reel["y"] + reel["height"] / 2
    visit.page.mouse.move(reel["x"] + reel["width"], y)
    visit.page.mouse.down()
    visit.page.mouse.move(reel["x"] + reel["width"] * 2 / 3, y, steps=5)
    visit.page.mouse.up()
    stop = int(handle(visit, STOP).input_value())
    assert abs(stop - 60) <= 1
    used = visit.page.get_by_text(f"are used, from 0.20 s to {stop / FPS:.2f} s: {stop - 3} frames.")
    expect(used).to_be_visible()
    expect(visit.page.get_by_text(f"Counts as {round(stop / FPS - 0.2, 1):g} s of video.")).to_be_visible()
    visit.page.reload()
    expect(handle(visit, STOP)).to_have_value(str(stop))
    visit.button("Make it").click()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    asked = next(one for one in actor.asked if one["kind"] == "animate")["preprocess"]
    assert (asked["start"], asked["end"]) == (3 / FPS, stop / FPS)
    visit.page.get_by_role("link", name="Same again").click()
    expect(handle(visit, FIRST)).to_have_value("3")
    visit.button("Use all of it").click()
    expect(handle(visit, STOP)).to_have_value("90")
    with visit.live.http(key) as client:
        assert client.get("/v1/jobs").json()["total"] == 1, "checks are no jobs of the list"


def test_nothing_can_be_changed_while_settings_are_filled_in(visit: Visit, actor: Actor) -> None:
    """They would undo it: the form shows an earlier draft until they are there."""
    visit.sign_in()
    actor.seconds = 6.0
    give_both(visit)
    handle(visit, FIRST).press("ArrowRight")
    visit.button("Make it").click()
    again = visit.page.get_by_role("link", name="Same again")
    expect(again).to_be_visible()
    job, lets_through = visit.page.url.rpartition("/")[2], Event()
    held: list[Route] = []
    visit.page.route(
        f"**/v1/jobs/{job}", lambda route: route.fallback() if lets_through.is_set() else held.append(route)
    )
    again.click()
    form = visit.page.locator("wa-start .start")
    expect(form).to_have_attribute("aria-busy", "true")
    expect(form).to_have_js_property("inert", True)
    expect(visit.page.locator("wa-trim .first")).to_have_value("1")  # the draft
    with pytest.raises(TimeoutError):
        visit.page.locator("wa-trim button").click(timeout=500)
    lets_through.set()
    for route in held:
        route.fallback()
    expect(form).to_have_js_property("inert", False)
    visit.button("Use all of it").click()
    expect(handle(visit, FIRST)).to_have_value("0")


def test_handles_do_not_cross_and_say_what_is_allowed(visit: Visit, actor: Actor) -> None:
    visit.refusals = True  # a stretch that is too short is no plan
    visit.sign_in()
    actor.seconds = 40.0
    give_both(visit)
    expect(handle(visit, STOP)).to_have_value(str(30 * FPS))  # the most that may be used is chosen at once
    handle(visit, STOP).press("End")
    expect(visit.page.get_by_text("At most 30 s can be used: move the handles.")).to_be_visible()
    handle(visit, FIRST).press("End")
    expect(handle(visit, FIRST)).to_have_value(str(40 * FPS - 1))
    expect(visit.page.get_by_text("At least 2 s are needed.")).to_be_visible()
    assert visit.faults() == []


def test_what_there_is_to_know_is_said_in_plain_words(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    actor.seconds = 6.0
    actor.findings = [
        found("nobody", (12, 20)), found("others", (0, 1), count=2), found("proportions", factor=1.62), found("hdr"),
        found("cuts", (40, 41)), found("character"), found("other", text="the clip has a frame of cheese"),
    ]  # fmt: skip
    give_both(visit)
    visit.page.get_by_role("radio", name="Replacement").check()
    said = visit.page.get_by_role("region", name="Before you start")
    for words in (
        "Nobody is seen for 0.5 s.", "Up to 2 other people are in the picture, too.",
        "are built differently: a limb by a factor of 1.6.", "The clip is HDR.", "The clip has 1 cut.",
        "No person is found in the picture of the character.", "The clip has a frame of cheese.",
    ):  # fmt: skip
        expect(said).to_contain_text(words)
    expect(visit.page.locator(".reel .gap")).to_have_count(1)
    said.get_by_role("button", name="Show frames 13 to 20").click()
    clip = visit.page.locator(".source video")
    clip.evaluate("(seen) => new Promise((fulfil) => seen.seeking ? seen.onseeked = fulfil : fulfil())")
    assert abs(clip.evaluate("(seen) => seen.currentTime") - 12.5 / FPS) < 0.01
    assert visit.faults() == []
    visit.page.set_viewport_size({"width": 390, "height": 900})
    assert visit.overflow() == 0


def test_it_is_looked_at_again_when_something_that_matters_changes(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    actor.seconds = 6.0
    give_both(visit)
    expect(visit.page.get_by_text("Picture and clip are fine")).to_be_visible()
    visit.page.get_by_label("Seed").fill("9")
    visit.page.get_by_role("radio", name="Person 2").check()
    expect(visit.page.get_by_text("Looking at every frame of the clip")).to_be_visible()
    expect(visit.page.get_by_text("Picture and clip are fine")).to_be_visible()
    persons = [one["preprocess"].get("person") for one in actor.asked if one["kind"] == "check"]
    assert persons == [None, "2"]


def test_relighting_is_shown_before_and_after(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    give_both(visit)
    visit.page.get_by_role("radio", name="Replacement").check()
    visit.page.get_by_label("Seed").fill("5")
    visit.button("Show before and after").click()
    expect(visit.page.get_by_alt_text("Without relighting")).to_be_visible()
    expect(visit.page.get_by_alt_text("With relighting")).to_be_visible()
    width = visit.page.get_by_alt_text("With relighting").evaluate(
        "(seen) => seen.decode().then(() => seen.naturalWidth)"
    )
    assert width == SIZE[0]
    expect(visit.page.get_by_text("160 × 96, 4 steps, seed 5.")).to_be_visible()
    assert visit.faults() == []
    with visit.live.http(key) as client:
        (job,) = client.get("/v1/jobs", params={"kind": "relight"}).json()["data"]
    assert job["priority"] == -10
    visit.page.get_by_label("Seed").fill("6")
    expect(visit.page.get_by_alt_text("With relighting")).to_have_count(0)
    visit.page.get_by_role("radio", name="Animation").check()
    expect(visit.button("Show before and after")).to_have_count(0)


def test_what_is_left_of_the_day_is_said(visit: Visit, actor: Actor) -> None:
    key = visit.live.key("short-of-time", scopes=("submit", "read"), quotas={"seconds_a_day": 100.0})
    visit.open("")
    visit.page.get_by_label("Key").fill(key)
    visit.button("Sign in").click()
    give_both(visit)
    visit.page.get_by_label("Size and rate").select_option("tier:wan-std")
    expect(visit.page.get_by_text("Counts as 2 s of video (wan-std); 100 s are left today.")).to_be_visible()


def test_guides_are_trimmed_and_another_person_is_followed(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "gaps", kind="preprocess", mode="replacement", preprocess={"start": 1.0})
    visit.open(f"guides/{job}")
    handle(visit, FIRST).focus()
    for _ in range(4):
        visit.page.keyboard.press("ArrowRight")
    handle(visit, STOP).press("ArrowLeft")
    expect(visit.page.get_by_text("1.67 s are used, from 1.27 s to 2.93 s: 25 frames.")).to_be_visible()
    expect(visit.page.locator(".reel .gap")).to_have_count(2)
    end = FRAMES - 2
    visit.sees(**dict.fromkeys(visit.numbers(), end))
    visit.page.get_by_text("Change something").click()
    visit.page.get_by_role("radio", name="Person 2").check()
    assert visit.faults() == []
    visit.button("Prepare again").click()
    expect(visit.button("Go on: make the video")).to_be_visible()
    assert job not in visit.page.url
    asked = actor.asked[-1]
    asked = [one for one in actor.asked if one["kind"] == "preprocess"][-1]
    assert asked["preprocess"] == {"start": 1 + 4 / FPS, "end": 1 + (FRAMES - 1) / FPS, "person": "2"}
    assert asked["name"] == "gaps"
    shown(visit, 3)


def test_a_mask_video_is_given_on_the_guides(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon", kind="preprocess", mode="replacement")
    visit.open(f"guides/{job}")
    tab_to(visit, "Change something")
    visit.page.keyboard.press("Enter")
    from stage import clip

    files = [{"name": "mask.mp4", "mimeType": "video/mp4", "buffer": clip((0, 0, 0))}]
    visit.page.get_by_label("Mask video: choose one").set_input_files(files)  # type: ignore[arg-type]
    expect(visit.page.get_by_text("You have changed something.")).to_be_visible()
    visit.button("Prepare again").click()
    expect(visit.button("Go on: make the video")).to_be_visible()
    assert [one for one in actor.asked if one["kind"] == "preprocess"][-1]["mask"]["upload"].startswith("file_")
