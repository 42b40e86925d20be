"""Results that are held: looked at in the player, approved by two, fetched, revoked, taken back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect
from stage import ADMIN, Playhouse
from visit import Visit

WIDTHS = (390, 1440)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playhouse]:
    folder = tmp_path_factory.mktemp("held")
    (folder / "policy.toml").write_text("approvals = 2\n")
    with Playhouse(folder, policy=folder / "policy.toml") as found, found.acting():
        yield found


def kept(visit: Visit, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if os.environ.get("WANIMATE_LOOK"):
        for width in WIDTHS:
            visit.page.set_viewport_size({"width": width, "height": 900})
            visit.page.screenshot(path=Path(os.environ["WANIMATE_LOOK"]) / f"{name}-{width}.png", full_page=True)


def decided(visit: Visit, button: str, last: str) -> None:
    visit.button(button).click()
    visit.page.locator("wa-verdict form button.main", has_text=last).click()
    expect(visit.page.locator("wa-verdict form")).to_have_count(0)


def test_a_held_result_from_one_of_two_approvals_to_its_revocation(
    browser: Browser, house: Playhouse, tmp_path: Path
) -> None:
    with Visit(browser, house, tmp_path) as visit:
        key = visit.sign_in("ann")
        job = house.made(key, "Noon", mode="replacement")
        visit.open(f"jobs/{job}")
        expect(visit.page.locator("wa-player video").first).to_be_visible()
        expect(visit.page.get_by_text("Held until approved")).to_be_visible()
        expect(visit.page.get_by_role("link", name="Download")).to_have_count(0)
        kept(visit, "job")
        visit.open(f"review/of/{job}")
        visit.page.wait_for_url(re.compile("#/review/shot_"))
        expect(visit.page.locator("wa-reel video").first).to_have_js_property("readyState", 4)
        expect(visit.page.locator("wa-verdict").get_by_text("0 of 2 approvals", exact=True)).to_be_visible()
        decided(visit, "Approve", "Approve")
        expect(visit.page.locator("wa-verdict").get_by_text("1 of 2 approvals", exact=True)).to_be_visible()
        expect(visit.page.locator("wa-verdict .tag.needs_review")).to_be_visible()
        assert visit.faults() == []
        kept(visit, "one-of-two")
        shot = visit.page.url.rpartition("/")[2]
        other = house.key("ann", scopes=ADMIN)
        with house.http(other) as client:
            client.post(f"/v1/shots/{shot}/decisions", json={"state": "approved"}).raise_for_status()
            expect(visit.page.locator("wa-verdict .tag.approved")).to_be_visible()
            files = client.get(f"/v1/jobs/{job}/files").json()["data"]
            client.get(next(one["url"] for one in files if one["name"] == "video")).raise_for_status()
        visit.open(f"jobs/{job}")
        expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
        visit.open(f"review/{shot}")
        expect(visit.page.locator("wa-gone .tag.left")).to_be_visible()
        decided(visit, "Revoke", "Revoke")
        expect(visit.page.locator("wa-gone .tag.to_be_taken_back")).to_be_visible()
        expect(visit.page.locator("wa-verdict").get_by_text("Held until approved")).to_be_visible()
        assert visit.faults() == []
        kept(visit, "revoked")
        visit.page.get_by_role("button", name="It is taken back: by ann").click()
        expect(visit.page.locator("wa-gone .tag.taken_back")).to_be_visible()


@pytest.mark.parametrize("kind", ["video/mp4", "video/quicktime"])
def test_nothing_is_offered_of_a_held_result_that_would_be_refused(
    browser: Browser, house: Playhouse, tmp_path: Path, kind: str
) -> None:
    """Neither a file of it nor a package; nor is one told to download what cannot be."""

    def answer(route: Route) -> None:
        said = route.fetch().json()
        rows = said.get("data", said.get("versions"))
        for one in rows:
            one["media_type"] = kind if "versions" in said or one["name"] == "video" else one["media_type"]
        if "data" in said:
            sheet = next(one for one in rows if one["name"] == "sheet")
            rows += [{**sheet, "name": name} for name in ("xmp", "c2pa")]
        route.fulfill(json=said)

    with Visit(browser, house, tmp_path) as visit:
        job = house.made(visit.sign_in("ann"), f"Noon as {kind}", mode="replacement")
        visit.page.route(f"**/v1/jobs/{job}/files", answer)
        visit.page.route("**/v1/shots/shot_*", answer)
        visit.open(f"jobs/{job}")
        expect(visit.page.get_by_text("Held until approved")).to_be_visible()
        links = visit.page.locator("wa-compare .head a[download]")
        expect(links).to_have_text(["Record"])
        told = visit.page.get_by_text("It can be downloaded once it is approved.")
        expect(told).to_have_count(int(kind == "video/quicktime"))
        visit.open(f"review/of/{job}")
        visit.page.wait_for_url(re.compile("#/review/shot_"))
        expect(visit.button("Hand off")).to_be_disabled()
        expect(told).to_have_count(int(kind == "video/quicktime"))
        assert visit.hollow() == []
