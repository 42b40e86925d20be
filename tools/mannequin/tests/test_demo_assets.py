"""The packaged clip and character pictures, and the program that makes them."""

from __future__ import annotations

import dataclasses
import math
from importlib.resources import files
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from mannequin import demo
from mannequin.world.assets import load
from mannequin.world.body import AT, Rig, skin
from mannequin.world.layout import EXPRESSIONS, HELD_OUT
from wanimate.media.probe import probe
from wanimate.preprocess.pose.keypoints import FACE, LEFT_HAND, RIGHT_HAND

SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))
BODIES = Path(__file__).parent / "data" / "mannequins.npz"


def test_the_clip_is_a_valid_performance_with_sound() -> None:
    clip = probe(SHIPPED / "performer.mp4")
    assert (clip.width, clip.height, clip.fps, clip.count) == (384, 384, 16, 53)
    assert not clip.variable_rate
    assert (clip.codec, [track.codec for track in clip.audio]) == ("h264", ["aac"])
    assert clip.audio[0].duration == pytest.approx(clip.duration, abs=0.05)
    assert clip.bytes < 500_000


def test_the_clip_can_be_heard() -> None:
    with av.open(str(SHIPPED / "performer.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert 0.01 < samples.std() < 0.3
    assert np.abs(samples).max() < 0.99


@pytest.mark.parametrize(("number", "role"), [*enumerate(demo.CHARACTERS, 1)])
def test_characters_are_small_colour_pictures(number: int, role: demo.Role) -> None:
    path = SHIPPED / f"character-{number}.png"
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape == (*role.size[::-1], 3)
    assert path.stat().st_size < 150_000


def test_nothing_else_is_shipped() -> None:
    expected = {"performer.mp4"} | {f"character-{i}.png" for i in range(1, 5)}
    assert {path.name for path in SHIPPED.iterdir()} == expected
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 500_000


def test_five_different_held_out_people() -> None:
    bodies = [role.body for role in (demo.PERFORMER, *demo.CHARACTERS)]
    assert len(set(bodies)) == 5
    assert min(bodies) >= 160 - HELD_OUT
    assert max(bodies) < 160


def test_the_performance_starts_and_ends_calm_and_stays_smooth() -> None:
    pose, face = demo.perform(np.arange(demo.FRAMES) / demo.RATE)
    calm, _ = demo.still(1)
    for frame in (0, -1):
        assert (pose[frame] - calm[0]).abs().max() < np.radians(1)
    step = np.degrees((pose[1:] - pose[:-1]).abs().amax().item())
    assert 5 < step < 30
    jaw = face[:, list(EXPRESSIONS).index("jaw")]
    assert jaw.max() > 0.5
    assert jaw[[0, -1]].max() < 0.01
    for name in ("blink_left", "blink_right"):
        shut = face[:, list(EXPRESSIONS).index(name)] > 0.9
        assert (shut[1:] & ~shut[:-1]).sum() >= 3
        assert shut.float().mean() < 0.3
    assert face.amin() >= 0
    assert face.amax() <= 1


def test_hands_are_raised_slowly_and_held_still() -> None:
    pose, _ = demo.perform(np.arange(demo.FRAMES) / demo.RATE)
    for side, (leaves, up, down, back) in (("R", demo._RIGHT), ("L", demo._LEFT)):
        assert min(up - leaves, back - down) >= 0.39
        shown = max(up, demo._COUNT[1]) if side == "R" else up
        assert down - shown >= 0.6
        held = slice(math.ceil(shown * demo.RATE), math.floor(down * demo.RATE) + 1)
        arm = [AT[f"{name}_{side}"] for name in demo._CALM]
        assert (pose[held, arm] - pose[held.start, arm]).abs().max() < 1e-5


def test_three_fingers_are_shown() -> None:
    pose, _ = demo.perform(np.array([1.2]))
    bent = [np.degrees(pose[0, AT[f"finger{finger}_R"]].item()) for finger in range(1, 6)]
    assert max(bent[1:4]) < 10
    assert min(bent[0], bent[4]) > 40


@pytest.mark.parametrize("role", [demo.PERFORMER, *demo.CHARACTERS])
def test_faces_are_large_and_hands_beside_them(role: demo.Role) -> None:
    """Of a body of the tests, in the frame of each role."""
    people = load(BODIES)
    rig, body = Rig(people), torch.tensor([0])
    camera = demo._camera(role, skin(rig, body, *demo.still(1)).keypoints[0])
    pose, expression = demo.perform(np.arange(demo.FRAMES) / demo.RATE)
    points = skin(rig, body.expand(demo.FRAMES), pose, expression).keypoints
    flat = camera.project(points.flatten(0, 1)[None])[0, :, :2].unflatten(0, points.shape[:2])
    left, right = flat[:, FACE, 0].amin(1), flat[:, FACE, 0].amax(1)
    top, chin = flat[:, FACE, 1].amin(1), flat[:, FACE, 1].amax(1)
    assert 60 < float((chin - top).mean()) * 256 / math.sqrt(math.prod(role.size)) < 90
    for hand, least in ((LEFT_HAND, 14), (RIGHT_HAND, 20)):
        x, y = flat[:, hand].unbind(-1)
        outside = (x.amin(1) > right) | (x.amax(1) < left)
        up = y.amin(1) < chin
        assert outside[up].all()
        assert up.sum() >= least
    for frame in (0, -1):
        assert (flat[frame, 91:, 1] > role.size[1] * 0.95).all()


def test_curves_pass_their_keys_and_never_overshoot() -> None:
    keys = ((0.0, 1.0), (0.5, 3.0), (1.0, 3.5), (2.0, 0.0))
    assert demo._curve(keys, np.array([0.0, 0.5, 1.0, 2.0, 5.0])) == pytest.approx([1, 3, 3.5, 0, 0])
    values = demo._curve(keys, np.linspace(-1, 3, 401))
    assert (values.min(), values.max()) == pytest.approx((0, 3.5))
    assert np.abs(np.diff(values)).max() < 0.08


def test_sound_is_fixed_and_rises_with_the_syllables() -> None:
    sound = demo.sound(2.0)
    assert sound.shape == (2 * demo.SAMPLE_RATE,)
    assert np.array_equal(sound, demo.sound(2.0))
    assert sound[0] == 0
    assert 0.1 < np.abs(sound).max() < 0.9

    def level(start: float) -> float:
        first = round(start * demo.SAMPLE_RATE)
        return float(sound[first : first + 2400].std())

    assert level(demo._BEATS[2]) > 1.5 * level(demo._BEATS[2] - 0.06)


def test_pictures_repeat_and_follow_the_pose() -> None:
    people = load(BODIES)
    role = dataclasses.replace(demo.PERFORMER, body=len(people.rest) - 1, size=(64, 64))
    pose, face = demo.perform(np.array([0.0, 1.2]))
    calm, waving = demo.draw(people, role, pose, face, supersample=1)
    assert calm.shape == (64, 64, 3)
    assert np.array_equal(calm, demo.draw(people, role, pose[:1], face[:1], supersample=1)[0])
    changed = np.abs(calm.astype(int) - waving).sum(axis=2) > 60
    assert changed[8:40, :24].any()  # the raised hand
    assert not changed[:4].any()


@pytest.mark.slow
def test_clips_hold_their_frames_and_sound(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 224, 256, 3), dtype=np.uint8)
    demo.write_clip(tmp_path / "a.mp4", frames, demo.sound(40 / demo.RATE))
    demo.write_clip(tmp_path / "b.mp4", frames, demo.sound(40 / demo.RATE))
    clip = probe(tmp_path / "a.mp4")
    assert (clip.count, clip.width, clip.height, len(clip.audio)) == (40, 256, 224, 1)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
