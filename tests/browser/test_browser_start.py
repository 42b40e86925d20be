"""From files to a finished video."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from stage import FRAMES, Actor, clip, picture
from visit import Visit


def give(visit: Visit, part: str, name: str, kind: str, data: bytes) -> None:
    files = [{"name": name, "mimeType": kind, "buffer": data}]
    visit.page.get_by_label(f"{part}: choose one").set_input_files(files)  # type: ignore[arg-type]


def give_both(visit: Visit) -> None:
    give(visit, "Character", "hero.png", "image/png", picture((200, 120, 80)))
    give(visit, "Performer", "dance.mp4", "video/mp4", clip((70, 90, 110)))


@pytest.mark.parametrize("mode", ["Animation", "Replacement"])
def test_from_submit_to_download(visit: Visit, actor: Actor, tmp_path: Path, mode: str) -> None:
    key = visit.sign_in()
    give_both(visit)
    visit.page.get_by_role("radio", name=mode).check()
    expect(visit.page.get_by_text("2 people were found")).to_be_visible()
    visit.page.get_by_role("radio", name="Person 2").check()
    visit.page.get_by_label("Seed").fill("5")
    visit.page.get_by_label("Steps").fill("4")
    expect(visit.page.get_by_text("Fits, about 3 min")).to_be_visible()
    visit.button("Make it").click()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("link", name="Download").click()
    path = tmp_path / "saved.mp4"
    saved.value.save_as(path)
    assert path.read_bytes().startswith(clip((160, 80, 120), FRAMES))
    asked = next(one for one in actor.asked if one["kind"] == "animate")
    assert (asked["mode"], asked["preprocess"]["person"]) == (mode.lower(), "2")
    assert asked["generate"] == {"seed": 5, "steps": 4}
    with visit.live.http(key) as client:
        assert client.get("/v1/jobs").json()["total"] == 1


def test_a_bad_file_is_refused_with_what_to_do(visit: Visit) -> None:
    visit.refusals = True
    visit.sign_in()
    give(visit, "Character", "notes.txt", "text/plain", b"no picture")
    expect(visit.page.get_by_role("alert")).to_have_text("This is no picture. Choose a PNG, JPEG or WebP file.")
    give(visit, "Character", "hero.png", "image/png", b"this only calls itself a picture")
    expect(visit.page.get_by_role("alert")).to_contain_text("no picture and no clip of a known kind")
    expect(visit.button("Make it")).to_be_disabled()
    give(visit, "Character", "hero.png", "image/png", picture((1, 2, 3)))
    expect(visit.page.get_by_role("alert")).to_have_count(0)
    expect(visit.page.get_by_alt_text("hero.png")).to_be_visible()


def test_a_file_that_is_too_large_is_not_even_sent(visit: Visit) -> None:
    visit.sign_in()
    visit.page.route(
        "**/v1/models", lambda route: route.fulfill(json={**route.fetch().json(), "largest_upload": 10_000})
    )
    visit.page.reload()
    expect(visit.page.get_by_label("Seed")).to_be_visible()
    give(visit, "Performer", "dance.mp4", "video/mp4", bytes(20_000))
    expect(visit.page.get_by_role("alert")).to_have_text("This file has 20 KiB. The service takes 10 KiB at most.")


def test_a_refused_setting_is_told_beside_the_buttons(visit: Visit, actor: Actor) -> None:
    visit.refusals = True
    visit.sign_in()
    give_both(visit)
    visit.page.get_by_label("Size and rate").select_option("custom")
    visit.page.get_by_label("Width × height").fill("very large")
    visit.button("Make it").click()
    expect(visit.page.locator(".plan [role=alert]").last).to_contain_text("area")
    visit.page.get_by_label("Width × height").fill("480 × 272")
    visit.button("Make it").click()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    assert actor.asked[-1]["preprocess"]["area"] == "480x272"


def test_the_examples_are_one_click(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    visit.button("Example character 2").click()
    visit.button("Example performer").click()
    expect(visit.page.get_by_alt_text("character-2.png")).to_be_visible()
    expect(visit.button("Make it")).to_be_enabled()


def test_a_file_that_is_sent_while_the_view_still_loads_stays(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    late = []
    visit.page.route("**/v1/models", lambda route: late.append(route))
    visit.page.reload()
    give(visit, "Character", "hero.png", "image/png", picture((200, 120, 80)))
    expect(visit.page.get_by_alt_text("hero.png")).to_be_visible()
    late[0].continue_()
    expect(visit.page.get_by_label("Seed")).to_be_visible()
    visit.page.wait_for_timeout(300)
    expect(visit.page.get_by_alt_text("hero.png")).to_be_visible()


def test_files_that_are_not_kept_any_more_leave_the_form(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    give_both(visit)
    expect(visit.button("Make it")).to_be_enabled()
    with visit.live.http(key) as client:
        for sent in client.get("/v1/uploads").json()["data"]:
            if sent["media_type"] == "image/png":
                client.delete(f"/v1/uploads/{sent['id']}").raise_for_status()
    visit.refusals = True
    visit.page.reload()
    expect(visit.page.get_by_alt_text("hero.png")).to_have_count(0)
    expect(visit.button("Make it")).to_be_disabled()


def test_a_reload_keeps_what_was_chosen(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    give_both(visit)
    visit.page.get_by_label("Seed").fill("77")
    expect(visit.button("Make it")).to_be_enabled()
    visit.page.reload()
    expect(visit.page.get_by_alt_text("hero.png")).to_be_visible()
    expect(visit.page.get_by_label("Seed")).to_have_value("77")
    expect(visit.button("Make it")).to_be_enabled()


def test_the_same_again_with_another_seed(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon", generate={"seed": 5}, mode="replacement", preprocess={"person": "2"})
    visit.open(f"jobs/{job}")
    visit.page.get_by_role("link", name="Same again").click()
    expect(visit.page.get_by_text("Settings of Noon are filled in.")).to_be_visible()
    expect(visit.page.get_by_label("Seed")).to_have_value("5")
    expect(visit.page.get_by_role("radio", name="Replacement")).to_be_checked()
    visit.page.get_by_label("Seed").fill("6")
    visit.button("Make it").click()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    first, second = (one for one in actor.asked if one["kind"] == "animate")
    assert second["generate"] == {**first["generate"], "seed": 6}
    assert (second["image"], second["preprocess"]) == (first["image"], {"person": "2"})


def test_any_earlier_job_can_be_filled_in_on_the_form(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon", generate={"seed": 5}, mode="replacement")
    visit.live.made(key, "Dusk", generate={"seed": 8})
    visit.open("start")
    visit.page.reload()
    visit.page.get_by_label("Settings of an earlier job").select_option(job)
    expect(visit.page.get_by_text("Settings of Noon are filled in.")).to_be_visible()
    expect(visit.page.get_by_label("Seed")).to_have_value("5")


def test_by_keyboard_alone(visit: Visit, actor: Actor) -> None:
    """Everything from signing in to the frames of the result, without a mouse."""
    key = visit.live.key("keys-only")
    visit.open("")
    press = visit.page.keyboard.press
    expect(visit.page.get_by_label("Key")).to_be_focused()
    visit.page.keyboard.type(key)
    press("Enter")
    visit.title("Make a character perform")
    tab_to(visit, "Example character 1")
    press("Enter")
    tab_to(visit, "Example performer")
    press("Enter")
    expect(visit.button("Make it")).to_be_enabled()
    tab_to(visit, "Make it")
    press("Enter")
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    tab_to(visit, "Wipe")
    press("Enter")
    expect(visit.button("Wipe")).to_have_attribute("aria-pressed", "true")
    tab_to(visit, "Frame")
    for _ in range(3):
        press("ArrowRight")
    expect(visit.page.get_by_text(f"4 / {FRAMES}")).to_be_visible()


def tab_to(visit: Visit, name: str) -> None:
    """Press Tab until what is so called has the focus, which has to be seen."""
    asked = """() => { const seen = document.activeElement; return {
        name: seen.getAttribute('aria-label') ?? seen.textContent.trim(), outline: getComputedStyle(seen).outlineStyle } }"""
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(asked)
        if focused["name"] == name:
            assert focused["outline"] != "none"
            return
    raise AssertionError(f"Tab does not reach {name}")
