"""Versions of installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_of(name: str) -> str | None:
    """The version of a package; None where it is not installed, as this one is not where it runs from its sources."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
