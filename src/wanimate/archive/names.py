"""Names in a bag: any file system takes them, none leads out of it, and no two are one name where case does not count."""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST = 120
"""Bytes of one part of a name. File systems take 255; copies, archives and encryption need some of these."""
_UNFIT = frozenset('<>:"|?*\\/%')
"""What some file system, shell or BagIt reader takes for its own."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_CODED = {"%": "%25", "\r": "%0D", "\n": "%0A"}


def portable(name: str) -> str:
    """A file's own name as a part of a name in a bag; the same where any file system takes it."""
    text = unicodedata.normalize("NFC", name)
    shown = "".join("_" if _is_unfit(letter) else letter for letter in text).strip(" ").rstrip(".")
    shown = f"_{shown}" if _RESERVED.fullmatch(shown) or shown.startswith(".") else shown
    return _shortened(shown or "_", name)


def is_portable(name: str) -> bool:
    return portable(name) == name


def key(name: str) -> str:
    """Two names with one key are one file somewhere: case and the form of accents do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


class Taken:
    """Names that a bag has."""

    def __init__(self) -> None:
        self._keys = set[str]()

    def free(self, folder: str, name: str) -> str:
        """ "inputs", "clip.mp4" -> "inputs/clip.mp4", or "inputs/clip-2.mp4" where that is taken."""
        own = portable(name)
        stem, dot, suffix = own.rpartition(".") if "." in own else (own, "", "")
        number = 1
        while key(found := f"{folder}/{own}") in self._keys:
            number += 1
            own = _shortened(f"{stem}-{number}{dot}{suffix}", f"{name}\0{number}")
        self._keys.add(key(found))
        return found


def coded(name: str) -> str:
    """As a manifest writes it (RFC 8493): percent signs and line ends are percent-encoded."""
    return "".join(_CODED.get(letter, letter) for letter in name)


def decoded(text: str) -> str:
    """The reverse of `coded`. Other percent signs stay as they are: some writers do not encode them."""
    return re.sub("%(25|0[AaDd])", lambda found: chr(int(found[1], 16)), text)


def unsafe(name: str) -> str | None:
    """Why a name of somebody's manifest is none of a file in the bag; None where it is."""
    if not name or name.startswith(("/", "~")) or re.match(r"[A-Za-z]:", name):
        return "it does not begin in the bag"
    if "\\" in name:
        return "it has a backslash, which is a folder's sign on some systems"
    if "\0" in name:
        return "it has a NUL"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it has a part that is empty, . or .."
    return None


def _is_unfit(letter: str) -> bool:
    return letter in _UNFIT or (letter != " " and unicodedata.category(letter)[0] in "CZ")


def _shortened(text: str, whole: str) -> str:
    """At most `LONGEST` bytes; what was cut off is told by a hash of `whole`."""
    if len(text.encode()) <= LONGEST:
        return text
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode()) > 16:
        stem, dot, suffix = text, "", ""
    mark = "~" + hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    room = LONGEST - len(f"{mark}{dot}{suffix}".encode())
    return f"{stem.encode()[:room].decode('utf-8', 'ignore')}{mark}{dot}{suffix}"
