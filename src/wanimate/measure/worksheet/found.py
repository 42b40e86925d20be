"""What this machine tells for the adoption sheet by itself: GPU and driver, guides, certificate."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from wanimate.errors import InputError
from wanimate.measure.doctor import GIB, gpus_here
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.guides import load_guides
from wanimate.provenance.certificates import CHAIN, TEST, marks_folder


@dataclass(frozen=True)
class Machine:
    """`driver`: None where nothing tells it, as on a machine without a GPU."""

    gpu: str
    memory: str
    driver: str | None
    host: str


@dataclass(frozen=True)
class Flow:
    """A guides folder: its mode, its files, how the performer was found, and the hand-made mask, if one was used."""

    folder: str
    mode: str
    files: tuple[str, ...]
    backend: str
    mask: str | None


@dataclass(frozen=True)
class Certificate:
    """`problem`: why it cannot be read; the others are empty then."""

    file: str
    name: str = ""
    expires: str = ""
    test: bool = False
    problem: str = ""


def machine() -> Machine:
    found = gpus_here()
    host = f"{psutil.virtual_memory().total / GIB:.1f} GiB"
    if not found:
        return Machine("none: networks run on the processor", "none", None, host)
    names = sorted({str(one["name"]) for one in found})
    number = f"{len(found)} x " if len(found) > 1 else ""
    return Machine(
        number + ", ".join(names), f"{min(one['memory'] for one in found) / GIB:.1f} GiB each", _driver(), host
    )


def _driver() -> str | None:
    line = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(line, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = told.stdout.split()
    return rows[0] if told.returncode == 0 and rows else None


def flow(folder: Path) -> Flow:
    """Raises InputError: it is no folder of guides."""
    guides = load_guides(folder)
    manifest = guides.manifest
    settings: dict[str, Any] = manifest.get("settings") or {}
    mask = settings.get("mask")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    backend = str(manifest.get("backend") or ("not told: a published set" if MANIFEST not in names else "not told"))
    return Flow(folder.name, guides.mode, tuple(names), backend, None if mask is None else Path(str(mask)).name)


def certificate(named: Path | None = None) -> Certificate | None:
    """What results are signed with; None where there is nothing. `named`: a PEM file, leaf first; otherwise that of
    `wanimate marks init`.

    Raises:
        InputError: one was named, and is not there.
    """
    path = named or marks_folder() / CHAIN
    if not path.is_file():
        if named is not None:
            raise InputError("certificate", path, "there is no such file", "Give a PEM file, leaf first.")
        return None
    try:
        from cryptography import x509

        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = [str(one.value) for one in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        expires = leaf.not_valid_after_utc.strftime("%Y-%m-%d")
    except ImportError:
        return Certificate(path.name, problem="the library cryptography is not installed")
    except (OSError, ValueError, IndexError) as error:
        return Certificate(path.name, problem=f"it cannot be read ({error})")
    return Certificate(path.name, ", ".join(names), expires, TEST in names)
