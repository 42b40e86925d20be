"""Small results with their records, as jobs write them, for tests of archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wanimate.weights.fingerprint import fingerprint


def picture(path: Path, value: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((48, 40, 3), value, np.uint8)).save(path)
    return path


def noise(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(size + len(path.name)).bytes(size))
    return path


def record_of(out: Path, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    record = {
        "schema": 2, "wanimate": "0.1.0", "commit": "ab" * 20, "written": "2026-11-30T12:00:00+00:00", "out": out.name,
        "versions": {"python": "3.11.9"}, "mode": "animation", "inputs": inputs, "frames": 5, "fps": "30", "size": [64, 48],
        "seed": 7, "settings": {"prompt": "a dancer", "seed": 7}, "output": {"codec": "h264"}, "lora": [],
        "checkpoint": {"name": "mannequin", "path": "/weights", "hashes": {"a.safetensors": "sha256:" + "1" * 64}},
        "result": {"name": out.name, "sha256": fingerprint(out) if out.is_file() else None, "replaces": None},
    }  # fmt: skip
    return record | more


def finished(folder: Path, name: str = "hero.mp4", **more: Any) -> Path:
    """A result of noise with a record that names a picture and a clip of noise."""
    out = noise(folder / name)
    image, video = picture(folder / "in" / "face.png"), noise(folder / "in" / "dance.mp4", 3000)
    told = {
        role: {"path": str(path), "sha256": fingerprint(path)} for role, path in (("image", image), ("video", video))
    }
    out.with_suffix(".json").write_text(json.dumps(record_of(out, **{"inputs": told, **more})))
    return out
