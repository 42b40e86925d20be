"""Results of modes that the house's policy holds get a quarantined name; without a policy nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from wanimate.api import Animator
from wanimate.approval.quarantine import in_house
from wanimate.config import GenerateSettings, OutputSettings
from wanimate.events import Finished, Notice
from wanimate.finish.encode import OutputWriter
from wanimate.jobs.finish import finish
from wanimate.jobs.workspace import locked

ONE = GenerateSettings(steps=1, seed=1)
Guides = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANIMATE_POLICY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that holds replacements."""
    place = tmp_path / "policy.toml"
    place.write_text("quarantine = true\n")
    monkeypatch.setenv("WANIMATE_POLICY", str(place))
    return place


def made(animator: Animator, guides: Path, out: Path, **output: Any) -> tuple[Path, list[str]]:
    """The result's place, and what was told."""
    settings = OutputSettings(codec="ffv1", **output)
    *events, last = animator.generate(guides, out, ONE, settings)
    assert isinstance(last, Finished)
    return last.result.out, [event.message for event in events if isinstance(event, Notice)]


def test_a_replacement_gets_a_quarantined_name_and_says_so(
    animator: Animator, guides: Guides, tmp_path: Path, policy: Path
) -> None:
    out, told = made(animator, guides(5, replacement=True), tmp_path / "hero.mkv", sheet=True, keep_segments=True)
    assert out == tmp_path / "hero.quarantined.mkv"
    assert any("wanimate release" in one for one in told)
    record = json.loads((tmp_path / "hero.quarantined.json").read_text())
    assert (record["out"], record["result"]["name"]) == (out.name, out.name)
    assert record["sheet"]["name"] == "hero.quarantined.sheet.png"
    again = animator.generate(
        guides(5, replacement=True), tmp_path / "hero.mkv", ONE.model_copy(update={"redraw": 1}),
        OutputSettings(codec="ffv1", keep_segments=True),
    )  # fmt: skip
    assert list(again)[-1].result.out == out  # type: ignore[union-attr]
    assert not list(tmp_path.glob("hero.mkv*"))


def test_other_modes_and_other_policies_change_nothing(
    animator: Animator, guides: Guides, tmp_path: Path, policy: Path
) -> None:
    assert made(animator, guides(5), tmp_path / "drawn.mkv")[0] == tmp_path / "drawn.mkv"
    policy.write_text("quarantine = false\n")
    assert in_house(OutputSettings()).quarantine == ()
    policy.write_text('held = ["animation"]\n')
    assert in_house(OutputSettings()).quarantine == ("animation",)
    assert in_house(OutputSettings(quarantine=())).quarantine == ()


def test_without_a_policy_nothing_changes(animator: Animator, guides: Guides, tmp_path: Path) -> None:
    out, told = made(animator, guides(5, replacement=True), tmp_path / "hero.mkv")
    assert (out, [one for one in told if "release" in one]) == (tmp_path / "hero.mkv", [])


def test_versions_count_on_over_released_ones(tmp_path: Path) -> None:
    output = OutputSettings(codec="ffv1")
    (tmp_path / "S_v001.mkv").touch()
    (tmp_path / "S_v002.quarantined.mkv").touch()
    lock, version = locked(tmp_path / "S_v{version:03}.mkv", output, (), quarantine=True)
    with lock:
        assert (lock.out.name, version) == ("S_v003.quarantined.mkv", 3)


@pytest.mark.parametrize(
    ("name", "record", "held"),
    [
        ("hero.mkv", {"mode": "animation"}, False), ("hero.mkv", {"mode": "replacement"}, True), ("hero.mkv", None, True),
        ("hero.quarantined.mkv", {"mode": "animation"}, True), ("hero.mkv", {"mode": "animation", "out": "x.mkv"}, True),
    ],
)  # fmt: skip
def test_finishing_leads_out_of_no_quarantine(
    tmp_path: Path, policy: Path, name: str, record: dict[str, Any] | None, held: bool
) -> None:
    master = tmp_path / name
    with OutputWriter(master, Fraction(16), 64, 48, OutputSettings(codec="ffv1")) as writer:
        writer.write(torch.zeros(2, 3, 48, 64))
    if record is not None:
        master.with_name(f"{master.stem}.json").write_text(json.dumps({"out": name, **record}))
    *_, last = finish(master, tmp_path / "large.mkv", in_house(OutputSettings(codec="ffv1")), None, "cpu")
    assert isinstance(last, Finished)
    assert last.result.out.name == ("large.quarantined.mkv" if held else "large.mkv")
