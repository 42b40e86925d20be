"""Pictures that every machine makes alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def picture(width: int, height: int, shift: int = 0) -> npt.NDArray[np.float32]:
    """float32 [3, H, W], 0 to 1: soft waves, stripes and a disc, `shift` pixels farther to the right."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x = x - shift
    disc = ((x - 0.4 * width) ** 2 + (y - 0.5 * height) ** 2 < (0.3 * height) ** 2).astype(np.float64)
    channels = [
        0.45 + 0.3 * np.sin(x / 5 + c) * np.cos(y / 7 - c) + 0.15 * ((x // 3 + y // 4) % 2) * disc + 0.1 * c * disc
        for c in range(3)
    ]
    return np.clip(np.stack(channels), 0, 1).astype(np.float32)
