"""Keys, workers and use."""

from __future__ import annotations

from playwright.sync_api import expect
from stage import Actor
from visit import Visit


def test_a_key_is_made_shown_once_and_revoked(visit: Visit, actor: Actor) -> None:
    visit.sign_in()
    visit.open("settings")
    visit.page.get_by_role("textbox", name="Owner").fill("studio guest")
    visit.page.get_by_label("Days until it expires").fill("30")
    visit.button("Create a key").click()
    field = visit.page.get_by_label("The new key")
    expect(field).to_be_visible()
    secret = field.input_value()
    caller = visit.live.service.keys.find(secret)
    assert caller is not None
    assert (caller.owner, caller.scopes) == ("studio guest", {"submit", "read"})
    visit.page.reload()
    expect(visit.page.get_by_role("cell", name="studio guest", exact=True)).to_be_visible()
    assert secret not in visit.page.content()
    visit.button("Revoke a key of studio guest").click()
    visit.page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(visit.page.get_by_role("cell", name="studio guest", exact=True)).to_have_count(0)
    assert visit.live.service.keys.find(secret) is None


def test_workers_and_disk_are_shown(visit: Visit, actor: Actor) -> None:
    visit.live.made(visit.sign_in(), "Noon")
    visit.open("settings")
    expect(visit.page.get_by_role("region", name="Workers")).to_contain_text("prepare, generate")
    expect(visit.page.get_by_text("GiB free")).to_be_visible()
    expect(visit.page.get_by_text("24 h", exact=True)).to_be_visible()
    expect(visit.page.locator(".tag", has_text="Done")).to_be_visible()


def test_who_is_no_admin_sees_only_what_is_theirs(visit: Visit) -> None:
    visit.sign_in(scopes=("submit", "read"))
    visit.open("settings")
    expect(visit.page.get_by_text("More settings are shown to keys with the scope admin.")).to_be_visible()
    expect(visit.button("Create a key")).to_have_count(0)
