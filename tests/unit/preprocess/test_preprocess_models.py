from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from wanimate.errors import InputError, OutputError
from wanimate.preprocess.detect import models

CONTENT = {name: name.encode() * 10 for name in models._FILES}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel of the right shape, and its checksums in place of the real ones."""
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, (module, _) in models._FILES.items():
            archive.writestr(f"mediapipe/modules/{module}/{name}", CONTENT[name])
    files = {n: (m, hashlib.sha256(CONTENT[n]).hexdigest()) for n, (m, _) in models._FILES.items()}
    monkeypatch.setattr(models, "_FILES", files)
    monkeypatch.setattr(models, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_models_are_fetched_once_and_found(tmp_path, wheel, monkeypatch):
    place = tmp_path / "cache" / "models"
    with pytest.raises(InputError, match=r"selfie_segmentation\.tflite not found\. Run `python -m wanimate"):
        models.find(place)
    assert models.fetch(place, wheel) == place == models.find(place)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == CONTENT
    monkeypatch.setattr(models, "_download", lambda folder: pytest.fail("fetched again"))
    models.fetch(place)
    (place / "face_landmark.tflite").write_bytes(b"damaged")
    models.fetch(place, wheel)
    assert (place / "face_landmark.tflite").read_bytes() == CONTENT["face_landmark.tflite"]


def test_a_wrong_wheel_changes_nothing(tmp_path, wheel):
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(InputError, match="SHA-256"):
        models.fetch(tmp_path / "models", wheel)
    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(InputError, match="missing"):
        models.fetch(tmp_path / "models", tmp_path / "nowhere.whl")


def test_a_wrong_file_in_the_wheel_is_named(tmp_path, wheel, monkeypatch):
    files = dict(models._FILES) | {"face_landmark.tflite": ("face_landmark", "0" * 64)}
    monkeypatch.setattr(models, "_FILES", files)
    with pytest.raises(InputError, match=r"face_landmark\.tflite"):
        models.fetch(tmp_path / "models", wheel)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failed_download_tells_what_to_do(tmp_path, monkeypatch, wheel):
    monkeypatch.setattr(models, "_PIP_OPTIONS", ("--no-such-option",))
    with pytest.raises(InputError, match=r"pip could not download it .*--wheel FILE"):
        models.fetch(tmp_path / "models")


def test_a_place_that_cannot_be_written(tmp_path, wheel):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write there"):
        models.fetch(tmp_path / "file" / "models", wheel)


def test_where_the_models_are(tmp_path, monkeypatch):
    monkeypatch.delenv("WANIMATE_MODELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert models.default_folder() == Path.home() / ".cache/wanimate/models"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert models.default_folder() == Path("/cache/wanimate/models")
    monkeypatch.setenv("WANIMATE_MODELS", str(tmp_path))
    assert models.default_folder() == tmp_path


def test_command(tmp_path, wheel, capsys):
    assert models.main(["--models", str(tmp_path / "m"), "--wheel", str(wheel)]) == 0
    assert str(tmp_path / "m") in capsys.readouterr().out
    assert models.main(["--models", str(tmp_path / "n"), "--wheel", str(tmp_path / "no.whl")]) == 2
    assert "no.whl" in capsys.readouterr().err
