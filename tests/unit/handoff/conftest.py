"""One thread, and results that several tests hand off."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from results import clip_with_sound, result


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished result in H.264 at 29.97 with dropped labels from 01:00:00;00 on, and sound. Tests only read it."""
    folder = tmp_path_factory.mktemp("ready")
    sound = clip_with_sound(folder / "sound.mp4")
    record = {"warnings": ["=the hand was hidden", "frames 3 to 5: nobody"]}
    return result(folder / "S010_v003.mp4", Fraction(30000, 1001), "01:00:00;00", sound=sound, record=record)
