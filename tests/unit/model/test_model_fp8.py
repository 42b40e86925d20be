"""Float8 levels give back what they were made of."""

from __future__ import annotations

import torch

from wanimate.model.fp8 import FP8, LARGEST, to_fp8


def test_float8_keeps_the_largest_number_and_the_relative_size_of_the_others() -> None:
    x = torch.randn(4, 1000) * torch.tensor([[1e-3], [1.0], [50.0], [1e4]])
    levels, scale = to_fp8(x, (1,))
    assert levels.dtype == FP8
    assert scale.shape == (4, 1)
    assert (levels.float().abs().amax(1) == LARGEST).all()
    back = levels.float() * scale
    large = x.abs() > x.abs().amax(1, keepdim=True) / 1e4
    assert ((back - x).abs() / x.abs())[large].max() <= 1 / 16 + 1e-6  # three bits of mantissa
    assert to_fp8(torch.zeros(2, 3), (1,))[0].float().abs().max() == 0
