"""Versions of installed packages, and the commit of this one."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path


def version_of(name: str) -> str | None:
    """The version of a package; None where it is not installed, as this one is not where it runs from its sources."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit of the program, with "-dirty" where its sources were changed since; None where nothing tells it.

    Known where it was installed from a repository, and where it runs from a checkout.
    """
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        named = json.loads(distribution("wanimate").read_text("direct_url.json") or "null")
        return str(named["vcs_info"]["commit_id"])
    root = Path(__file__).resolve().parents[2]
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None
    line = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(line, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    told = found.stdout.strip()
    return told if found.returncode == 0 and re.fullmatch(r"[0-9a-f]{40,64}(-dirty)?", told) else None
