"""The invisible watermark: read back after encoding and scaling, not seen, and not found where it is not."""

from __future__ import annotations

import io
import math

import av
import cv2
import numpy as np
import pytest
import torch

from wanimate.provenance.code import SYMBOLS, decode, encode
from wanimate.provenance.watermark import FITS, QUIETEST, Detector, Watermark, chance_of, correlations, detect
from wanimate.types import Frame

PAYLOAD = 0xA5C3197E


def moving(width: int, height: int, count: int, seed: int = 0) -> list[Frame]:
    """Frames of a texture with coarse and fine detail that moves by a few pixels."""
    rng = np.random.default_rng(seed)
    size = (height + 3 * count, width + 3 * count)
    picture = np.zeros((*size, 3), np.float32)
    for scale, share in ((40, 60), (8, 9), (2, 3)):
        small = rng.standard_normal((size[0] // scale + 2, size[1] // scale + 2, 3)).astype(np.float32)
        picture += share * cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    whole = np.clip(picture + 120, 0, 255).astype(np.uint8)
    return [whole[2 * i : 2 * i + height, 3 * i : 3 * i + width].copy() for i in range(count)]


def encoded(frames: list[Frame], crf: int, size: tuple[int, int] | None = None) -> list[Frame]:
    """The frames after H.264, scaled before if asked to."""
    frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames] if size else frames
    height, width = frames[0].shape[:2]
    with io.BytesIO() as file:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": str(crf)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        file.seek(0)
        with av.open(file) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return moving(640, 360, 8)


@pytest.fixture(scope="module")
def marked(frames: list[Frame]) -> list[Frame]:
    mark = Watermark(640, 360, PAYLOAD)
    return [mark.on_bytes(frame) for frame in frames]


@pytest.mark.parametrize(("crf", "size"), [(23, None), (28, None), (20, (320, 180)), (23, (960, 540))])
def test_every_bit_is_read_after_encoding_and_scaling(
    marked: list[Frame], crf: int, size: tuple[int, int] | None
) -> None:
    found = detect(encoded(marked, crf, size))
    assert found.payload == PAYLOAD
    assert found.chance < 1e-6
    assert found.frames == 8


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1280, 720), (720, 1280)])
@pytest.mark.parametrize("crf", [23, 28])
def test_every_bit_is_read_at_full_size(size: tuple[int, int], crf: int) -> None:
    mark = Watermark(*size, PAYLOAD)
    shown = [mark.on_bytes(frame) for frame in moving(*size, 16)]
    assert detect(encoded(shown, crf)).payload == PAYLOAD
    assert detect(encoded(shown, 23, (size[0] // 2, size[1] // 2))).payload == PAYLOAD
    there_and_back = encoded(encoded(shown, 23, (size[0] * 3 // 2, size[1] * 3 // 2)), 23, size)
    assert detect(there_and_back).payload == PAYLOAD


@pytest.mark.parametrize("payload", [0, 2**32 - 1, 1, 0x80000000])
def test_any_payload(payload: int) -> None:
    frame = moving(640, 360, 1)[0]
    assert detect([Watermark(640, 360, payload).on_bytes(frame)]).payload == payload


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("noise", [0, 90])
def test_no_frame_differs_by_more_than_42_decibels(level: int, noise: int) -> None:
    rng = np.random.default_rng(0)
    frame = np.clip(level + noise * rng.standard_normal((360, 640, 3)), 0, 255).astype(np.uint8)
    error = np.mean((Watermark(640, 360, PAYLOAD).on_bytes(frame).astype(float) - frame) ** 2)
    assert 10 * math.log10(255**2 / error) >= 42 if error else level in (0, 255)
    assert QUIETEST >= 42


def test_float_frames_get_the_same_mark(frames: list[Frame]) -> None:
    mark = Watermark(640, 360, PAYLOAD)
    floats = torch.from_numpy(np.stack(frames[:2])).permute(0, 3, 1, 2) / 255
    before = floats.clone()
    made = (mark.on(floats) * 255).round().permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(made - np.stack([mark.on_bytes(frame) for frame in frames[:2]])).max() <= 1
    assert torch.equal(floats, before)


def test_nothing_is_found_in_unmarked_frames(frames: list[Frame]) -> None:
    found = detect(frames)
    assert found.payload is None
    assert found.chance > 1e-6
    assert detect([np.zeros((360, 640, 3), np.uint8)]).payload is None
    assert detect([]).payload is None


def test_nothing_is_found_with_another_key(marked: list[Frame]) -> None:
    assert detect(marked, b"another key").payload is None


def test_a_crop_loses_it(marked: list[Frame]) -> None:
    """The reader does not look for where the grid lies."""
    assert detect([frame[20:340, 40:600] for frame in marked]).payload is None


def test_payloads_fit_unmarked_frames_less_than_is_asked() -> None:
    detector = Detector(640, 360)
    for frame in moving(640, 360, 3, seed=5):
        detector.add(frame)
    every = [decode(correlations(detector.residual, b"key %d" % i)) for i in range(60)]
    assert 6.5 < np.mean([fit for _, fit in every]) < 8
    assert not any(payload is not None for payload, _ in every)
    assert chance_of(FITS) < 1e-6
    assert all(chance_of(a) >= chance_of(b) for a, b in zip((5.0, 8.0, 9.0), (8.0, 9.0, 20.0), strict=True))


def test_the_code_corrects_an_eighth_of_its_symbols() -> None:
    rng = np.random.default_rng(0)
    for payload in rng.integers(0, 2**32, 20).tolist():
        signs = encode(payload)
        signs[rng.choice(SYMBOLS, SYMBOLS // 8, replace=False)] *= -1
        assert decode(signs)[0] == payload
    assert decode(rng.standard_normal(SYMBOLS))[0] is None


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_the_way_of_other_devices_gives_the_same_mark(frames: list[Frame], noise: float) -> None:
    plain = torch.from_numpy(np.stack(frames[:2])).permute(0, 3, 1, 2) / 255
    plain = (plain + noise * torch.randn(plain.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    mark = Watermark(plain.shape[3], plain.shape[2], PAYLOAD)
    before = plain.clone()
    assert (mark.on_device(plain) - mark.on(plain)).abs().max() < 0.001 / 255
    assert torch.equal(plain, before)
