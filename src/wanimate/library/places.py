"""Where the storage keeps what belongs to a file of the library. Names tell the file's content, so that equal files share."""

from __future__ import annotations

ROOT = "library"
PREVIEW, POSTER = "preview.mp4", "poster.webp"
"""A small silent video of a clip, and a picture of a clip or a character."""


def place_of(sha256: str) -> str:
    """Prefix of everything that is stored of a file."""
    return f"{ROOT}/{sha256}"


def file_of(sha256: str, suffix: str) -> str:
    """The file itself; `suffix` as in ".mp4"."""
    return f"{place_of(sha256)}/file{suffix}"


def beside(sha256: str, name: str) -> str:
    """A file that was made of it: `PREVIEW` or `POSTER`."""
    return f"{place_of(sha256)}/{name}"


def found_in(sha256: str) -> str:
    """Prefix of where performers were found in a clip, for `preprocess.performers`."""
    return f"{place_of(sha256)}/found"


def guides_of(sha256: str, key: str) -> str:
    """Prefix of guides of a clip. `key`: hash of all that decides them."""
    return f"{place_of(sha256)}/guides/{key}"


def guides_at(name: str) -> str | None:
    """The prefix of the guides (`guides_of`) to which a stored name belongs; None where it belongs to none."""
    words = name.split("/")
    return "/".join(words[:4]) if len(words) > 4 and words[2] == "guides" else None


def is_shared(place: str) -> bool:
    """Whether guides lie in the library, where other jobs use them, too."""
    return place.startswith(f"{ROOT}/")


def content_of(name: str) -> str:
    """The SHA-256 of the file to which a stored name below `ROOT` belongs."""
    return name.split("/")[1]
