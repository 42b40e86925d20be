"""A picture of 100 megapixels takes at most 1.5 GiB, whatever its form, from the file to the job's own size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from memory import FORMS, measure

MOST = 1.5 * 2**30 / 100e6
"""Bytes a pixel."""


@pytest.mark.parametrize("form", ["RGBA, 16 bits"])
def test_a_picture_takes_few_bytes_a_pixel(form: str) -> None:
    megapixels = 6
    assert max(measure(form, megapixels)) <= MOST * megapixels * 1e6


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_100_megapixels_takes_at_most_1_5_gib(form: str) -> None:
    assert max(measure(form, 100)) <= 1.5 * 2**30
