"""What several ways through the whole program share."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest
import torch


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """OpenCV and PyTorch compute on one thread."""
    cv2.setNumThreads(1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
