"""L*a*b* as OpenCV has it."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from wanimate.finish.colour import from_lab, to_lab

COLOURS = np.random.default_rng(3).random((40, 50, 3), dtype=np.float32) ** 2


def test_lab_is_that_of_opencv() -> None:
    ours = to_lab(torch.from_numpy(COLOURS).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(ours - cv2.cvtColor(COLOURS, cv2.COLOR_RGB2LAB)).max() < 0.5  # OpenCV interpolates in a table


def test_there_and_back() -> None:
    rgb = torch.from_numpy(COLOURS).permute(2, 0, 1)
    assert (from_lab(to_lab(rgb)) - rgb).abs().max() < 1e-3


def test_what_no_colour_has_is_cut_off() -> None:
    found = from_lab(torch.tensor([150.0, 200.0, 0.0]))
    assert torch.allclose(found, torch.tensor([1.0, 0.0, 1.0]), atol=1e-6)
