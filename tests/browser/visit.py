"""Somebody's browser: signs in, opens views, and holds what the console said against the page."""

from __future__ import annotations

import itertools
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, expect
from stage import ADMIN, Playhouse

from wanimate.serve.keys import Rate

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_count = itertools.count()
expect.set_options(timeout=10_000)


@cache
def axe_source() -> str:
    return AXE.read_text()


class Visit:
    """`page` is Playwright's. `refusals`: answers of 4xx, which the browser writes to its console, are expected."""

    def __init__(self, browser: Browser, live: Playhouse, folder: Path, **more: Any) -> None:
        self.live, self.folder = live, folder
        more = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", "reduced_motion": "reduce"} | more
        self.context = browser.new_context(**more)
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.refusals = False
        self.said: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.page.unroute_all(behavior="wait")  # an answer that a test is still fetching needs the browser
        self.context.close()
        if kind is None and self.said:
            raise AssertionError("\n".join(self.said))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning") or (
            self.refusals and "the server responded with a status of 4" in message.text
        ):
            return
        self.said.append(f"{message.type}: {message.text}")

    def sign_in(self, owner: str | None = None, scopes: tuple[str, ...] = ADMIN) -> str:
        """As somebody new unless said otherwise. Returns the key."""
        self.live.service.rates = Rate()  # tests sign in more often than people
        key = self.live.key(owner or f"owner-{next(_count)}", scopes=scopes)
        self.open("")
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("navigation", name="Views")).to_be_visible()
        return key

    def open(self, address: str) -> None:
        """A view by its address behind the `#`."""
        self.page.goto(f"{self.live.base}/{'#/' if address else ''}{address}")

    def title(self, text: str) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def faults(self) -> list[str]:
        """What axe finds on the page: rule and elements."""
        self.page.evaluate(f"(() => {{ {axe_source()}; return null }})()")
        found = self.page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
        return [f"{one['id']}: {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found["violations"]]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found

    def hollow(self) -> list[str]:
        """Parts that show nothing and yet take the gap of a line of their own."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll('.stack > *')].filter((part) => {
                const apart = ['absolute', 'fixed'].includes(getComputedStyle(part).position);
                return part.checkVisibility() && part.offsetHeight === 0 && !apart;
            }).map((part) => part.localName)"""
        )
        return found

    def sees(self, **frames: int) -> None:
        """Wait until the videos of exactly these tracks show these frames."""
        ends = time.monotonic() + 10
        while (found := self.numbers()) != frames:
            assert time.monotonic() < ends, f"{found}, not {frames}"
            self.page.wait_for_timeout(40)

    def shape(self, track: str) -> list[int]:
        """Width and height of a track's video, which it has as soon as its metadata are there."""
        video = self.page.locator(f"video[data-track={track}]")
        found: list[int] = video.evaluate(
            """async (seen) => {
                if (seen.readyState < 1) await new Promise((fulfil) => { seen.onloadedmetadata = fulfil; });
                return [seen.videoWidth, seen.videoHeight];
            }"""
        )
        return found

    def numbers(self) -> dict[str, int]:
        """The number of the frame that each video shows, by track; of one that has no frame yet, 0."""
        found: dict[str, list[int]] = self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll('wa-player video, wa-reel video')].map((video) => {
                const canvas = document.createElement('canvas');
                if (video.readyState < 2) return [video.dataset.track, []];
                [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
                const context = canvas.getContext('2d', { willReadFrequently: true });
                context.drawImage(video, 0, 0);
                const cells = [...Array(6).keys()].map((i) => context.getImageData(16 * i + 8, 8, 1, 1).data[0]);
                return [video.dataset.track, cells];
            }))"""
        )
        return {track: sum((grey > 127) << bit for bit, grey in enumerate(cells)) for track, cells in found.items()}
