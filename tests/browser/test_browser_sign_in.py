"""Signing in and out, and that owners see nothing of each other."""

from __future__ import annotations

from playwright.sync_api import expect
from stage import ADMIN, Actor
from visit import Visit


def test_a_key_once_then_a_cookie_that_scripts_cannot_read(visit: Visit) -> None:
    key = visit.sign_in()
    (cookie,) = visit.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
    assert key not in cookie["value"]
    assert visit.page.evaluate("document.cookie") == ""
    kept = visit.page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert "wan_" not in kept
    visit.page.reload()
    visit.title("Make a character perform")


def test_a_wrong_key_is_told_and_the_field_keeps_the_focus(visit: Visit) -> None:
    visit.refusals = True
    visit.open("")
    visit.page.get_by_label("Key").fill("wan_nobody")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_have_text("There is no such key, or it was revoked.")
    expect(visit.page.get_by_label("Key")).to_be_focused()
    assert visit.faults() == []


def test_signing_out_ends_the_session_itself(visit: Visit) -> None:
    visit.sign_in()
    (cookie,) = visit.context.cookies()
    visit.button("Sign out").click()
    expect(visit.page.get_by_label("Key")).to_be_visible()
    visit.context.add_cookies([cookie])
    visit.page.reload()
    expect(visit.page.get_by_label("Key")).to_be_visible()


def test_a_revoked_key_shuts_its_page_out(visit: Visit) -> None:
    visit.refusals = True
    visit.sign_in("gone")
    (row,) = visit.live.service.keys.list("gone")
    visit.live.service.keys.revoke(row.id)
    visit.open("jobs")
    expect(visit.page.get_by_label("Key")).to_be_visible()


def test_the_link_of_the_studio_signs_in_once(visit: Visit, other: Visit) -> None:
    other.refusals = True
    caller = visit.live.service.keys.find(visit.live.key("admin", scopes=ADMIN))
    assert caller is not None
    token = visit.live.service.sessions.link(caller.key_id)
    visit.page.goto(f"{visit.live.base}/#link={token}")
    visit.title("Make a character perform")
    assert token not in visit.page.url
    other.page.goto(f"{visit.live.base}/#link={token}")
    expect(other.page.get_by_role("alert")).to_have_text("The link was used already, or is too old.")


def test_two_people_do_not_see_each_other(visit: Visit, other: Visit, actor: Actor) -> None:
    other.refusals = True
    ann, ben = visit.sign_in("ann-b"), other.sign_in("ben-b", scopes=("submit", "read"))
    job = visit.live.made(ann, "Secret dance")
    visit.open("jobs?show=all")
    expect(visit.page.get_by_role("link", name="Secret dance")).to_be_visible()
    other.open("jobs?show=all")
    expect(other.page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    other.open(f"jobs/{job}")
    expect(other.page.get_by_role("alert")).to_contain_text("There is no such job")
    with visit.live.http(ben) as client:
        assert client.get(f"/v1/jobs/{job}").status_code == 404
    assert "Secret" not in other.page.content()
