"""Which file is a checkpoint's relighting LoRA, and when it acts."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanimate.config import GenerateSettings, LoraUse
from wanimate.errors import InputError
from wanimate.types import Mode
from wanimate.weights.locate import embedded_path
from wanimate.weights.relighting import PLACES, find_relighting, with_relighting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relighting_lora.ckpt").touch()
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_found(tmp_path: Path, place: Path) -> None:
    assert find_relighting(tmp_path) is None
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert find_relighting(tmp_path) == file


def test_the_embedded_checkpoint_has_one() -> None:
    assert find_relighting(embedded_path()) == embedded_path() / "relighting_lora.safetensors"


@pytest.mark.parametrize(
    ("mode", "relight", "compat", "applied", "warned"),
    [
        ("replacement", None, False, True, None),
        ("replacement", True, False, True, None),
        ("replacement", False, False, False, None),
        ("animation", None, False, False, None),
        ("animation", False, False, False, None),
        ("animation", True, False, False, "no effect in animation"),
        ("animation", True, True, True, "applied all the same, as published"),
    ],
)
def test_when_it_acts(
    folder: Path, mode: Mode, relight: bool | None, compat: bool, applied: bool, warned: str | None
) -> None:
    other = LoraUse(path=Path("other.safetensors"))
    asked = GenerateSettings(relight=relight, relight_strength=0.7, compat=compat, lora=(other,))
    settings, warning = with_relighting(asked, mode, folder)
    own = LoraUse(path=folder / "relighting_lora.ckpt", strength=0.7)
    assert settings.lora == ((other, own) if applied else (other,))
    assert (warning is None) == (warned is None)
    assert (warned or "") in (warning or "")


def test_a_file_given_with_lora_is_not_taken_twice(folder: Path) -> None:
    asked = GenerateSettings(lora=(LoraUse(path=folder / "relighting_lora.ckpt", strength=0.4),))
    assert with_relighting(asked, "replacement", folder) == (asked, None)


def test_without_one_only_asking_is_an_error(tmp_path: Path) -> None:
    assert with_relighting(GenerateSettings(), "replacement", tmp_path) == (GenerateSettings(), None)
    with pytest.raises(
        InputError, match=r"relight = True: .* holds no relighting LoRA \(relighting_lora.safetensors, .*\)\. L"
    ):
        with_relighting(GenerateSettings(relight=True), "replacement", tmp_path)


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan"), float("inf")])
def test_strengths(strength: float) -> None:
    with pytest.raises(InputError, match="relight_strength"):
        GenerateSettings(relight_strength=strength)
