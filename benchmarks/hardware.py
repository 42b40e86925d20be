"""What a benchmark ran on, for its report."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

from wanimate.finish.record import versions
from wanimate.media.files import sha256
from wanimate.weights.checkpoint import Checkpoint


def described(device: str = "cpu", threads: int | None = None) -> list[str]:
    """Lines of a Markdown list: date, commit, machine, versions."""
    libraries = versions()
    named = ", ".join(f"{n} {v}" for n, v in libraries.items() if v and n not in ("python", "system"))
    machine = f"{_processor()}, {os.cpu_count()} cores" + (f", {threads} threads used" if threads else "")
    if device.startswith("cuda"):
        machine = f"{torch.cuda.get_device_name()}; {machine}"
    return [
        f"- {date.today()}, commit {_commit()}",
        f"- {machine}, {platform.system()}",
        f"- Python {libraries['python']}, {named}",
    ]


def hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of a checkpoint's files by name."""
    return _hashes(checkpoint.path)


@functools.cache
def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        commit, changed = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + (" with local changes" if changed else "")
