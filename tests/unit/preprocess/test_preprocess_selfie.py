"""The default mask backend, with a network that says what a test wants: no model files are needed."""

from __future__ import annotations

import numpy as np
import pytest
from test_preprocess_drive import _figure

from wanimate.preprocess.masks import selfie as segment
from wanimate.preprocess.pose.keypoints import LEFT_HAND

HEIGHT, WIDTH, COUNT = 240, 320, 5
PERSON = _figure(100.0, 60.0, 150.0)


class FakeNetwork:
    """Answers, crop after crop, by looking at the crop: what is bright is a person."""

    size = 256

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    def __call__(self, crop):
        self.calls += 1
        return [self.answer(crop, self.calls)[..., None].astype(np.float32)]


def _masks(frames, valid=None, answer=lambda crop, _: crop[..., 0] > 0.5, person=PERSON):
    backend = segment.SelfieMasks.__new__(segment.SelfieMasks)
    backend._network = FakeNetwork(answer)
    valid = np.ones(len(frames), dtype=bool) if valid is None else np.array(valid)
    out = list(backend.follow(iter(frames), np.repeat(person[None], len(frames), 0), valid))
    assert all(a is b for (a, _), b in zip(out, frames, strict=True))
    return np.stack([mask for _, mask in out])


def _frame(*boxes):
    """A dark frame with bright boxes (x0, y0, x1, y1)."""
    frame = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for x0, y0, x1, y1 in boxes:
        frame[y0:y1, x0:x1] = 230
    return frame


BODY, OTHER = (70, 30, 131, 190), (220, 40, 270, 200)


def test_the_mask_lies_where_the_person_is():
    masks = _masks([_frame(BODY)] * COUNT)
    truth = _frame(BODY)[..., 0] > 100
    assert masks.shape == (COUNT, HEIGHT, WIDTH)
    assert set(np.unique(masks)) == {0, 1}
    for mask in masks:
        assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_a_second_person_in_the_crop_is_not_taken():
    masks = _masks([_frame(BODY, OTHER)] * 3, person=_figure(100.0, 60.0, 250.0) * (1, 1, 1))
    beside = segment.person_crop(_figure(100.0, 60.0, 250.0), WIDTH, HEIGHT)
    assert beside.x + beside.side / 2 > OTHER[0] + 10  # the network did see it
    alone = _masks([_frame(BODY, OTHER)] * 3)
    assert not alone[:, :, OTHER[0] :].any()
    assert masks[:, 100, 100].all()


def test_hands_and_bones_are_kept_where_the_network_sees_nobody():
    (mask,) = _masks([_frame()], answer=lambda crop, _: np.zeros((256, 256)))
    hand = PERSON[LEFT_HAND, :2].astype(int)
    assert mask[hand[10, 1], hand[10, 0]] == 1
    assert mask[100, 100] == 1  # the trunk
    assert 0 < mask.sum() < 0.1 * mask.size


def test_a_hole_of_one_frame_is_closed_and_a_single_sure_sight_is_kept(monkeypatch):
    monkeypatch.setattr(segment, "refined", lambda picture, soft, core: soft > 0.4)  # colours would close it, too

    def blind_once(crop, call):
        return (crop[..., 0] > 0.5) & (call != 3)

    masks = _masks([_frame(BODY)] * COUNT, answer=blind_once)
    assert (masks[2] != masks[1]).sum() <= 4
    seen_once = _masks([_frame(BODY)] * COUNT, answer=lambda crop, call: (crop[..., 0] > 0.5) & (call == 3))
    assert seen_once[2].sum() > 1.5 * seen_once[0].sum()


def test_a_speck_beside_the_person_is_not_taken():
    (mask,) = _masks([_frame(BODY, (145, 40, 151, 46))])
    assert mask[100, 100] == 1
    assert not mask[35:50, 140:160].any()


