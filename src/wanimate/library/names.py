"""How entries are called and described: names, tags, licences. Everything is checked here before it is stored."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, get_args

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from wanimate.config.job import LIBRARY
from wanimate.errors import InputError

Shelf = Literal["clip", "character"]
Kind = Literal["dance-loop", "presenter", "expression", "other"]
Status = Literal["proposed", "approved", "retired"]
SHELVES: tuple[Shelf, ...] = get_args(Shelf)
KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)
HOUSE = ""
"""Owner of what everybody of the service sees and uses."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_LONGEST_TITLE, _LONGEST_TAG, _MOST_TAGS = 200, 40, 20
_LONGEST_ID, _MOST_IDS = 100, 50


def named(text: str) -> str | None:
    """The entry that a path or an address names: "library:wave-03" -> "wave-03"; None where it names none."""
    return text.removeprefix(LIBRARY) if text.startswith(LIBRARY) else None


def checked_name(text: str) -> str:
    """Raises InputError: it is not 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or a digit."""
    if not _NAME.fullmatch(text):
        rule = "a name has 1 to 63 of a-z, 0-9 and -, and begins with a letter or a digit"
        raise InputError("name", text, rule, "Give another name, wave-03 for instance.")
    return text


def name_of(title: str) -> str:
    """A name that tells of a title or a file: "Große Welle_03" -> "grosse-welle-03"; "entry" where no letter is left."""
    plain = unicodedata.normalize("NFKD", title.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:56].strip("-") or "entry"


def another(name: str, number: int) -> str:
    """The same name for one more: "wave" -> "wave-2"."""
    return f"{name}-{number}"


def checked_title(text: str) -> str:
    """Raises InputError: it is empty, longer than 200 letters, or has some that cannot be shown."""
    title = text.strip()
    if not title or len(title) > _LONGEST_TITLE or not title.isprintable():
        raise InputError("title", text, f"a title has 1 to {_LONGEST_TITLE} printable letters", "Give another one.")
    return title


def checked_tags(given: Iterable[str]) -> list[str]:
    """Tags in small letters, each once, in order. Raises InputError: more than 20, or one of more than 40 letters, or with a
    comma."""
    tags = sorted({unicodedata.normalize("NFC", tag).strip().casefold() for tag in given} - {""})
    if len(tags) > _MOST_TAGS:
        raise InputError("tags", len(tags), f"an entry has {_MOST_TAGS} tags at most", "Leave some out.")
    for tag in tags:
        if len(tag) > _LONGEST_TAG or not tag.isprintable() or "," in tag:
            rule = f"a tag has 1 to {_LONGEST_TAG} printable letters and no comma"
            raise InputError("tags", tag, rule, "Give a shorter one.")
    return tags


def checked_licence(text: str | None) -> str | None:
    """An SPDX identifier or expression as the list writes it, `LicenseRef-...` of the house included; None where none is known.

    Raises:
        InputError: the list of SPDX knows none of that name.
    """
    if text is None or not text.strip():
        return None
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        remedy = (
            "Give one of https://spdx.org/licenses, CC-BY-4.0 for instance, or LicenseRef-NAME for one of the house."
        )
        raise InputError("licence", text, "it is no licence that SPDX lists", remedy) from error


def checked_consents(given: Iterable[str]) -> list[str]:
    """Ids of consent records, each once. Raises InputError: more than 50, or one of more than 100 letters."""
    ids = list(dict.fromkeys(one.strip() for one in given if one.strip()))
    if len(ids) > _MOST_IDS or any(len(one) > _LONGEST_ID or not one.isprintable() for one in ids):
        rule = f"there are {_MOST_IDS} ids at most, each of {_LONGEST_ID} printable letters at most"
        raise InputError("consent_ids", len(ids), rule, "Give the ids of the records.")
    return ids


def checked_choice(field: str, text: str, choices: tuple[str, ...]) -> str:
    """Raises InputError: there is no such choice."""
    if text not in choices:
        raise InputError(field, text, "there is no such choice", f"Give {', '.join(choices)}.")
    return text


def words_of(*texts: str) -> str:
    """What a search looks at: words in small letters without accents."""
    plain = unicodedata.normalize("NFKD", " ".join(texts).casefold())
    return " ".join(re.findall(r"[^\W_]+", "".join(letter for letter in plain if not unicodedata.combining(letter))))
