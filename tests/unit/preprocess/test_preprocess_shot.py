"""Camera, light and size of shots: scenes made here whose camera and light are known."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from test_preprocess_drive import _figure

from wanimate.preprocess.shot import camera, light
from wanimate.preprocess.shot.advice import advice_of_clip, advice_of_shot
from wanimate.preprocess.shot.analysis import ShotWatch, outline
from wanimate.preprocess.shot.framing import framing_of, shot_size
from wanimate.types import Frame

WIDTH, HEIGHT, RATE, COUNT = 320, 180, 24, 30
Homography = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def wall() -> Frame:
    """Rectangles of many colours, larger than what is seen of them."""
    rng = np.random.default_rng(5)
    picture = np.full((540, 960, 3), 120, np.uint8)
    for _ in range(260):
        x, y, w, h = rng.integers(0, 960), rng.integers(0, 540), *rng.integers(8, 60, 2)
        picture[y : y + h, x : x + w] = rng.integers(20, 235, 3)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8), np.uint8)


def seen(wall: Frame, move: str, amount: float, seconds: float) -> Frame:
    """The wall after so many seconds; `amount` a second in widths, in logarithms of the scale, or in degrees."""
    go = amount * seconds
    scale = np.exp(go) if move == "zoom" else 1.0
    turn = cv2.getRotationMatrix2D((480, 270), -go if move == "roll" else 0.0, scale)
    turn[:, 2] += (WIDTH / 2 - 480, HEIGHT / 2 - 270)
    turn[0, 2] += go * WIDTH if move == "pan" else 0.0
    turn[1, 2] += go * WIDTH if move == "tilt" else 0.0
    return np.asarray(cv2.warpAffine(wall, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR), np.uint8)


def watched(frames: Iterator[tuple[Frame, Frame | None]]) -> ShotWatch:
    watch = ShotWatch(COUNT, Fraction(RATE))
    for i, (frame, hidden) in enumerate(frames):
        watch.see(i, frame, None, hidden)
    return watch


@pytest.mark.parametrize(
    ("move", "amount", "name"),
    [
        ("pan", 0.1, "Pan Left"), ("pan", -0.3, "Pan Right"), ("tilt", 0.1, "Tilt Up"), ("tilt", -0.1, "Tilt Down"),
        ("zoom", 0.08, "Zoom In"), ("zoom", -0.08, "Zoom Out"), ("roll", 6, "Roll Left"), ("roll", -6, "Roll Right"),
        ("pan", 0.0, "Static"),
    ],
)  # fmt: skip
def test_moves_have_their_names(wall: Frame, move: str, amount: float, name: str) -> None:
    watch = watched((seen(wall, move, amount, i / RATE), None) for i in range(COUNT))
    found = camera.named(watch.shots[0].steps, COUNT / RATE)
    assert found.value == name
    assert found.confidence > 0.6
    assert camera.stretches(watch.shots[0].steps, watch.shots[0].at)[0][2] == name


def test_a_hand_is_told_from_a_tripod(wall: Frame) -> None:
    def shaken() -> Iterator[tuple[Frame, None]]:
        for i in range(COUNT):
            turn = np.float32([[1, 0, -320 + 1.5 * np.sin(2.9 * i)], [0, 1, -180 + 1.5 * np.sin(2.3 * i + 1)]])
            yield cv2.warpAffine(wall, turn, (WIDTH, HEIGHT)), None  # type: ignore[misc]

    assert camera.named(watched(shaken()).shots[0].steps, COUNT / RATE).value == "Handheld"


def test_the_performer_is_not_the_camera(wall: Frame) -> None:
    """Somebody who fills half of the picture moves through a still one."""

    def walking(masked: bool) -> Iterator[tuple[Frame, Frame | None]]:
        for i in range(COUNT):
            frame, hidden = seen(wall, "pan", 0.0, 0.0), np.zeros((HEIGHT, WIDTH), np.uint8)
            at = 10 + 3 * i
            frame[:, at : at + 200] = wall[:HEIGHT, :200]
            hidden[:, at : at + 200] = 255
            yield frame, hidden if masked else None

    assert camera.named(watched(walking(True)).shots[0].steps, COUNT / RATE).value == "Static"
    assert camera.named(watched(walking(False)).shots[0].steps, COUNT / RATE).value != "Static"


def test_where_nothing_can_be_followed_nothing_is_said() -> None:
    ramp = np.repeat(np.linspace(60, 180, WIDTH).astype(np.uint8)[None, :, None], HEIGHT, 0).repeat(3, 2)
    shot = watched((ramp, None) for _ in range(COUNT)).shots[0]
    found = camera.named(shot.steps, COUNT / RATE)
    assert (found.value, found.confidence) == (None, 0.0)
    assert light.drifts(light.changes(shot.changes), None, 1.0)["drift"].value == 0.0, (
        "its light can be told all the same"
    )


def test_few_frames_are_looked_at_and_shots_are_apart(wall: Frame) -> None:
    watch = ShotWatch(COUNT, Fraction(RATE), (13,))
    for i in range(COUNT):
        watch.see(i, seen(wall, "pan", 0.1 if i < 13 else -0.1, i / RATE))
    first, second = watch.shots
    assert (first.first, first.stop, first.at) == (0, 13, [0, 3, 6, 9, 12])
    assert (second.first, second.stop, second.at[0]) == (13, COUNT, 13)
    assert [camera.named(shot.steps, 0.6).value for shot in watch.shots] == ["Pan Left", "Pan Right"]


def lit(kelvin: float, level: float = 0.4) -> Frame:
    """A room of coloured walls and a white table under a light."""
    rng = np.random.default_rng(2)
    coded = np.kron(rng.uniform(0.1, 0.7, (9, 16, 3)), np.ones((20, 20, 1)))
    coded[120:170, 60:200] = 0.9
    white = light.white_at(1e6 / kelvin)
    shining = coded**2.2 * white / (white @ [0.2126, 0.7152, 0.0722]) * level
    return np.asarray(
        (255 * np.where(shining < 0.018, 4.5 * shining, 1.099 * shining**0.45 - 0.099)).clip(0, 255), np.uint8
    )


@pytest.mark.parametrize("kelvin", [2856, 3200, 4000, 5000, 6504, 9000])
def test_the_temperature_is_that_of_what_is_white(kelvin: int) -> None:
    watch = watched((lit(kelvin), None) for _ in range(2))
    found = light.temperature(watch.shots[0].tally)
    assert found.value == pytest.approx(kelvin, rel=0.1)
    assert light.mixed(watch.shots[0].tally).value is not True


def test_light_that_changes_is_told_in_stops(wall: Frame) -> None:
    """Also while the camera pans from dark things to bright ones."""

    def fading() -> Iterator[tuple[Frame, None]]:
        for i in range(COUNT):
            shining = light.small_light(seen(wall, "pan", -0.15, i / RATE).astype(np.float32)) * 2.0 ** (-i / COUNT)
            coded = np.where(shining < 0.018, 4.5 * shining, 1.099 * shining.clip(0.018) ** 0.45 - 0.099)
            yield (255 * coded + 0.5).astype(np.uint8), None

    shot = watched(fading()).shots[0]
    found = light.drifts(light.changes(shot.changes), 5000, 1.0)
    assert found["drift"].value == pytest.approx(0.9, abs=0.15)
    assert found["temperatureDrift"].value < 300
    steady = watched((seen(wall, "pan", -0.15, i / RATE), None) for i in range(COUNT)).shots[0]
    assert light.drifts(light.changes(steady.changes), 5000, 1.0)["drift"].value < 0.05


def test_a_slow_change_of_light_is_told_too(wall: Frame) -> None:
    """From one looked-at frame to the next it is less than a code value."""
    still = light.small_light(seen(wall, "pan", 0.0, 0.0).astype(np.float32))

    def fading() -> Iterator[tuple[Frame, None]]:
        for i in range(COUNT):
            shining = still * 2.0 ** (-0.15 * i / COUNT)
            coded = np.where(shining < 0.018, 4.5 * shining, 1.099 * shining.clip(0.018) ** 0.45 - 0.099)
            yield (255 * coded + 0.5).astype(np.uint8), None

    shot = watched(fading()).shots[0]
    assert light.drifts(light.changes(shot.changes), 5000, 1.0)["drift"].value == pytest.approx(0.13, abs=0.03)


def test_clipping_is_measured() -> None:
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    frame[:45], frame[54:108] = 255, 0
    level = light.level(watched(iter([(frame, None)])).shots[0].tally)
    assert [level[name].value for name in ("white", "black")] == [
        pytest.approx(0.25, abs=0.02),
        pytest.approx(0.3, abs=0.02),
    ]


def test_the_size_is_what_is_seen_of_a_body() -> None:
    size, whole = (640, 480), _figure(320, 120, 400)
    assert framing_of(whole, size) == "WS"
    assert framing_of(_figure(320, 200, 150), size) == "EWS"
    assert framing_of(_figure(320, 120, 500), size) == "MWS"
    assert framing_of(_figure(320, 200, 700), size) == "MS"
    assert framing_of(_figure(320, 350, 1000), size) == "MCU"
    assert framing_of(_figure(320, 520, 1700), size) == "CU"
    assert framing_of(_figure(320, 700, 2800), size) == "ECU"
    nobody = np.zeros((133, 3))
    assert framing_of(nobody, size) is None
    assert shot_size([]).value is None
    found = shot_size([framing_of(one, size) for one in (whole, whole, nobody)])
    assert (found.value, found.confidence < 0.6) == ("WS", True)
    assert outline(nobody, (480, 640)) is None
    hidden = outline(whole, (480, 640))
    assert hidden is not None
    top, hair = int(whole[23:91, 1].min()), int(whole[23:91, 1].min() - 0.1 * 400)
    assert hidden[top, 320] == hidden[hair, 320] == 255, "hair lies above all points"
    assert 0.1 < hidden.mean() / 255 < 0.4


def test_the_advice_follows_the_light() -> None:
    steady = {"drift": 0.05, "temperature": 5000, "temperatureDrift": 100, "white": 0.0, "black": 0.01, "mixed": False}
    assert advice_of_shot(steady).action == "relight"
    for change in ({"drift": 0.6}, {"temperatureDrift": 900}, {"white": 0.1}, {"black": 0.4}, {"mixed": True}):
        found = advice_of_shot(steady | change)
        assert (found.action, len(found.reasons)) == ("grade", 1), change
    assert "could be followed" in advice_of_shot({}).text
    shots = [advice_of_shot(steady), advice_of_shot(steady | {"mixed": True})]
    clip = advice_of_clip([40], shots)
    assert (clip.action, "frame 40" in clip.text, "shot 2" in clip.text) == ("split", True, True)
    assert advice_of_clip([], shots[:1]) == shots[0]
