"""What the page says: frames counted as it counts them, refusals in its own words, policies beforehand, labels that differ."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Route, expect
from stage import FRAMES, Actor
from test_browser_start import give_both
from visit import Visit

from wanimate.preprocess.report import doubts, empty_masks, missing

FORMAT = "import(document.querySelector('script[type=module]').src.replace('main.js', 'format.js'))"


def changed(visit: Visit, address: str, **more: Any) -> None:
    """Have the service's answer at an address say something else, too."""
    visit.page.route(address, lambda route: route.fulfill(json={**route.fetch().json(), **more}))


def test_every_text_of_the_preprocessing_counts_from_one(visit: Visit) -> None:
    """Its words as they are written today: `frame 2, 6`, `3 of 12 frames (2, 6-7)`. Counts and other numbers stay."""
    visit.sign_in()
    flags = np.ones(12, bool)
    flags[[2, 6, 7]] = False
    sure = np.ones((12, 20, 3), np.float32)
    texts = [
        *doubts(sure, flags, ["other" if i in (2, 6) else "unsure" if i == 9 else "same" for i in range(12)]),
        missing(flags), empty_masks(~flags), "the clip is cut at frames 3, 11: the performer is looked for afresh",
        "33 frames of 96x96, 2 segments at 25 frames a second",
    ]  # fmt: skip
    found = visit.page.evaluate(f"async texts => {{ const m = await {FORMAT}; return texts.map(m.fromOne); }}", texts)
    told = "\n".join(found)
    assert "from frame 3, 7 on" in told
    assert "close to them in 1 of 12 frames (10)" in told
    assert "no person was found in 3 of 12 frames (3, 7-8)" in told
    assert "cut at frames 4, 12:" in told
    assert found[-1] == texts[-1]


def test_warnings_beside_the_guides_count_as_the_timeline(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    visit.open(f"guides/{visit.live.made(key, 'gaps', kind='preprocess')}")
    expect(visit.button("Show frames 6 to 9")).to_be_visible()
    expect(visit.page.get_by_text(f"no person was found in 5 of {FRAMES} frames (6-9, 21)")).to_be_visible()


def test_a_refusal_calls_the_field_as_the_page_does_and_stands_there_once(visit: Visit, actor: Actor) -> None:
    visit.refusals = True
    visit.sign_in()
    give_both(visit)
    visit.page.get_by_label("Steps").fill("0")
    refusal = visit.page.locator(".plan [role=alert]")
    expect(refusal).to_contain_text("Steps = 0:")
    with visit.page.expect_response("**/v1/jobs"):
        visit.button("Make it").click()
    expect(visit.button("Make it")).to_be_enabled()
    expect(refusal).to_have_count(1)


def test_what_was_left_out_is_not_called_none(visit: Visit) -> None:
    visit.sign_in()
    message = visit.page.evaluate(
        f"""async () => {{ const m = await {FORMAT.replace("format.js", "api.js")};
        const told = {{ field: 'licence', message: 'licence = None: nobody has said under which one. Say it.' }};
        return new m.ApiError(400, told).message; }}"""
    )
    assert message == "Licence: nobody has said under which one. Say it."


def test_that_only_approved_clips_may_be_used_is_said_beforehand(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    changed(visit, "**/v1/models", clips="approved")
    visit.page.reload()
    clip = visit.page.get_by_role("region", name="Performer")
    expect(clip.get_by_text("Only approved clips of the library may be used here.")).to_be_visible()
    expect(clip.get_by_role("button", name="From the library")).to_be_visible()
    expect(visit.page.get_by_label("Performer: choose one")).to_have_count(0)
    expect(visit.button("Example performer")).to_have_count(0)
    expect(visit.page.get_by_label("Character: choose one")).to_have_count(1)
    visit.open("library")
    expect(visit.page.get_by_text("Only approved clips of the library may be used here.")).to_be_visible()
    assert visit.faults() == []


def test_results_that_are_called_the_same_can_be_told_apart(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    made = [visit.live.made(key, "Noon") for _ in range(3)]
    with visit.live.http(key) as client:
        body = {"kind": "redraw", "parent": made[0], "segment": 1, "name": "Noon"}
        redrawn = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
        until = time.monotonic() + 10
        while client.get(f"/v1/jobs/{redrawn}").json()["state"] != "succeeded":
            assert time.monotonic() < until
            time.sleep(0.05)
    visit.open(f"jobs/{made[0]}")
    choices = visit.page.get_by_label("Compare with").locator("option")
    expect(choices).to_have_count(4)
    labels = choices.all_inner_texts()
    assert len(set(labels)) == 4
    assert any("redrawn segment" in label for label in labels)


def test_what_draws_nothing_anew_promises_no_preview(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    visit.live.made(key, "hold", wait=False)
    assert actor.holding.wait(10)
    visit.open(f"jobs/{job}")
    visit.button("Finish").click()
    expect(visit.page.get_by_text("Finished anew", exact=True)).to_be_visible()
    expect(visit.page.get_by_text("Waiting", exact=True)).to_be_visible()
    expect(visit.page.locator(".preview")).to_have_count(0)


def test_an_error_leaves_with_its_view(visit: Visit, actor: Actor) -> None:
    visit.refusals = True
    key = visit.sign_in()
    visit.open(f"jobs/{visit.live.made(key, 'Noon')}")
    visit.page.get_by_label("Segment").evaluate("(select) => (select.append(new Option('9')), select.value = '9')")
    visit.page.get_by_label("Segment").dispatch_event("change")
    visit.button("Redraw").click()
    expect(visit.page.locator(".toast.error")).to_be_visible()
    visit.open("review")
    expect(visit.page.locator(".toast.error")).to_have_count(0)


@pytest.mark.parametrize("kind", ["video/quicktime", "video/x-matroska", "application/zip"])
def test_formats_that_browsers_do_not_show_are_told(visit: Visit, actor: Actor, kind: str) -> None:
    """In a review and beside a result: not an empty player."""
    key = visit.sign_in()
    job, other = visit.live.made(key, "Noon"), visit.live.made(key, "Dusk")

    def answer(route: Route) -> None:
        said = route.fetch().json()
        for one in said.get("versions", []):
            one["media_type"] = kind
        for one in said.get("data", []):
            one["media_type"] = kind if one["name"] == "video" else one["media_type"]
        route.fulfill(json=said)

    visit.page.route("**/v1/shots/shot_*", answer)
    visit.page.route(f"**/v1/jobs/{other}/files", answer)
    visit.open(f"review/of/{job}")
    expect(visit.page.get_by_text("Browsers cannot show this format.")).to_be_visible()
    expect(visit.page.locator("wa-reel")).to_have_count(0)
    visit.open(f"jobs/{job}?with={other}")
    expect(visit.page.get_by_text("Browsers cannot show the format of what you compare with.")).to_be_visible()
    expect(visit.page.locator("video[data-track=other]")).to_have_count(0)
