"""Clips through a folder: whole, in order, each to one taker."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from mannequin.training.clip_latents import LatentSet
from mannequin.training.feed import Feed
from mannequin.training.pool import SIZES
from wanimate.train.latents import LatentClips

CPU = torch.device("cpu")


def clips(number: int, count: int = 3) -> LatentClips:
    latents = torch.full((count, 16, 3, 4, 4), number, dtype=torch.float16).to(memory_format=torch.channels_last_3d)
    return LatentClips(
        latents, latents + 1, latents + 2, latents[:, :, :1], latents[:, :4], latents[:, 0],
        torch.full((count, 9, 8, 8, 3), number, dtype=torch.uint8),
    )  # fmt: skip


def test_parts_come_whole_and_in_order(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed")
    for number in range(4):
        feed.put(number % 2, clips(number))
    found = [Feed(tmp_path / "feed").take(size, CPU) for size in (0, 0, 1, 1)]
    for part, number in zip(found, (0, 2, 1, 3), strict=True):
        assert part is not None
        for name, tensor in vars(clips(number)).items():
            assert torch.equal(getattr(part, name), tensor), name
    assert feed.take(0, CPU) is None
    assert list((tmp_path / "feed").iterdir()) == []


def test_it_is_full_until_something_is_taken(tmp_path: Path) -> None:
    feed = Feed(tmp_path, waiting=2)
    for number in range(2):
        assert not feed.full
        feed.put(0, clips(number))
    assert feed.full
    feed.take(0, CPU)
    assert not feed.full


def take_all(folder: Path, into: Path) -> None:
    feed, numbers = Feed(folder), []
    while (part := feed.take(0, CPU)) is not None:
        numbers.append(str(int(part.face[0, 0, 0, 0, 0])))
    into.write_text(" ".join(numbers))


def test_each_part_goes_to_one_taker(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed", waiting=100)
    for number in range(40):
        feed.put(0, clips(number, 1))
    spawn = multiprocessing.get_context("spawn")
    takers = [spawn.Process(target=take_all, args=(tmp_path / "feed", tmp_path / str(i))) for i in range(2)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
        assert taker.exitcode == 0
    taken = [int(n) for i in range(2) for n in (tmp_path / str(i)).read_text().split()]
    assert sorted(taken) == list(range(40))


def test_a_pool_without_new_clips_stays_as_it_is(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    pool = LatentSet([clips(7) for _ in SIZES], lambda size: feed.take(size, CPU))
    pool.renew()
    assert pool.renewed == 0
    feed.put(0, clips(9, 2))
    pool.renew()
    assert pool.renewed == 1
    assert pool.clips[0].face[:, 0, 0, 0, 0].tolist() == [9, 9, 7]
