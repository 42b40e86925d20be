"""A process that hands a package off, to be killed: FOLDER URL SERVICE."""

from __future__ import annotations

import sys
from pathlib import Path

from parcels import Studio, TestGate, write_package

from wanimate.handoff.remote.send import Services

TARGETS = {"frameio": "frameio:Spots/Finals", "descript": "descript:Spots"}


def main(folder: str, url: str, service: str) -> None:
    home = Path(folder)
    names = {path.name: ("review" if path.suffix == ".mp4" else "record") for path in (home / "package").iterdir()}
    files = {name: (role, (home / "package" / name).read_bytes()) for name, role in sorted(names.items())}
    studio = Studio(home, Services(url, url, url), TestGate())
    studio.send(write_package(home / "package", files), TARGETS[service], make_folders=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