def test_there_is_no_lag():
    """A body that moves is masked where it is in each frame, not where it was."""
    frames, people = [], []
    for i in range(COUNT):
        frames.append(_frame((70 + 12 * i, 30, 131 + 12 * i, 190)))
        people.append(_figure(100.0 + 12 * i, 60.0, 150.0))
    backend = segment.SelfieMasks.__new__(segment.SelfieMasks)
    backend._network = FakeNetwork(lambda crop, _: crop[..., 0] > 0.5)
    found = [m for _, m in backend.follow(iter(frames), np.stack(people), np.ones(COUNT, dtype=bool))]
    for frame, mask in zip(frames, found, strict=True):
        truth = frame[..., 0] > 100
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9


@pytest.mark.parametrize("wrong", [-5, 5])
def test_the_contour_goes_where_the_colours_change(wrong):
    """The network's answer is several pixels too small or too large all around."""
    frame, truth = _frame(BODY), _frame(BODY)[..., 0] > 100
    x0, y0, x1, y1 = BODY
    soft = np.zeros((HEIGHT, WIDTH), np.float32)
    soft[y0 - wrong : y1 + wrong, x0 - wrong : x1 + wrong] = 0.7
    core = np.zeros((HEIGHT, WIDTH), np.uint8)
    core[100:110, 95:105] = 1
    mask = segment.refined(frame, soft, core)
    before = ((soft > 0.4) != truth).sum()
    assert (mask != truth).sum() < 0.05 * before
    np.testing.assert_array_equal(segment.refined(frame, soft, core), mask)


def test_colours_decide_in_a_narrow_band_only():
    frame = _frame(BODY, (131, 30, 300, 190))  # something of the same colour touches the person
    soft = np.where(_frame(BODY)[..., 0] > 100, np.float32(0.7), np.float32(0))
    mask = segment.refined(frame, soft, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert not mask[:, 131 + 11 :].any()
    hidden = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)  # no colours at all: nothing far from the contour changes
    mask = segment.refined(hidden, soft, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert mask[100, 100] == 1
    everywhere = segment.refined(frame, np.ones((HEIGHT, WIDTH), np.float32), np.ones((HEIGHT, WIDTH), np.uint8))
    assert everywhere.all()


def test_frames_without_a_person_have_no_mask():
    masks = _masks([_frame(BODY)] * COUNT, valid=[True, True, False, True, False])
    assert [bool(m.any()) for m in masks] == [True, True, False, True, False]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_clips(count):
    frames = [_frame(BODY)] * count
    backend = segment.SelfieMasks.__new__(segment.SelfieMasks)
    backend._network = FakeNetwork(lambda crop, _: crop[..., 0] > 0.5)
    out = list(backend.follow(iter(frames), np.repeat(PERSON[None], 3, 0)[:count], np.ones(count, dtype=bool)))
    assert len(out) == count


def test_memory_does_not_grow_with_the_clip():
    """No frame is asked for more than one ahead of the mask that was handed out."""
    taken = []

    def frames():
        for i in range(20):
            taken.append(i)
            yield _frame(BODY)

    backend = segment.SelfieMasks.__new__(segment.SelfieMasks)
    backend._network = FakeNetwork(lambda crop, _: crop[..., 0] > 0.5)
    for done, _ in enumerate(backend.follow(frames(), np.repeat(PERSON[None], 20, 0), np.ones(20, dtype=bool))):
        assert len(taken) <= done + 2


def test_the_answer_lies_where_the_crop_was():
    """The network's picture is put back within half a pixel, also for small frames."""
    answer = lambda crop, _: (crop[..., 0] > 0.5).astype(np.float32)  # noqa: E731
    backend = segment.SelfieMasks.__new__(segment.SelfieMasks)
    backend._network = FakeNetwork(answer)
    soft = backend._probability(_frame(BODY), PERSON, (WIDTH, HEIGHT))
    ys, xs = np.nonzero(soft > 0.5)
    assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - BODY).max() <= 1
