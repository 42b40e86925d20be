"""A training's state in files of limited size, to be carried from machine to machine.

Averaged weights in float16, the observer, latent statistics, the log and the clock. Optimisers are left out: they are twice
as large as the weights. `--resume` then raises the learning rate anew over 200 steps.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mannequin.options import REQUIRED, option
from wanimate.errors import InputError
from wanimate.train.common import load_state, save_state

INDEX = "pieces.json"
NETWORKS = ("vae.pt", "transformer.pt")
FILES = ("statistics.pt", "log.jsonl")
"""What else of a training's folder is taken along, as it is."""


@dataclass(frozen=True)
class Pack:
    folder: Path = option(REQUIRED, "folder of a training that has written state.pt")
    out: Path = option(REQUIRED, "folder for the pieces")
    mebibytes: float = option(15.5, "size of a piece at most")


@dataclass(frozen=True)
class Join:
    folder: Path = option(REQUIRED, "folder of the pieces")
    out: Path = option(REQUIRED, "folder to write: --resume goes on from it, --vae takes it")


def pack(job: Pack) -> list[Path]:
    """Write the state of a training in pieces; returns their paths, the index last."""
    name = next((n for n in NETWORKS if (job.folder / n).is_file()), None)
    if name is None:
        raise InputError("folder", job.folder, "it holds no vae.pt or transformer.pt", "Train first.")
    state = load_state(job.folder / "state.pt")
    content: dict[str, Any] = {
        "name": name, "weights": _halves(state["ema"]), "observer": _halves(state.get("observer", {})),
        "step": state["step"], "spent": state["spent"],
        "files": {n: _bytes(job.folder / n) for n in FILES if (job.folder / n).is_file()},
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data, size = buffer.getvalue(), int(job.mebibytes * 2**20)
    job.out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(math.ceil(len(data) / size)):
        paths.append(job.out / f"piece-{number:02d}.bin")
        paths[-1].write_bytes(data[number * size : (number + 1) * size])
    index = {"pieces": [p.name for p in paths], "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    paths.append(job.out / INDEX)
    paths[-1].write_text(json.dumps(index))
    print(f"{name}, step {state['step']}: {len(paths)} files, {len(data) / 2**20:.1f} MiB", flush=True)
    return paths


def join_pieces(job: Join) -> None:
    """Put a training's folder together again.

    Raises:
        InputError: a piece is missing or is another training's.
    """
    path = job.folder / INDEX
    if not path.is_file():
        raise InputError("folder", job.folder, f"it holds no {INDEX}", "Give the folder that `pack` wrote.")
    index = json.loads(path.read_text())
    found = [job.folder / name for name in index["pieces"]]
    data = b"".join(p.read_bytes() for p in found if p.is_file())
    if hashlib.sha256(data).hexdigest() != index["sha256"]:
        rule = "pieces are missing or do not belong together"
        raise InputError("folder", job.folder, rule, "Fetch all of them from one call of `pack`.")
    content = torch.load(io.BytesIO(data), weights_only=True)
    weights = {k: v.float() for k, v in content["weights"].items()}
    observer = {k: v.float() for k, v in content["observer"].items()}
    save_state(job.out / content["name"], **weights)
    save_state(
        job.out / "state.pt", model=weights, ema=weights, observer=observer, optimizer={}, adam={}, muon={},
        step=content["step"], spent=content["spent"],
    )  # fmt: skip
    for name, stored in content["files"].items():
        (job.out / name).write_bytes(stored.numpy().tobytes())
    print(f"{content['name']}, step {content['step']}, {content['spent']:.0f} s", flush=True)


def _halves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().half() for k, v in tensors.items()}


def _bytes(path: Path) -> Tensor:
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
