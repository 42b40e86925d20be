from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from post_pictures import picture
from torch import Tensor

from wanimate.errors import InputError
from wanimate.post.base import VideoSpec
from wanimate.post.cuts import shots
from wanimate.post.interpolate.choose import Method, open_between, open_interpolator
from wanimate.post.interpolate.instants import Instant, at_rate, instants
from wanimate.post.interpolate.methods import Blend, RifeBetween
from wanimate.post.interpolate.stage import Interpolator

HERE = torch.device("cpu")
NTSC = Fraction(30000, 1001)


def spec(count: int, fps: Fraction | int, *cuts: int, size: tuple[int, int] = (4, 2)) -> VideoSpec:
    return VideoSpec(size, Fraction(fps), count, cuts)


@pytest.mark.parametrize(
    ("source", "fps", "count", "cuts"),
    [
        (spec(8, 8, 3), 16, 16, (6,)),
        (spec(240, Fraction(24000, 1001), 24), 25, 250, (26,)),
        (spec(10, 60, 3, 4), 15, 3, (1,)),
        (spec(1, 24), 60, 3, ()),
        (spec(1, 60), 24, 1, ()),
        (spec(30, NTSC), Fraction(60000, 1001), 60, ()),
        (spec(100, 16), NTSC, 187, ()),
        (spec(5, 24, 4), 12, 3, (2,)),
    ],
)
def test_results_are_as_long_as_the_source(source: VideoSpec, fps: int, count: int, cuts: tuple[int, ...]) -> None:
    made = at_rate(source, Fraction(fps))
    assert (made.count, made.cuts, made.fps) == (count, cuts, fps)
    assert abs(made.count / made.fps - source.count / source.fps) <= max(
        1 / (2 * made.fps), 1 / made.fps - 1 / source.fps
    )
    assert len(list(instants(source, Fraction(fps)))) == count


def test_instants_are_exact_fractions() -> None:
    assert list(instants(spec(4, 8), Fraction(16))) == [
        Instant(0), Instant(0, Fraction(1, 2)), Instant(1), Instant(1, Fraction(1, 2)), Instant(2),
        Instant(2, Fraction(1, 2)), Instant(3), Instant(3),
    ]  # fmt: skip
    shares = [25 * instant.share for instant in instants(spec(5, 24), Fraction(25))]
    assert shares == [0, 24, 23, 22, 21]
    # An hour of film at 24000/1001 shown at 24: every 1001st frame is the source's, no error adds up.
    found = list(instants(spec(86400, Fraction(24000, 1001)), Fraction(24)))
    assert found[1001 * 50] == Instant(50_000)
    assert found[1001 * 50 + 2] == Instant(50_001, Fraction(999, 1001))


def test_instants_near_a_source_frame_are_that_frame() -> None:
    """1/2000 of a frame beside a source frame, on either side, is not interpolated."""
    for fps, place in ((Fraction(24 * 2000, 1999), 1999), (Fraction(24 * 2000, 2001), 2001)):
        found = list(instants(spec(4000, 24), fps))
        assert found[1] == Instant(1)
        assert found[2].share <= 0 or found[2].share >= Fraction(1, 1000), place


def test_nothing_is_made_across_a_cut() -> None:
    found = list(instants(spec(4, 8, 2), Fraction(24)))
    third = Fraction(1, 3)
    assert found == [
        Instant(0), Instant(0, third), Instant(0, 2 * third), Instant(1), Instant(1), Instant(1), Instant(2),
        Instant(2, third), Instant(2, 2 * third), Instant(3), Instant(3), Instant(3),
    ]  # fmt: skip
    assert at_rate(spec(4, 8, 2), Fraction(24)).cuts == (6,)


@pytest.mark.parametrize(("fps", "out"), [(8, 30), (24, 25), (30, 24), (60, 24), (NTSC, 50)])
def test_cuts_of_the_result_are_where_its_shots_begin(fps: Fraction, out: int) -> None:
    source = spec(40, fps, 7, 8, 23)
    shots = [sum(cut <= instant.frame for cut in source.cuts) for instant in instants(source, Fraction(out))]
    begins = tuple(i for i in range(1, len(shots)) if shots[i] != shots[i - 1])
    assert at_rate(source, Fraction(out)).cuts == begins


