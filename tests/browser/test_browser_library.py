"""The library: two shelves, searched and filtered, previews that play, used in a job, approved; each sees their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from consents_made import consent, limit
from playwright.sync_api import Browser, Page, expect
from stage import Actor, Playhouse, clip, picture
from visit import Visit

from wanimate.library import places
from wanimate.library.entries import About, File
from wanimate.library.names import HOUSE

SUBMIT = ("submit", "read")
_tints: dict[str, int] = {}


def put(live: Playhouse, owner: str, name: str, shelf: Any = "clip", approve: bool = False, **said: Any) -> str:
    """An entry that was looked into: a clip of 2 s, or a picture. Returns its id."""
    tint = _tints.setdefault(f"{owner}/{name}", len(_tints))
    colour = (40 + 37 * tint % 170, 60 + 61 * tint % 150, 90 + 23 * tint % 120)
    data, suffix = (clip(colour), ".mp4") if shelf == "clip" else (picture(colour), ".png")
    content = f"{tint:064x}"
    storage = live.service.storage
    storage.put(places.beside(content, places.POSTER), [picture(colour)])
    storage.put(places.beside(content, places.PREVIEW), [clip(colour)])
    file = File(shelf, f"{name}{suffix}", suffix, content, len(data), [data])
    values: dict[str, Any] = {"width": 160, "height": 96}
    if shelf == "clip":
        loop = {"start": 3, "stop": 27, "seam": 0.2}
        values |= {"seconds": 2.0, "fps": "15", "people": 1, "loop": loop}
    entry = live.service.library.add(owner, file, About(name=name, **said), values)
    if approve:
        live.service.library.decide(entry.id, "approved", "mia")
    return entry.id


def owner_of(visit: Visit) -> str:
    return visit.page.locator(".owner").inner_text()


@pytest.fixture
def stocked(visit: Visit) -> Visit:
    """Signed in, with three clips and a character of their own."""
    visit.sign_in()
    owner = owner_of(visit)
    put(
        visit.live,
        owner,
        "wave-03",
        title="Slow wave",
        kind="dance-loop",
        tags=["slow", "arms"],
        licence="CC0-1.0",
        approve=True,
    )
    put(visit.live, owner, "news", title="News at six", kind="presenter", tags=["desk", "slow"])
    put(visit.live, owner, "nod", title="Nod", kind="expression")
    put(visit.live, owner, "hero", "character", title="Red hero", licence="LicenseRef-house")
    visit.open("library")
    expect(visit.page.locator(".shelf article")).to_have_count(3)
    return visit


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, live: Playhouse, tmp_path: Path, scheme: str) -> None:
    with Visit(browser, live, tmp_path, color_scheme=scheme) as visit:
        visit.sign_in()
        visit.open("library")
        visit.title("Library")
        expect(visit.page.get_by_role("heading", name="No clips yet")).to_be_visible()
        found = {"empty": visit.faults()}
        owner = owner_of(visit)
        for i in range(26):
            title = f"A clip with a long title that says much {i}"
            put(live, owner, f"clip-{i}", title=title, kind="dance-loop", tags=["slow", f"t{i}"])
        live.service.library.decide(put(live, owner, "done", licence="CC0-1.0"), "retired", "mia")
        put(live, owner, "hero", "character")
        visit.page.reload()
        expect(visit.page.locator(".shelf article")).to_have_count(24)
        found["clips"] = visit.faults()
        for width in (390, 768, 1440, 3840):
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert visit.overflow() <= 0, width
        visit.page.set_viewport_size({"width": 1440, "height": 900})
        visit.page.get_by_role("button", name="Edit: ").first.click()
        found["edit"] = visit.faults()
        visit.page.get_by_role("dialog").get_by_role("button", name="Close").click()
        visit.button("Add a clip").click()
        found["add"] = visit.faults()
        visit.open("library?shelf=character")
        expect(visit.page.locator(".shelf article")).to_have_count(1)
        found["characters"] = visit.faults()
        visit.open("start")
        visit.button("From the library").last.click()
        expect(visit.page.get_by_role("dialog", name="Choose a clip").get_by_role("listitem")).to_have_count(26)
        found["picker"] = visit.faults()
        assert {where: faults for where, faults in found.items() if faults} == {}


def test_an_entry_shows_the_consents_for_its_file(stocked: Visit) -> None:
    page, owner = stocked.page, owner_of(stocked)
    page.get_by_role("button", name="Edit: Nod").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("No consent is known of this file.")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    entry = stocked.live.service.library.find("nod", owner)
    assert entry is not None
    consents = stocked.live.service.consents
    consents.add(consent(limit("spatial", "eq", "EU"), uid=f"urn:{owner}:1", asset=entry.sha256), owner, owner)
    long = f"urn:{owner}:of-a-house-with-a-name-that-is-longer-than-a-telephone-is-wide"
    consents.add(consent(uid=long, asset=entry.sha256, expires="2026-06-30T00:00:00Z"), owner, owner)
    page.get_by_role("button", name="Edit: Nod").click()
    found = dialog.get_by_role("list", name="Consents for this file").get_by_role("listitem")
    expect(found).to_have_count(2)
    expect(found.first).to_contain_text("Expired")
    expect(found.last).to_contain_text("Valid")
    expect(found.last).to_contain_text("use in EU")
    assert stocked.faults() == []
    page.set_viewport_size({"width": 390, "height": 900})
    cut = "codes => codes.filter((code) => getComputedStyle(code).textOverflow === 'ellipsis').length"
    assert found.locator("code").evaluate_all(cut) == 0
    assert stocked.overflow() <= 0
    page.set_viewport_size({"width": 1440, "height": 900})
    dialog.get_by_label("Consent records").fill(f"urn:{owner}:1, urn:nobody")
    stocked.refusals = True
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("there is no such consent")
    expect(dialog.get_by_label("Consent records")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_label("Consent records").fill(f"urn:{owner}:1")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Nod is saved.")).to_be_visible()


def test_search_while_typing_tags_and_status(stocked: Visit) -> None:
    page = stocked.page
    page.get_by_role("searchbox", name="Search").press_sequentially("sl")
    expect(page.locator(".shelf article")).to_have_count(2)
    expect(page.get_by_text("2 entries")).to_be_visible()
    tags = page.get_by_role("group", name="Tags")
    tags.get_by_role("button", name="desk").click()
    expect(page.locator(".shelf h2")).to_have_text(["News at six"])
    expect(tags.get_by_role("button", name="desk")).to_have_attribute("aria-pressed", "true")
    tags.get_by_role("button", name="desk").click()
    page.get_by_role("combobox", name="Status").select_option("approved")
    expect(page.locator(".shelf h2")).to_have_text(["Slow wave"])
    page.get_by_role("combobox", name="Kind").select_option("expression")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("link", name="Characters").click()
    expect(page.locator(".shelf h2")).to_have_text(["Red hero"])


def test_a_preview_plays_while_it_is_pointed_at_or_has_the_focus(
    browser: Browser, live: Playhouse, tmp_path: Path
) -> None:
    with Visit(browser, live, tmp_path, reduced_motion="no-preference") as visit:
        visit.sign_in()
        put(live, owner_of(visit), "wave", title="Wave")
        visit.open("library")
        button = visit.page.get_by_role("button", name="Preview of Wave")
        video = button.locator("video")
        expect(button.locator("img")).to_be_visible()
        expect(video).to_have_count(0)
        button.hover()
        expect(video).to_have_class("runs")
        runs = "() => [...document.querySelectorAll('video.runs')].some((video) => video.muted && !video.paused)"
        visit.page.wait_for_function(runs)
        visit.page.mouse.move(2, 2)
        expect(video).to_have_count(0)
        button.focus()
        expect(video).to_have_class("runs")
        visit.page.keyboard.press("Tab")
        expect(video).to_have_count(0)


def test_nothing_moves_by_itself_for_who_wants_less_motion(stocked: Visit) -> None:
    button = stocked.page.get_by_role("button", name="Preview of Nod")
    button.hover()
    button.focus()
    stocked.page.wait_for_timeout(200)
    expect(button.locator("video")).to_have_count(0)
    button.press("Enter")
    expect(button.locator("video")).to_have_class("runs")
    button.press("Enter")
    expect(button.locator("video")).to_have_count(0)


def test_two_people_do_not_see_each_others(stocked: Visit, other: Visit) -> None:
    put(stocked.live, HOUSE, "house-clip", title="For everybody", tags=["shared"])
    other.sign_in(scopes=SUBMIT)
    other.open("library")
    expect(other.page.locator(".shelf h2")).to_have_text(["For everybody"])
    expect(other.page.get_by_role("group", name="Tags").get_by_role("button")).to_have_count(1)
    other.page.get_by_role("searchbox", name="Search").fill("wave")
    expect(other.page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    assert "Slow wave" not in other.page.content()
    other.page.get_by_role("searchbox", name="Search").fill("every")
    expect(other.page.locator(".shelf h2")).to_have_text(["For everybody"])
    for name in ("Edit", "Approve"):
        expect(other.page.get_by_role("button", name=re.compile(f"^{name}: "))).to_have_count(0)
    stocked.live.service.library.remove(_id(stocked.live, "house-clip"))


def _id(live: Playhouse, name: str) -> str:
    entry = live.service.library.find(name, None)
    assert entry is not None
    return entry.id


def test_clip_and_character_are_used_in_a_job(stocked: Visit, actor: Actor) -> None:
    page = stocked.page
    stocked.button("Use in a job: Slow wave").click()
    stocked.title("Make a character perform")
    expect(page.locator("wa-source", has_text="Slow wave").locator("video")).to_be_visible()
    stocked.button("From the library").click()
    dialog = page.get_by_role("dialog", name="Choose a character")
    dialog.get_by_role("searchbox").fill("red")
    dialog.get_by_role("button", name="Red hero").click()
    expect(page.locator("wa-source", has_text="Red hero").locator("img")).to_be_visible()
    expect(page.get_by_text("2 people were found")).to_be_visible()
    expect(page.get_by_text("Fits")).to_be_visible()
    page.reload()
    expect(page.locator("wa-source", has_text="Slow wave").locator("video")).to_be_visible()
    stocked.button("Make it").click()
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    asked = actor.asked[-1]
    assert (asked["image"]["library"], asked["video"]["library"]) == ("hero", "wave-03")
    page.get_by_role("link", name="Same again with").click()
    for title, media in (("Slow wave", "video"), ("Red hero", "img")):
        expect(page.locator("wa-source", has_text=title).locator(media)).to_be_visible()


def test_a_clip_is_added_with_what_is_said_of_it(visit: Visit, actor: Actor, tmp_path: Path) -> None:
    visit.sign_in()
    visit.open("library")
    page = visit.page
    page.locator(".head").get_by_role("button", name="Add a clip").click()
    dialog = page.get_by_role("dialog", name="Add a clip")
    path = tmp_path / "wave at noon.mp4"
    path.write_bytes(clip((30, 160, 90)))
    expect(dialog.get_by_role("button", name="Add", exact=True)).to_be_disabled()
    dialog.get_by_label("File: choose one").set_input_files(path)
    dialog.get_by_label("Tags").fill("Slow, arms")
    dialog.get_by_label("Kind").select_option("dance-loop")
    dialog.get_by_label("Licence").fill("mine")
    visit.refusals = True
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("no licence that SPDX lists")
    expect(dialog.get_by_label("Licence")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_label("Licence").fill("cc-by-4.0")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".shelf h2")).to_have_text(["wave at noon"])
    expect(page.get_by_text("#arms #slow")).to_be_visible()
    expect(page.locator(".shelf article")).not_to_contain_text("Looking into the file")
    entry = visit.live.service.library.find("wave-at-noon", owner_of(visit))
    assert entry is not None
    assert (entry.licence, entry.kind, entry.tags, entry.width) == ("CC-BY-4.0", "dance-loop", ["arms", "slow"], 160)


def test_an_admin_approves_changes_and_removes_by_keyboard_alone(stocked: Visit) -> None:
    """Approve without a licence is refused; the licence is written into the form; then it is approved and removed."""
    page, press = stocked.page, stocked.page.keyboard.press
    stocked.refusals = True
    reach(page, "Approve: News at six")
    press("Enter")
    expect(page.locator(".toast.error")).to_contain_text("licence")
    reach(page, "Edit: News at six")
    press("Enter")
    dialog = page.get_by_role("dialog", name="Edit entry")
    expect(dialog.get_by_label("Title")).to_have_value("News at six")
    reach(page, "Licence", "input")
    page.keyboard.type("CC0-1.0")
    press("Enter")
    expect(dialog).to_be_hidden()
    reach(page, "Approve: News at six")
    press("Enter")
    expect(page.get_by_text("News at six is approved.")).to_be_visible()
    reach(page, "Edit: News at six")
    press("Enter")
    reach(page, "Remove")
    press("Enter")
    expect(dialog.get_by_text("Remove it with its file?")).to_be_visible()
    reach(page, "Remove")
    press("Enter")
    expect(page.locator(".shelf article")).to_have_count(2)
    expect(page.locator(".shelf h2", has_text="News at six")).to_have_count(0)


def reach(page: Page, name: str, kind: str = "button") -> None:
    """Tab until a control of this name has the focus."""
    for _ in range(90):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => {
                const one = document.activeElement;
                const label = one.closest('label')?.querySelector('span')?.textContent;
                return [one.localName, one.getAttribute('aria-label') ?? label ?? one.textContent.trim()];
            }"""
        )
        if told == [kind, name]:
            return
    raise AssertionError(f"the keyboard does not reach {name}")


def test_pages_of_many(visit: Visit) -> None:
    visit.sign_in()
    owner = owner_of(visit)
    for i in range(30):
        put(visit.live, owner, f"clip-{i:02}")
    visit.open("library")
    page = visit.page
    expect(page.get_by_text("1–24 of 30")).to_be_visible()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("25–30 of 30")).to_be_visible()
    expect(page.locator(".shelf article")).to_have_count(6)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".shelf article")).to_have_count(24)
