"""The shot record in the view of the guides: shown, confirmed, corrected."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect
from stage import Actor
from visit import Visit

from wanimate.preprocess.shot.record import Value, new_record


def record() -> dict[str, Any]:
    def value(what: Any, confidence: float = 0.84) -> Value:
        return Value(value=what, confidence=confidence, by="analysis", at="2026-11-30T12:00:00+00:00")

    values = {
        "xmpDM:cameraMove": value("Zoom In"), "xmpDM:shotSize": value("MS", 0.7), "temperature": value(3150),
        "drift": value(0.62),
        "white": value(0.004, 1.0), "luma": value(0.41, 1.0), "black": value(0.01, 1.0), "mixed": value(False, 0.4),
        "place": value(None, 0.0),
    }  # fmt: skip
    return new_record({"cuts": value([18])}, [(0, 18, values), (18, 30, values | {"drift": value(0.05)})]).plain()


def test_a_person_confirms_and_corrects(visit: Visit, actor: Actor) -> None:
    actor.record = record()
    key = visit.sign_in()
    job = visit.live.made(key, "Noon", kind="preprocess", mode="replacement")
    visit.open(f"guides/{job}")
    panel = visit.page.get_by_role("region", name="Camera and light")
    expect(panel).to_contain_text("Split the clip first")
    expect(panel).to_contain_text("It is cut at frame 19")
    expect(panel).to_contain_text("Zoom In 84 % sure")
    assert visit.faults() == []
    panel.get_by_label("Confirm: Camera").click()
    expect(panel).to_contain_text("Zoom In said by")
    expect(panel).to_contain_text("Grade by hand")
    panel.get_by_label("Change: Change of light").click()
    panel.get_by_label("Change of light", exact=True).fill("0.1")
    panel.get_by_role("button", name="Save").click()
    expect(panel).to_contain_text("0.1 stops said by")
    expect(panel).not_to_contain_text("Grade by hand")
    panel.get_by_label("Change: Camera").click()
    panel.get_by_label("Camera", exact=True).select_option("Dolly In")
    panel.get_by_role("button", name="Save").click()
    expect(panel).to_contain_text("Dolly In said by")
    panel.get_by_role("combobox").select_option("2")
    expect(panel).to_contain_text("Zoom In 84 % sure")
    visit.page.reload()
    expect(visit.page.get_by_role("region", name="Camera and light")).to_contain_text("Dolly In said by")


def test_the_advice_and_the_way_on_are_seen_at_once(visit: Visit, actor: Actor) -> None:
    """Without scrolling, and no value is broken over two lines."""
    actor.record = record()
    key = visit.sign_in()
    visit.open(f"guides/{visit.live.made(key, 'Noon', kind='preprocess', mode='replacement')}")
    panel = visit.page.get_by_role("region", name="Camera and light")
    for seen in (panel.get_by_text("Split the clip first"), visit.button("Go on: make the video")):
        expect(seen).to_be_in_viewport(ratio=1)
    for width in (390, 768, 1440):
        visit.page.set_viewport_size({"width": width, "height": 900})
        tall = "spans => spans.filter((span) => span.getClientRects().length > 1).map((span) => span.textContent)"
        assert panel.locator("dd .soft").evaluate_all(tall) == []
        assert visit.overflow() <= 0
    assert visit.hollow() == []
