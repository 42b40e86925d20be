"""The Python interface: paths as texts, and nothing that a caller can cause leaks as another library's error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import wanimate
from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, RuntimeSettings
from wanimate.errors import CheckpointError, InputError, WanimateError

MakeGuides = Callable[..., Path]


def test_paths_may_be_texts(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    with Animator.from_checkpoint(str(checkpoint), "cpu") as animator:
        out = f"{tmp_path}/a.mkv"
        list(animator.generate(f"{guides(5)}", out, GenerateSettings(steps=1, seed=1), OutputSettings(codec="ffv1")))
    assert os.path.exists(out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, r"device = cuda: PyTorch sees no CUDA GPU here"),
        ({"device": "mps"}, r"device = mps: Apple's GPUs are not supported"),
        ({"device": "xpu"}, r"device = xpu"),
        ({"device": "cuda:99"}, r"device = cuda:99"),
        ({"lora": "x.safetensors:0.8"}, r"lora = x\.safetensors"),
        ({"lora": "x.safetensors:loud"}, r"lora"),
        ({"steps": 0}, r"steps = 0"),
        ({"guidance": float("inf")}, r"guidance = inf"),
        ({"gpus": 0}, r"gpus = 0"),
        ({"gpus": 5}, r"gpus = 5: it has to divide the 6 attention heads"),
        ({"shard_weights": True}, r"shard_weights = True: it needs several GPUs"),
        ({"attention": "float8"}, r"attention = float8"),
        ({"speed": "warp"}, r"speed = warp"),
        ({"wings": 2}, r"wings = 2: there is no such setting"),
    ],
)
def test_wrong_settings_are_ours_to_refuse(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings.get("attention"):  # it is known when the device is: nothing is there to be found before
        settings |= {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    demo = Path(wanimate.__file__).parent / "weights" / "embedded" / "demo"
    files = {"image": demo / "character-1.png", "video": str(demo / "performer.mp4"), "out": tmp_path / "a.mp4"}
    with pytest.raises(InputError, match=message) as caught:
        wanimate.animate(**files, **settings)
    assert caught.value.exit_code == 2
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", f"{tmp_path}/nowhere"):
        with pytest.raises(CheckpointError, match="there is no such folder"):
            Animator.from_checkpoint(path)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        Animator(f"{tmp_path}/nowhere")


@pytest.mark.parametrize("wrong", [{"image": 5}, {"video": None}, {"out": b"x.mp4"}, {"checkpoint": 7}])
def test_what_is_no_path_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {"image": "a.png", "video": "b.mp4", "out": f"{tmp_path}/c.mp4"}
    with pytest.raises(WanimateError, match=next(iter(wrong))):
        wanimate.animate(**(given | wrong))


def test_errors_are_in_the_spelling_of_who_asks() -> None:
    with pytest.raises(InputError) as caught:
        RuntimeSettings(vae_tile=3)
    error = caught.value
    assert error.field == "runtime.vae_tile"
    assert str(error).startswith("vae_tile = 3: ")
    assert error.spelled(lambda field: f"<{field}>").startswith("<runtime.vae_tile> = 3: ")
