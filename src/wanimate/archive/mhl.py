"""A history of ASC MHL 2.0 for camera departments: one generation, every file by its C4 ID.

A C4 ID is the SHA-512 of a file, written in base 58, so that nothing is read twice.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from xml.sax.saxutils import escape, quoteattr

from wanimate.archive.bag import Packed
from wanimate.versions import version_of

FOLDER, CHAIN = "ascmhl", "ascmhl_chain.xml"
_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def c4(sha512: str) -> str:
    """The C4 ID of a file whose SHA-512, in hex, is given: "c4" and 88 digits."""
    left, found = int(sha512, 16), ""
    while left:
        left, digit = divmod(left, 58)
        found = _DIGITS[digit] + found
    return "c4" + found.rjust(88, _DIGITS[0])


def history(files: Iterable[Packed], root: str, at: datetime) -> Mapping[str, bytes]:
    """The files of the history, by their name below the folder that it is of.

    Args:
        root: the folder's name. at: when, UTC.
    """
    when = at.isoformat(timespec="seconds")
    rows = [
        f'    <hash>\n      <path size="{one.size}">{escape(one.name)}</path>\n'
        f'      <c4 action="original" hashdate="{when}">{c4(one.hashes["sha512"])}</c4>\n    </hash>\n'
        for one in sorted(files, key=lambda one: one.name)
    ]
    tool = quoteattr(version_of("wanimate") or "from its sources")
    manifest = (
        f'{_HEAD}<hashlist version="2.0" xmlns="urn:ASC:MHL:v2.0">\n  <creatorinfo>\n'
        f"    <creationdate>{when}</creationdate>\n    <hostname>{escape(socket.gethostname() or 'localhost')}</hostname>\n"
        f"    <tool version={tool}>wanimate</tool>\n  </creatorinfo>\n"
        f"  <processinfo>\n    <process>in-place</process>\n    <ignore>\n      <pattern>{FOLDER}</pattern>\n    </ignore>\n"
        f"  </processinfo>\n  <hashes>\n{''.join(rows)}  </hashes>\n</hashlist>\n"
    ).encode()
    name = f"0001_{root}_{at:%Y-%m-%d_%H%M%S}Z.mhl"
    told = c4(hashlib.sha512(manifest).hexdigest())
    chain = (
        f'{_HEAD}<ascmhldirectory xmlns="urn:ASC:MHL:DIRECTORY:v2.0">\n  <hashlist sequencenr="1">\n'
        f"    <path>{escape(name)}</path>\n    <c4>{told}</c4>\n  </hashlist>\n</ascmhldirectory>\n"
    ).encode()
    return {f"{FOLDER}/{name}": manifest, f"{FOLDER}/{CHAIN}": chain}
