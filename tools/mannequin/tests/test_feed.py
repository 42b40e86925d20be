"""Clips through a folder: whole, in order, each to one taker."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mannequin.training import supply
from mannequin.training.clip_latents import LatentSet, WorldClips, encode_batch
from mannequin.training.feed import Feed
from mannequin.training.pool import SIZES
from mannequin.training.supply import ClipSettings, held_out_clips
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.errors import InputError

CPU = torch.device("cpu")


def clips(number: int, count: int = 3) -> WorldClips:
    latents = torch.full((count, 16, 3, 4, 4), number, dtype=torch.float16).to(memory_format=torch.channels_last_3d)
    return WorldClips(
        latents, latents + 1, latents + 2, latents[:, :, :1], latents[:, :4], latents[:, 0],
        torch.full((count, 9, 8, 8, 3), number, dtype=torch.uint8), latents[:, 0, :, 0],
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


def test_parts_of_another_version_are_refused(tmp_path: Path) -> None:
    old = {name: tensor.contiguous() for name, tensor in vars(clips(1)).items() if name != "face_box"}
    save_file(old, tmp_path / "1-abc-0.safetensors")
    with pytest.raises(InputError, match="another version"):
        Feed(tmp_path).take(0, CPU)


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


@pytest.mark.slow
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
    pool = LatentSet([[clips(7)] for _ in SIZES], lambda kind: feed.take(kind, CPU))
    pool.renew()
    assert pool.seen == 3 * len(SIZES)
    feed.put(1, clips(9, 2))
    pool.renew()
    assert pool.seen == 3 * len(SIZES) + 2
    assert [len(parts) for parts in pool.kinds] == [1, 2, 1]
    assert pool.kinds[1][1].face[:, 0, 0, 0, 0].tolist() == [9, 9]


def test_the_share_from_near_reaches_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the relighting LoRA's clips as well."""
    found: list[WorldSettings] = []
    monkeypatch.setattr(supply, "load", lambda device: None)
    monkeypatch.setattr(supply, "World", lambda _, settings: found.append(settings))
    for settings in (ClipSettings(), ClipSettings(near=0.75), ClipSettings(near=0.75).relighting):
        supply.clip_maker(None, settings, CPU, 0)  # type: ignore[arg-type]
    assert [settings.near for settings in found] == [0.5, 0.75, 0.75]
    assert [settings.replacement for settings in found] == [0.25, 0.25, 1.0]


def test_held_out_clips_are_read_and_stay(tmp_path: Path) -> None:
    settings = ClipSettings(short_part=2)
    feed = Feed(tmp_path)
    for kind in range(5):
        feed.put(kind, clips(kind, 1))
    with pytest.raises(InputError, match="at least one part of every kind"):
        held_out_clips(tmp_path, settings, CPU)
    feed.put(5, clips(5, 1))
    for _ in range(2):
        found = held_out_clips(tmp_path, settings, CPU)
        assert [int(parts[0].face.max()) for parts in found.kinds] == list(range(6))


class _Codec:
    """Notes how many clips it is given; a latent is the mean of what it stands for."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def encode_piece(self, video: torch.Tensor, state: object) -> torch.Tensor:
        self.counts.append(len(video))
        first, rest = video[:, :1, :1], video[:, :1, 1:]
        small = [torch.nn.functional.avg_pool3d(first, (1, 8, 8))]
        if rest.shape[2]:
            small.append(torch.nn.functional.avg_pool3d(rest, (4, 8, 8)))
        return torch.cat(small, dim=2).expand(-1, 16, -1, -1, -1)


@pytest.mark.parametrize(
    ("replaced", "encoded"), [(0.3, 4), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0.0, 4), (1.0, 8)))]
)
def test_conditions_are_encoded_for_half_of_the_clips(replaced: float, encoded: int) -> None:
    world = World(
        load(Path(__file__).parent / "data" / "mannequins.npz"),
        WorldSettings(face_size=8, supersample=1, replacement=replaced),
    )
    batch, codec = world.sample_batch(8, 9, 48, 48, seed=5), _Codec()
    made = encode_batch(codec, batch, torch.Generator().manual_seed(1), {}, continued=0.9)  # type: ignore[arg-type]
    assert codec.counts == [4] * (1 + encoded // 4 + 3 * 2), "always as many at once"
    kept = made.keep.flatten(1).any(1)
    grey = (made.known == made.known.new_zeros(())).flatten(1).all(1)
    assert torch.equal(grey, ~kept), "what is not encoded is not kept either"
    seen = batch.keypoints[:, :, 23:91, 2].mean(-1) > 0.5
    torch.testing.assert_close(made.face_box[seen].float(), batch.face_box[seen] / 8, atol=0.01, rtol=1e-3)
    assert not made.face_box[~seen].any()
    assert int((~batch.replacement & kept).sum()) == max(0, encoded - int(batch.replacement.sum()))
