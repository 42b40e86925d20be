"""Attention backends give what a plain softmax gives; float8 levels give back what they were made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wanimate.model.attention import Fp8Attention, attention, backends, to_fp8_heads
from wanimate.model.fp8 import FP8, LARGEST, to_fp8


def qkv(tokens: int = 50, heads: int = 3, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, tokens, heads, width, generator=generator) for _ in range(3))
    return q, k, v


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2)


def test_every_backend_that_runs_here_is_attention() -> None:
    q, k, v = qkv()
    wanted, ran = plain(q, k, v), []
    for name, backend in backends().items():
        try:
            found = backend.attend(q, k, v)
        except RuntimeError:
            continue  # none of its kernels is for a processor
        ran.append(name)
        assert found.shape == q.shape
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert "torch" in ran


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


def test_smoothing_takes_what_all_keys_share() -> None:
    """A large common part of the keys costs them their levels; softmax does not need it."""
    q, k, v = qkv(200)
    shifted = k + 30 * torch.randn(1, 1, *k.shape[2:])

    def error(given: tuple[tuple[Tensor, Tensor], ...]) -> float:
        q8, k8, v8 = (x.float() * s[:, None, :, None] for x, s in given)
        wanted = plain(q, shifted, v)
        return float((plain(q8, k8, v8) - wanted).norm() / wanted.norm())

    smooth = error((to_fp8_heads(q), to_fp8_heads(shifted, smooth=True), to_fp8_heads(v)))
    rough = error(tuple(to_fp8_heads(x) for x in (q, shifted, v)))
    assert smooth < 0.06
    assert smooth < rough / 3


def test_float8_attention_hands_over_a_scale_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash(q: Tensor, k: Tensor, v: Tensor, q_descale: Tensor, k_descale: Tensor, v_descale: Tensor) -> Tensor:
        parts = ((q, q_descale), (k, k_descale), (v, v_descale))
        assert all(x.dtype == FP8 and s.shape == (2, 3) for x, s in parts)
        return attention(*(x.float() * s[:, None, :, None] for x, s in parts))

    monkeypatch.setattr("wanimate.model.attention._flash3", flash)
    q, k, v = qkv()
    wanted = plain(q, k, v)
    found = Fp8Attention()(q, k, v)
    assert found.dtype == q.dtype
    assert (found.double() - wanted).norm() / wanted.norm() < 0.06
    assert torch.equal(Fp8Attention().rounded(to_fp8_heads(q), to_fp8_heads(k, smooth=True), v), found)


def test_a_loose_scale_and_a_guessed_mean_cost_float8_next_to_nothing() -> None:
    """Scales by a bound ten times the largest number, and any vector for what keys share."""
    q, k, v = qkv(200)
    wanted = plain(q, k, v)

    def kernel(*given: tuple[Tensor, Tensor]) -> Tensor:
        return plain(*(x.float() * s[:, None, :, None] for x, s in given)).to(v.dtype)

    def bounded(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = 10 * x.abs().amax((1, 3)) / LARGEST
        return (x / scale[:, None, :, None]).to(FP8), scale

    attend = Fp8Attention(kernel=kernel)
    tight = (attend(q, k, v) - wanted).norm()
    loose = (attend.rounded(bounded(q), bounded(k - k[:, ::17].mean(1, keepdim=True)), v) - wanted).norm()
    assert loose < 1.1 * tight
    assert tight < 0.06 * wanted.norm()
