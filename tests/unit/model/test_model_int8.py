"""Int8 levels give back what they were made of, and their products are exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wanimate.model import int8
from wanimate.model.attention import attention
from wanimate.model.fp8 import hadamard
from wanimate.model.int8 import INT8, MOST, int8_product, to_int8


def given_back(x: Tensor) -> Tensor:
    """Of queries or keys [1, L, N, d], with a scale for each token and head."""
    levels, scale = to_int8(x, (3,))
    return levels.double() * scale


def test_int8_is_off_by_half_a_level_at_most() -> None:
    x = torch.randn(4, 1000) * torch.tensor([[1e-3], [1.0], [50.0], [1e4]])
    levels, scale = to_int8(x, (1,))
    assert levels.dtype == INT8
    assert scale.shape == (4, 1)
    assert (levels.abs().amax(1) == MOST).all()
    assert ((levels.float() * scale - x).abs() <= 0.5001 * scale).all()
    assert to_int8(torch.zeros(2, 3), (1,))[0].abs().max() == 0


@pytest.mark.parametrize(("rows", "ins", "outs"), [(1, 5, 3), (7, 64, 40), (100, 96, 24), (19, 33, 9)])
@pytest.mark.parametrize("one_scale", [False, True])
def test_the_product_is_that_of_the_levels(
    rows: int, ins: int, outs: int, one_scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fills its sides up, and however many rows go at once."""
    monkeypatch.setattr(int8, "ROWS", 40)
    x, weight = torch.randn(rows, ins) * 3, torch.randn(outs, ins)
    bias = torch.randn(outs)
    levels, row_scale = to_int8(x, (1,))
    other, scale = to_int8(weight, (0, 1) if one_scale else (1,))
    wanted = (levels.double() * row_scale) @ (other.double() * scale).T
    for given, exact in ((None, wanted), (bias, wanted + bias.double())):
        found = int8_product(levels, row_scale, other, scale, given)
        assert (found.dtype, found.shape) == (torch.bfloat16, (rows, outs))
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5 * float(exact.abs().max()))
    plain = x.double() @ weight.double().T
    assert (wanted - plain).norm() < 0.03 * plain.norm()


def test_sums_do_not_lose_what_is_small() -> None:
    """As float16 or float8 sums would: 13,824 ones beside one large number."""
    levels = torch.ones(1, 13_824, dtype=INT8)
    levels[0, 0] = 127
    found = int8_product(levels, torch.ones(1, 1), levels, torch.ones(1, 1), None)
    assert float(found) == float(torch.tensor(127.0**2 + 13_823).bfloat16())


def test_what_all_keys_share_can_be_taken_away() -> None:
    """Softmax does not see it, and it would take most of the levels."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 300, 2, 64, generator=generator, dtype=torch.float64) for _ in range(3))
    k = k + 20 * torch.randn(64, generator=generator)
    smooth = k - k.mean(1, keepdim=True)
    wanted = attention(q, k, v)
    torch.testing.assert_close(attention(q, smooth, v), wanted, rtol=0, atol=1e-12)

    def off(keys: Tensor) -> float:
        return float((attention(given_back(q), given_back(keys), v) - wanted).norm() / wanted.norm())

    assert off(smooth) < 0.02
    assert off(k) > 5 * off(smooth)


def test_a_hadamard_transform_spares_levels_where_a_channel_stands_out() -> None:
    """Scores stay as they are."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 300, 2, 64, generator=generator, dtype=torch.float64) for _ in range(3))
    q[..., 3] *= 30
    k[..., 3] /= 30
    k[..., 7] *= 30
    q[..., 7] /= 30
    turn = hadamard(64, torch.device("cpu")).double() / 8
    wanted = attention(q, k, v)
    torch.testing.assert_close(attention(q @ turn, k @ turn, v), wanted, rtol=0, atol=1e-12)

    def off(queries: Tensor, keys: Tensor) -> float:
        return float((attention(given_back(queries), given_back(keys), v) - wanted).norm() / wanted.norm())

    assert off(q @ turn, k @ turn) < 0.7 * off(q, k)
