"""A picture of latents without the VAE: a linear map of the 16 channels to RGB, fitted to what a job has anyway.

The map is the least-squares solution over the latents of the character's picture (and of the scene) and the colours of the
pixels they were made from, so that it suits whatever VAE the checkpoint has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wanimate.types import Frame

_RIDGE = 1e-3
"""Share of the mean square of a channel that is added to its own: a picture of one colour leaves channels undetermined."""


class ColourMap:
    """Latents to RGB; `samples` gives latents [16, T, h, w] with their colours [3, T, h, w] in [-1, 1], asked once."""

    def __init__(self, samples: Callable[[], Sequence[tuple[Tensor, Tensor]]]) -> None:
        self._samples = samples

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """[17, 3]: a row a channel, and the constant."""
        pairs = [(_columns(latents), _columns(colours)) for latents, colours in self._samples()]
        x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        gram = x.T @ x
        ridge = _RIDGE * np.trace(gram) / len(gram) * np.diag([*[1.0] * (len(gram) - 1), 0.0])
        found: npt.NDArray[np.float64] = np.linalg.solve(gram + ridge + 1e-9 * np.eye(len(gram)), x.T @ y)
        return found

    def picture(self, latents: Tensor) -> Frame:
        """Latents of one frame [16, h, w] -> uint8 RGB [h, w, 3]."""
        height, width = latents.shape[1:]
        x = _columns(latents[:, None])
        rgb = x @ self.weights[:-1] + self.weights[-1]
        return np.clip(np.rint((rgb + 1) * 127.5), 0, 255).astype(np.uint8).reshape(height, width, 3)


@dataclass(frozen=True)
class LatentPreview:
    """The middle frame of latents [16, T, h, w], drawn when it is asked for."""

    colours: ColourMap
    latents: Tensor

    def picture(self) -> Frame:
        """uint8 RGB [h, w, 3]."""
        return self.colours.picture(self.latents[:, self.latents.shape[1] // 2])


def _columns(x: Tensor) -> npt.NDArray[np.float64]:
    """[C, T, h, w] -> [T * h * w, C]."""
    flat: npt.NDArray[np.float64] = x.flatten(1).T.to("cpu", torch.float64).numpy()
    return flat
