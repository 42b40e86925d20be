"""A real job of each mode from the page: guides by the detectors, frames by the packaged checkpoint. Small and short."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from playwright.sync_api import Browser, expect
from stage import Playhouse
from visit import Visit

from wanimate.serve.worker.wan import WanRunner

PATIENCE = 120_000


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playhouse]:
    """A service whose worker really works. It keeps its weights from test to test."""
    with Playhouse(tmp_path_factory.mktemp("real")) as live:
        runner = WanRunner(live.settings, "cpu")
        with live.employed(runner):
            yield live
        runner.close()


@pytest.fixture
def visit(browser: Browser, working: Playhouse, tmp_path: Path) -> Iterator[Visit]:
    with Visit(browser, working, tmp_path) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["Animation", "Replacement"])
def test_a_real_job_from_the_examples_to_the_download(visit: Visit, mode: str) -> None:
    visit.sign_in()
    visit.page.get_by_role("radio", name=mode).check()
    visit.button("Example character 1").click()
    visit.button("Example performer").click()
    visit.page.get_by_label("Size and rate").select_option("custom")
    visit.page.get_by_label("Width × height").fill("96x96")
    visit.page.get_by_label("Steps").fill("2")
    visit.page.get_by_text("More settings").click()
    visit.page.get_by_label("Frames a second").fill("4")
    visit.button("Check the guides first").click()
    expect(visit.page.get_by_text("A person is found in every frame.")).to_be_visible(timeout=PATIENCE)
    tracks = ("driver", "pose", "face", *(["mask"] if mode == "Replacement" else []))
    shapes = {track: visit.shape(track) for track in tracks}
    assert shapes["driver"] == [384, 384]
    assert all(shape[0] > 0 for shape in shapes.values()), shapes
    visit.button("Go on: make the video").click()
    link = visit.page.get_by_role("link", name="Download")
    expect(link).to_be_visible(timeout=PATIENCE)
    with visit.page.expect_download() as saved:
        link.click()
    with av.open(io.BytesIO(Path(saved.value.path()).read_bytes())) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames > 10
    expect(visit.page.get_by_label("Frame", exact=True)).to_have_attribute("max", str(frames - 1))
