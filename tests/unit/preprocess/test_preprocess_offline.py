"""The default mask backend, with networks that say what a test wants: no model files are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from test_preprocess_drive import _figure

from wanimate.preprocess.detect.litert import Array
from wanimate.preprocess.masks.decide import Evidence, attached, decide
from wanimate.preprocess.masks.networks import Box, person_box
from wanimate.preprocess.masks.offline import Explained, OfflineMasks, look_frames, stretches, without
from wanimate.preprocess.masks.skeleton import distances, sure_pixels
from wanimate.preprocess.pose.keypoints import LEFT_HAND
from wanimate.types import Frame, Keypoints

HEIGHT, WIDTH, COUNT = 240, 320, 5
PERSON = _figure(100.0, 60.0, 150.0)
BODY, OTHER = (70, 30, 131, 190), (220, 40, 270, 200)
Answer = Callable[[Array, int], Any]


def bright(picture: Array, call: int = 0) -> Any:
    return picture[..., 0] > 0.5


class FakeNetwork:
    """Answers, look after look, by looking at the picture: what is bright is a person."""

    side = 256

    def __init__(self, answer: Answer = bright) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self, picture: Array) -> Array:
        self.calls += 1
        return np.asarray(self.answer(picture, self.calls), dtype=np.float32)


def _masks(
    frames: Sequence[Frame],
    valid: Sequence[bool] | None = None,
    answer: Answer = bright,
    person: Keypoints = PERSON,
    **given: Any,
) -> npt.NDArray[np.uint8]:
    people = np.repeat(person[None], len(frames), 0) if person.ndim == 2 else person
    return _followed(OfflineMasks(FakeNetwork(answer), FakeNetwork(answer), **given), frames, people, valid)


def _followed(
    backend: OfflineMasks, frames: Sequence[Frame], people: Keypoints, valid: Sequence[bool] | None = None
) -> npt.NDArray[np.uint8]:
    there = np.ones(len(frames), dtype=bool) if valid is None else np.array(valid)
    out = list(backend.follow(iter(frames), people, there))
    assert all(a is b for (a, _), b in zip(out, frames, strict=True))
    return np.stack([mask for _, mask in out])


def _frame(*boxes: tuple[int, int, int, int]) -> Frame:
    """A dark frame with bright boxes (x0, y0, x1, y1)."""
    frame = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for x0, y0, x1, y1 in boxes:
        frame[y0:y1, x0:x1] = 230
    return frame


def _iou(mask: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    return float((mask.astype(bool) & truth).sum() / (mask.astype(bool) | truth).sum())


def test_the_mask_lies_where_the_person_is() -> None:
    masks = _masks([_frame(BODY)] * COUNT)
    truth = _frame(BODY)[..., 0] > 100
    assert masks.shape == (COUNT, HEIGHT, WIDTH)
    assert set(np.unique(masks)) == {0, 1}
    assert all(_iou(mask, truth) > 0.93 for mask in masks)


def test_the_networks_look_at_every_third_frame() -> None:
    networks = FakeNetwork(), FakeNetwork()
    _followed(OfflineMasks(*networks), [_frame(BODY)] * 7, np.repeat(PERSON[None], 7, 0))
    assert [n.calls for n in networks] == [3, 3]
    stretch = stretches(np.array([0, 1, 1, 1, 1, 0, 1, 1, 0, 1], dtype=bool), [3])
    assert stretch.tolist() == [0, 1, 1, 2, 2, 0, 3, 3, 0, 4]
    looks = look_frames(np.array([0, 1, 1, 1, 1, 1, 1, 0, 2]))
    assert np.flatnonzero(looks).tolist() == [1, 4, 6, 8]  # a stretch's first and last frame always


def test_a_second_person_apart_is_not_taken() -> None:
    assert not _masks([_frame(BODY, OTHER)] * 3)[:, :, OTHER[0] :].any()


def test_a_second_person_who_touches_is_not_taken_where_the_detector_sees_them() -> None:
    touching = (131, 40, 185, 200)
    other = _figure(158.0, 70.0, 150.0)
    frames = [_frame(BODY, touching)] * 3
    asked: list[Frame] = []

    def everybody(frame: Frame) -> list[Keypoints]:
        asked.append(frame)
        return [PERSON, other]

    truth = _frame(BODY)[..., 0] > 100
    alone, both = _masks(frames, everybody=everybody), _masks(frames)
    assert asked
    assert min(_iou(mask, truth) for mask in alone) > 0.85 > max(_iou(mask, truth) for mask in both)
    assert [round(float(p[0, 0])) for p in without([PERSON, other], PERSON)] == [158]


def test_nobody_else_is_searched_for_beside_a_person_in_usual_clothes() -> None:
    asked: list[Frame] = []
    _masks([_frame(BODY)] * 3, everybody=lambda frame: asked.append(frame) or [])
    assert not asked


def test_hands_and_bones_are_kept_where_the_networks_see_nobody() -> None:
    (mask,) = _masks([_frame()], answer=lambda picture, _: np.zeros(picture.shape[:2]))
    hand = PERSON[LEFT_HAND, :2].astype(int)
    assert mask[hand[10, 1], hand[10, 0]] == 1
    assert mask[100, 100] == 1  # the trunk
    assert 0 < mask.sum() < 0.1 * mask.size


def test_a_blind_look_is_outvoted() -> None:
    frames = [_frame(BODY)] * 9
    masks = _masks(frames, answer=lambda picture, call: bright(picture) & (call != 3))
    assert (masks[4] != masks[0]).mean() < 0.01


def test_a_speck_beside_the_person_is_not_taken() -> None:
    (mask,) = _masks([_frame(BODY, (145, 40, 151, 46))])
    assert mask[100, 100] == 1
    assert not mask[35:50, 140:160].any()


def test_there_is_no_lag() -> None:
    """A body that moves is masked where it is in each frame, not where it was; the networks saw every third one."""
    frames, people = [], []
    for i in range(COUNT):
        frames.append(_frame((70 + 6 * i, 30, 131 + 6 * i, 190)))
        people.append(_figure(100.0 + 6 * i, 60.0, 150.0))
    found = _masks(frames, person=np.stack(people))
    for frame, mask in zip(frames, found, strict=True):
        assert _iou(mask, frame[..., 0] > 100) > 0.9


def test_answers_are_not_carried_over_a_cut() -> None:
    """What the frame before shows elsewhere does not count in a frame that shows something else."""
    left, right = _frame(BODY), np.ascontiguousarray(_frame(BODY)[:, ::-1])
    people = np.stack([PERSON] * 3 + [PERSON * (-1, 1, 1) + (WIDTH, 0, 0)] * 3)
    valid = np.ones(6, dtype=bool)
    backend = OfflineMasks(FakeNetwork(), FakeNetwork())
    found = [mask for _, mask in backend.follow(iter([left] * 3 + [right] * 3), people, valid, [3])]
    assert _iou(found[2], left[..., 0] > 100) > 0.9
    assert _iou(found[3], right[..., 0] > 100) > 0.9


def _evidence(salient: Array, person: Array) -> Evidence:
    core = sure_pixels(PERSON, (WIDTH, HEIGHT))
    return Evidence(salient.astype(np.float32), person.astype(np.float32), core, distances(PERSON, core))


def _inside(x0: int, y0: int, x1: int, y1: int, value: float = 0.99) -> Array:
    return np.where(_frame((x0, y0, x1, y1))[..., 0] > 100, np.float32(value), np.float32(0))


@pytest.mark.parametrize("wrong", [-5, 5])
def test_the_contour_goes_where_the_colours_change(wrong: int) -> None:
    """Both answers are several pixels too small or too large all around."""
    x0, y0, x1, y1 = BODY
    around = _inside(x0 - 8, y0 - 8, x1 + 8, y1 + 8, 0.15)
    soft = np.maximum(_inside(x0 - wrong, y0 - wrong, x1 + wrong, y1 + wrong, 0.85), around)
    mask = decide(_frame(BODY), _evidence(soft, soft)).mask
    assert (mask != (_inside(*BODY) > 0)).sum() < 0.05 * ((soft > 0.5) != (_inside(*BODY) > 0)).sum()


@pytest.mark.parametrize("strays", ["salient", "person"])
def test_what_one_network_takes_along_goes_by_its_colours(strays: str) -> None:
    """A curtain as the selfie network takes it, or a picture frame that stands out."""
    picture = _frame(BODY)
    picture[:, 131:] = (150, 20, 30)
    good, too_much = _inside(*BODY), np.maximum(_inside(*BODY), _inside(131, 60, 160, 150))
    seen = _evidence(too_much, good) if strays == "salient" else _evidence(good, too_much)
    assert _iou(decide(picture, seen).mask, good > 0) > 0.95


def test_a_hat_that_only_stands_out_is_kept() -> None:
    hat = (84, 11, 117, 30)
    picture = _frame(BODY)
    picture[hat[1] : hat[3], hat[0] : hat[2]] = (40, 180, 60)
    good = np.maximum(_inside(*BODY), _inside(*hat))
    mask = decide(picture, _evidence(good, np.where(_inside(*hat) > 0, 0, good))).mask
    assert mask[hat[1] + 3 : hat[3], hat[0] + 3 : hat[2] - 3].mean() > 0.9


def test_pieces_without_a_bone_are_dropped_and_no_skeleton_drops_nothing() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:6, 2:6] = mask[10:14, 10:14] = True
    core = np.zeros((20, 20), np.uint8)
    np.testing.assert_array_equal(attached(mask, core), mask)
    core[3, 3] = 1
    assert attached(mask, core).sum() == 16


def test_frames_without_a_person_have_no_mask() -> None:
    masks = _masks([_frame(BODY)] * COUNT, valid=[True, True, False, True, False])
    assert [bool(m.any()) for m in masks] == [True, True, False, True, False]


@pytest.mark.parametrize("count", [1, 2])
def test_short_clips(count: int) -> None:
    assert len(_masks([_frame(BODY)] * count)) == count
    assert list(OfflineMasks(FakeNetwork(), FakeNetwork()).follow(iter(()), PERSON[None][:0], np.zeros(0, bool))) == []


def test_memory_does_not_grow_with_the_clip() -> None:
    """No frame is asked for more than three ahead of the mask that was handed out."""
    taken = []

    def frames() -> Iterator[Frame]:
        for i in range(20):
            taken.append(i)
            yield _frame(BODY)

    backend = OfflineMasks(FakeNetwork(), FakeNetwork())
    people = np.repeat(PERSON[None], 20, 0)
    for done, _ in enumerate(backend.follow(frames(), people, np.ones(20, dtype=bool))):
        assert len(taken) <= done + 4


def test_the_box_has_room_for_hats_and_goes_to_the_border_where_limbs_do() -> None:
    box = person_box(PERSON, WIDTH, HEIGHT)
    face = PERSON[23:91, :2]
    assert box.top <= max(face[:, 1].min() - np.ptp(face, axis=0).max(), 0)
    leaves = PERSON.copy()
    leaves[9] = (-40, 100, 0.9)
    assert person_box(leaves, WIDTH, HEIGHT).left == 0
    legless = PERSON.copy()
    legless[11:17, 2] = 0
    assert person_box(legless, WIDTH, HEIGHT).bottom == HEIGHT
    assert person_box(np.zeros((133, 3)), WIDTH, HEIGHT) == Box(0, 0, WIDTH, HEIGHT)


def test_a_person_that_the_box_cuts_off_is_looked_at_again() -> None:
    """A coat that swings out beyond the box's margin: its edge is nowhere seen in the mask."""
    wide = (62, 30, 139, 190)
    narrow = Box(80, 20, 120, 200)
    soft = narrow.answered(FakeNetwork(), _frame(wide), (WIDTH, HEIGHT))
    assert narrow.touched(soft, WIDTH, HEIGHT) == (True, False, True, False)
    grown = narrow.grown((True, False, True, False), WIDTH, HEIGHT)
    assert grown == Box(70, 20, 130, 200)


def test_an_answer_lies_where_the_box_was() -> None:
    """The network's picture is put back within half a pixel, also for small frames."""
    soft = Box(41, 13, 187, 222).answered(FakeNetwork(), _frame(BODY), (WIDTH, HEIGHT))
    ys, xs = np.nonzero(soft > 0.5)
    assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - BODY).max() <= 1
    half = Box(41, 13, 187, 222).answered(FakeNetwork(), _frame(BODY), (WIDTH // 2, HEIGHT // 2))
    ys, xs = np.nonzero(half > 0.5)
    assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * 2 - BODY).max() <= 2


def test_every_mask_is_explained() -> None:
    reasons: list[Explained] = []
    frames = [cv2.resize(_frame(BODY), (640, 480))] * 4
    person = PERSON * (2, 2, 1)
    _masks(frames, person=person, explain=reasons.append)
    assert [r.index for r in reasons] == [0, 1, 2, 3]
    assert [r.box is None for r in reasons] == [False, True, True, False]
    assert all(r.decision.mask.shape == r.seen.salient.shape == (384, 512) for r in reasons)
