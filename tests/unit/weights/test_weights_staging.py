"""Tensors arrive whole and in order, a bounded number of bytes ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from wanimate.weights import staging
from wanimate.weights.staging import Wanted, arriving
from wanimate.weights.stored import Scaled, Stored, Value, scaled, value

CPU = torch.device("cpu")


def stored(tensor: Tensor, read: list[str] | None = None, name: str = "") -> Stored:
    def make() -> Tensor:
        if read is not None:
            read.append(name)
        return tensor

    return Stored(tensor.shape, tensor.dtype, make)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE", 64)
    monkeypatch.setattr(staging, "AHEAD", 1000)


def values() -> dict[str, Value]:
    generator = torch.Generator().manual_seed(3)
    plain = torch.randn(37, 11, generator=generator)
    levels = torch.randint(-127, 127, (12, 40), generator=generator).to(torch.int8)
    return {
        "plain": stored(plain),
        "in memory": plain * 2,
        "odd bytes": stored(torch.arange(1, 100, dtype=torch.uint8)),
        "eight bits": stored(plain.to(torch.float8_e4m3fn)),
        "turned": stored(plain.t()),
        "one number": stored(torch.tensor(3.0)),
        "nothing": stored(torch.empty(0, 4)),
        "scaled": scaled(stored(levels), stored(torch.rand(12, 1, generator=generator))),
        "large": stored(torch.arange(5000.0)),
    }


def test_every_tensor_arrives_as_it_is_stored_and_in_order() -> None:
    wanted = values()
    found = list(arriving(Wanted(key, one, CPU) for key, one in wanted.items()))
    assert [one.key for one, _ in found] == list(wanted)
    for one, there in found:
        assert there.dtype == one.stored.dtype
        assert there.shape == one.stored.shape
        torch.testing.assert_close(value(there).float(), value(one.stored).float(), rtol=0, atol=0)
        assert isinstance(there, Scaled if one.key == "scaled" else Tensor)


def test_what_goes_nowhere_is_not_read() -> None:
    read: list[str] = []
    one = stored(torch.ones(4), read)
    ((_, there),) = arriving([Wanted("stays", one, None)])
    assert there is one
    assert not read


def test_only_so_many_bytes_are_ahead() -> None:
    read: list[str] = []
    wanted = [Wanted(str(i), stored(torch.ones(100), read, str(i)), CPU) for i in range(10)]
    taking = arriving(wanted)
    for i in range(10):
        one, _ = next(taking)
        assert one.key == str(i)
        assert len(read) <= i + 4  # 400 bytes each: the one taken, two ahead, and the one that waits for room


def test_an_error_of_a_file_reaches_whoever_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(staging._Lane, "copy", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        list(arriving([Wanted("plain", stored(torch.ones(100)), CPU)]))


def test_closing_early_leaves_no_thread() -> None:
    def endless() -> Iterator[Wanted]:
        while True:
            yield Wanted("again", stored(torch.ones(100)), CPU)

    taking = arriving(endless())
    next(taking)
    taking.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("weights")]
