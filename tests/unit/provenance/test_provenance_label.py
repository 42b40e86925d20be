"""The visible label: what its rule asks for, in letters that are there, and nothing else changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import ImageFont

from wanimate.config import MarkSettings
from wanimate.config.marks import Corner, LabelKind
from wanimate.errors import InputError
from wanimate.provenance.frames import FrameMarks
from wanimate.provenance.label import FONT, WORDS, Label
from wanimate.types import Frames

SIZES = [(1280, 720), (720, 1280), (256, 256)]


def grey(level: int, width: int, height: int, count: int = 1) -> Frames:
    return np.full((count, height, width, 3), level, np.uint8)


def letters(label: Label, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Where white letters are drawn on black."""
    white: npt.NDArray[np.bool_] = label.on_bytes(grey(0, width, height))[0, ..., 0] > 200
    return white


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["china", "eu+china"])
def test_chinas_letters_have_a_twentieth_of_the_short_side(kind: LabelKind, size: tuple[int, int]) -> None:
    label = Label(*size, MarkSettings(label=kind))
    assert label.text == "AI生成"
    rows, columns = np.nonzero(letters(label, *size))
    first = columns < columns.min() + (columns.max() - columns.min()) * 0.2  # the A
    assert np.ptp(rows[first]) + 1 >= 0.05 * min(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0, 120, 255])
def test_the_eus_label_is_read_on_light_and_dark_in_the_upper_right(size: tuple[int, int], level: int) -> None:
    label = Label(*size, MarkSettings(label="eu"))
    marked = label.on_bytes(grey(level, *size))[0, ..., 0].astype(int)
    left, top, right, bottom = label.box
    assert size[0] / 2 < left < right < size[0]
    assert 0 < top < bottom < size[1] / 8
    inside = marked[top:bottom, left:right]
    assert inside.max() - np.median(inside) > 120
    marked[top:bottom, left:right] = level
    assert (marked == level).all()


@pytest.mark.parametrize("size", [*SIZES, (320, 240)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_the_plain_label_is_small_and_in_its_corner(size: tuple[int, int], level: int) -> None:
    before = grey(level, *size, 2)
    marked = Label(*size, MarkSettings(label="plain")).on_bytes(before).astype(int)
    rows, columns = np.nonzero(np.abs(marked[0, ..., 0] - level) > 60)
    assert len(rows) > 100
    assert rows.min() > 0.89 * size[1]
    assert columns.min() > 0.6 * size[0]
    assert np.ptp(columns) > 0.08 * size[0]
    assert (before == level).all()
    np.testing.assert_array_equal(marked[0], marked[1])


@pytest.mark.parametrize("place", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_it_goes_into_the_corner_that_is_asked_for(place: Corner) -> None:
    left, top, right, bottom = Label(640, 360, MarkSettings(label="plain", label_place=place)).box
    assert ("left" in place) == (left + right < 640)
    assert ("top" in place) == (top + bottom < 360)


@pytest.mark.parametrize("language", WORDS)
def test_every_language_has_its_letters(language: str) -> None:
    label = Label(1280, 720, MarkSettings(label="eu", label_language=language))  # type: ignore[arg-type]
    assert "AI" in label.text
    font = ImageFont.truetype(FONT, 40)
    lacking = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != lacking for letter in label.text if letter != " ")


def test_letters_that_the_font_lacks_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"has no 龘 ก") as refused:
        Label(1280, 720, MarkSettings(label="plain", label_text="AI 龘ก"))
    assert refused.value.field == "marks.label_text"


@pytest.mark.parametrize(
    ("kind", "text"), [("eu", "generated"), ("china", "AI generated"), ("china", "生成"), ("eu+china", "人工智能生成")]
)
def test_a_text_without_the_rules_words_is_refused(kind: LabelKind, text: str) -> None:
    with pytest.raises(InputError) as refused:
        Label(1280, 720, MarkSettings(label=kind, label_text=text))
    assert refused.value.field == "marks.label_text"


def test_china_asks_for_two_seconds() -> None:
    with pytest.raises(InputError, match="asks for 2 s"):
        Label(1280, 720, MarkSettings(label="china", label_seconds=1.9))
    assert Label(1280, 720, MarkSettings(label="china", label_seconds=2)).seconds == 2


def test_a_label_that_does_not_fit_is_refused_where_a_rule_has_its_size() -> None:
    with pytest.raises(InputError, match="does not fit"):
        Label(64, 640, MarkSettings(label="eu"))
    assert Label(64, 640, MarkSettings(label="plain")).on_bytes(grey(0, 64, 640)).shape == (1, 640, 64, 3)
    assert Label(16, 16, MarkSettings(label="plain")).on_bytes(grey(0, 16, 16)).shape == (1, 16, 16, 3)


def test_float_frames_get_the_same_label() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 180, 320, 3), np.uint8)
    label = Label(320, 180, MarkSettings(label="eu"))
    floats = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    before = floats.clone()
    marked = (label.on(floats)[0] * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(marked - label.on_bytes(frames)).max() <= 1
    assert torch.equal(floats, before)


def test_it_shows_from_the_first_frame_for_its_seconds_across_pieces() -> None:
    settings = MarkSettings(label="china", label_seconds=2, invisible=False)
    marks = FrameMarks(settings, 320, 180, 4.0, "id")
    frames = torch.zeros(12, 3, 180, 320)
    clear = torch.zeros(12, 1, 180, 320)
    pieces = [marks.on(frames[i : i + 5], i, clear[i : i + 5]) for i in (0, 5, 10)]
    for planes in zip(*pieces, strict=True):
        assert [bool(frame.any()) for frame in torch.cat(list(planes))] == [True] * 8 + [False] * 4
    assert not clear.any()
    assert marks.on(frames[:5], 0)[1] is None
