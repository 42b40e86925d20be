"""Packages that leave by Frame.io or Descript: the options of it, and what the user sees."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape

from wanimate.cli.options import option
from wanimate.cli.report import Reporter, noted
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.approval.leaving import Gate
    from wanimate.handoff.remote.base import Options, Package, Shipment

REMOTE = "Frame.io and Descript"
NAMES = {
    "token": "--token-file", "token_file": "--token-file", "journal": "--journals", "journals": "--journals",
    "roles": "--role", "role": "--role", "make_folders": "--make-folders", "package": "WHAT",
}  # fmt: skip
TokenFile = Annotated[
    Path | None,
    option(
        REMOTE, "File that holds the token, for you alone to read.",
        show_default="$WANIMATE_FRAMEIO_TOKEN or $WANIMATE_DESCRIPT_TOKEN",
    ),
]  # fmt: skip
Journals = Annotated[
    Path | None,
    option(
        REMOTE,
        "Folder of what hand-offs have done.",
        show_default="$WANIMATE_HANDOFF, else wanimate/handoff in your data",
    ),
]
Roles = Annotated[
    list[str] | None,
    option(
        REMOTE, "What is sent: review, mezzanine, matte and so on; several times.", "--role", show_default="everything"
    ),
]
MakeFolders = Annotated[bool, option(REMOTE, "Make folders of Frame.io that are missing.")]


def is_remote(to: str) -> bool:
    """Whether a hand-off goes to a service, and not into a folder."""
    return to.startswith(("frameio:", "descript:"))


def options(roles: tuple[str, ...], make_folders: bool, token_file: Path | None, journals: Path | None) -> Options:
    """How a package is sent."""
    from wanimate.handoff.remote.base import Options

    return Options(roles=roles, make_folders=make_folders, token_file=token_file, journals=journals)


def work_folder(journals: Path | None, shot: str, version: str) -> Path:
    """Where the package of a version is made before it is sent. It is the same for every run, so that a stopped one goes on."""
    from wanimate.handoff.remote.journal import journals_folder

    digest = hashlib.sha256(f"{shot}\0{version}".encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", shot).strip("-")[:40]
    return (journals or journals_folder()) / "packages" / f"{name or 'shot'}-{digest}"


def check_token(service: str, options: Options) -> None:
    """Refuse a token that is not there before a package is made. Raises InputError."""
    try:
        from wanimate.handoff.remote.send import Services, descript, frameio
    except ModuleNotFoundError as error:
        raise _missing(error, service) from error
    with (frameio if service == "frameio" else descript)(options.token_file, Services()):
        pass


def _missing(error: ModuleNotFoundError, to: str) -> InputError:
    rule = f"the package {error.name} is not installed"
    return InputError("to", to, rule, "Install wanimate[handoff].")


def hand_over(
    report: Reporter, package: Package, to: str, gate: Gate, shipment: Shipment, options: Options
) -> None:  # fmt: skip
    """Send a package, show each step, and tell what became of it."""
    try:
        from wanimate.handoff.remote.send import sending
    except ModuleNotFoundError as error:
        raise _missing(error, to) from error
    sent = noted(report, sending(package, to, gate, shipment, options))
    files = [vars(file) for file in sent.files]
    told = {"target": sent.target, "url": sent.url, "files": files, "left_out": list(sent.left_out)}
    left = f"; {len(sent.left_out)} files are left out" if sent.left_out else ""
    report.done(
        {**told, "decisions": list(sent.decisions), "output_sha256": package.output_sha256},
        f"{escape(sent.target)}: {len(files)} files{left} {escape(sent.url)}".rstrip(),
    )
