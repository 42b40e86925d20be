"""What comes before the first step is not done twice, and begins as early as it can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from tiny_checkpoints import published_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, RuntimeSettings
from wanimate.engines import wan_animate
from wanimate.engines.wan_animate import WanAnimate
from wanimate.runtime.planning import fit, simulate, sizes
from wanimate.weights import checkpoint as weights
from wanimate.weights.locate import CLIP, T5, VAE

SETTINGS = GenerateSettings(steps=1, seed=1, prompt="a person waves")
CPU = RuntimeSettings(device="cpu")
OUTPUT = OutputSettings(audio=False, overwrite=True, codec="ffv1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path / "cache"))
    published_checkpoint(tmp_path / "checkpoint")
    write_guides(tmp_path / "guides", 5)
    return tmp_path


def test_weights_are_read_ahead_for_guides_that_are_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`generate`, too, begins to read before it plans."""
    done: list[str] = []
    monkeypatch.setattr(WanAnimate, "read_ahead", lambda *_: done.append("read ahead"))
    monkeypatch.setattr(WanAnimate, "plan", lambda *_: done.append("plan") or iter(()))
    with Animator(place / "checkpoint", runtime=CPU) as animator:
        events = animator.generate(place / "guides", place / "out.mkv", SETTINGS, OUTPUT)
        for _ in events:
            if "plan" in done:
                break
        events.close()
    assert done == ["read ahead", "plan"]


def test_only_what_the_job_needs_is_read_ahead(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """umT5 has a quarter of all bytes, and a prompt that is known does not need it."""
    monkeypatch.setattr(sizes, "BIG", 0)
    asked: list[set[str]] = []
    monkeypatch.setattr(wan_animate, "_into_page_cache", lambda files: asked.append({file.name for file in files}))
    for _ in range(2):
        with Animator(place / "checkpoint", runtime=CPU) as animator:
            list(animator.generate(place / "guides", place / "out.mkv", SETTINGS, OUTPUT))
    new, known = asked
    assert new - known == {T5}
    assert {VAE, CLIP} < known


def test_a_second_job_does_nothing_again_that_it_need_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "BIG", 0)
    done: list[str] = []

    def count(module: Any, name: str) -> None:
        before = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            return before(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    simulate._kept_transformer.cache_clear()
    simulate._small_vae_cost.cache_clear()
    fit._rates.cache_clear()
    for module, name in (
        (weights, "load_image_encoder"), (weights, "load_text_encoder"), (weights, "loading_transformer"),
        (simulate, "simulated_transformer"), (fit, "measure_rates"),
    ):  # fmt: skip
        count(module, name)
    with Animator(place / "checkpoint", runtime=CPU) as animator:
        list(animator.generate(place / "guides", place / "1.mkv", SETTINGS, OUTPUT))
        assert {*done} == {
            "load_image_encoder", "load_text_encoder", "loading_transformer", "simulated_transformer", "measure_rates",
        }  # fmt: skip
        done.clear()
        list(animator.generate(place / "guides", place / "2.mkv", SETTINGS, OUTPUT))
        assert done == []