class Watched(Blend):
    """Mixes, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, tuple[float, ...]]] = []

    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        self.asked.append((round(float(a.mean()) * 255), round(float(b.mean()) * 255), tuple(shares)))
        return super().__call__(a, b, shares)


def levels(count: int) -> Tensor:
    """Frame i shows the level i of 255."""
    return (torch.arange(count) / 255).view(-1, 1, 1, 1).expand(-1, 3, 2, 4).contiguous()


def run(source: VideoSpec, fps: Fraction | int, frames: Tensor, between: Blend | None = None) -> Tensor:
    stage = Interpolator(Fraction(fps), between or Blend())
    return torch.cat(list(stage.run(source, frames.split(2))))


def test_source_frames_stay_bit_for_bit() -> None:
    frames, source = torch.rand(8, 3, 2, 4), spec(8, 24)
    made = run(source, 30, frames)
    assert len(made) == 10
    assert torch.equal(made[::5], frames[::4])
    assert not any(torch.equal(frame, other) for frame in made[1:4] for other in frames)
    assert torch.equal(run(source, 24, frames), frames)
    assert torch.equal(run(source, 48, frames)[::2], frames)


def test_frames_between_are_asked_for_once() -> None:
    between = Watched()
    made = run(spec(4, 8, 2), 24, levels(4), between)
    third = pytest.approx((1 / 3, 2 / 3))
    assert between.asked == [(0, 1, third), (2, 3, third)]
    assert torch.allclose(
        made[:, 0, 0, 0] * 255, torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 2, 7 / 3, 8 / 3, 3, 3, 3]), atol=1e-4
    )


def test_fewer_frames_a_second() -> None:
    made = run(spec(10, 60), 24, levels(10))
    assert torch.allclose(made[:, 0, 0, 0] * 255, torch.tensor([0, 2.5, 5, 7.5]), atol=1e-4)


def test_one_frame_is_held() -> None:
    assert torch.equal(run(spec(1, 8), 24, levels(1)), levels(1).expand(3, -1, -1, -1))


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("fps", [2, 8, 30])
def test_a_source_that_ends_otherwise_is_an_error(count: int, fps: int) -> None:
    with pytest.raises(InputError, match=f"it holds {count} frames, and 4 were said"):
        run(spec(4, 8), fps, levels(count))


def test_memory_does_not_grow_with_the_length() -> None:
    asked = 0

    def coming() -> Iterator[Tensor]:
        nonlocal asked
        for frame in levels(50).split(1):
            asked += 1
            yield frame

    done = 0
    for chunk in Interpolator(Fraction(16), Blend()).run(spec(50, 8), coming()):
        done += len(chunk)
        assert asked <= done / 2 + 2


def moving(shift: int) -> Tensor:
    return torch.from_numpy(picture(96, 64, shift))[None]


@pytest.mark.parametrize(("method", "most"), [("rife", 0.012), ("dis", 0.02)])
def test_movement_is_followed(method: Method, most: float) -> None:
    """Where what moves is in between, better than by mixing, and frames keep their size, which is no multiple of 64."""
    wanted, between = moving(2)[:, :, :60, 12:80], open_between(method, HERE)
    a, b = (moving(shift)[:, :, :60, 12:80] for shift in (0, 4))
    made = between(a, b, [0.5])
    assert made.shape == wanted.shape
    error = (made - wanted)[..., 10:-10].abs().mean()
    assert error < most
    assert error < 0.5 * (Blend()(a, b, [0.5]) - wanted)[..., 10:-10].abs().mean()
    between.close()


def test_rife_at_half_the_size_takes_any_frame() -> None:
    between = open_between("rife", HERE, scale=0.5)
    made = between(moving(0), moving(2), [0.25, 0.75])
    assert made.shape == (2, 3, 64, 96)
    assert (made - moving(1)).abs().mean() < 0.06


def test_rife_keeps_what_it_found_of_a_frame() -> None:
    between = open_between("rife", HERE)
    assert isinstance(between, RifeBetween)
    a, b, c = moving(0), moving(2), moving(4)
    between(a, b, [0.5])
    assert torch.equal(between(b, c, [0.5]), open_between("rife", HERE)(b, c, [0.5]))


def test_names_of_methods() -> None:
    kinds = {method: type(open_between(method, HERE)).__name__ for method in ("auto", "rife", "dis", "blend", "hold")}
    assert kinds == {
        "auto": "FlowBetween", "rife": "RifeBetween", "dis": "FlowBetween", "blend": "Blend", "hold": "Hold"
    }  # fmt: skip
    held = open_interpolator(Fraction(24), "hold")
    assert torch.equal(torch.cat(list(held.run(spec(2, 12), levels(2).split(1)))), levels(2).repeat_interleave(2, 0))
    held.close()
    with pytest.raises(InputError, match=r"none of 1, 0\.5 and 0\.25"):
        open_interpolator(Fraction(24), "rife", scale=0.3)


def test_cuts_of_a_file_are_found() -> None:
    def frames() -> Iterator[np.ndarray]:
        colours = np.random.default_rng(3).integers(0, 255, (2, 12, 16, 3), dtype=np.uint8)
        for i in range(16):
            yield np.kron(np.roll(colours[i // 8], i % 8, 1), np.ones((8, 8, 1), np.uint8))

    assert tuple(i for i, begins in enumerate(shots(frames())) if begins) == (8,)
