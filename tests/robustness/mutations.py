"""Ways to damage a file, each a function of its bytes and of a seeded generator."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def flipped(data: bytes, random: Random) -> bytes:
    """Some bits flipped."""
    out = bytearray(data)
    for _ in range(2 ** random.randrange(7)):
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def flipped_early(data: bytes, random: Random) -> bytes:
    """The same where headers lie."""
    head = min(len(data), 512)
    return flipped(data[:head], random) + data[head:]


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def inserted(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + random.randbytes(random.choice((1, 7, 64, 5000))) + data[at:]


def repeated(data: bytes, random: Random) -> bytes:
    start, length = random.randrange(len(data)), random.randrange(1, 4096)
    return data[: start + length] + data[start:]


def zeroed(data: bytes, random: Random) -> bytes:
    start, length = random.randrange(len(data)), random.randrange(1, 4096)
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def extreme(data: bytes, random: Random) -> bytes:
    """Numbers of 1 to 8 bytes replaced by extreme ones, mostly where headers lie."""
    out = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        form = random.choice(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q"))
        size = struct.calcsize(form)
        reach = min(len(out), random.choice((32, 512, len(out))))
        at = random.randrange(max(reach - size, 1))
        number = struct.pack(form, random.choice(EXTREMES) % 256**size)
        out[at : at + size] = number
    return bytes(out)


BYTES: tuple[Mutation, ...] = (flipped, flipped_early, cut, inserted, repeated, zeroed, extreme, extreme)

NESTED = "\x00nested\x00"
"""Stands for a hundred thousand lists in each other, which no writer of JSON makes."""
RAW = {NESTED: "[" * 100_000 + "]" * 100_000, "\x00big\x00": "9" * 5000, "\x00float\x00": "1e999"}
NUMBERS = (0, -1, 1, 2**31, 2**40, 2**63, 2**64, 20_000_000_000, 1e308, -0.5, float("nan"), float("inf"))
TEXTS = (
    "", ".", "..", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/environ", "/proc/kmsg", "a\0b", "\ud800",
    "\x1b[2J\n\x02video\x03", "x" * 100_000, "1/0", "-1", "nan", "9" * 400, "C:\\x", "a/b", "FIFO", "LINK",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, [], {}, [[]], {"a": {"b": []}}, [0] * 10_000, *RAW)


def edited_json(data: bytes, random: Random) -> bytes:
    """One to three values of a JSON text replaced, left out or doubled."""
    tree = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        tree = _edited(tree, random)
    text = json.dumps(tree)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of every value; long lists only in part."""
    found: list[tuple[Any, Any]] = []
    level = [tree]
    while level:
        item = level.pop()
        keys = (
            list(item) if isinstance(item, dict) else list(range(min(len(item), 4))) if isinstance(item, list) else []
        )
        found += [(item, key) for key in keys]
        level += [item[key] for key in keys]
    return found


def _edited(tree: Any, random: Random) -> Any:
    places = _places(tree)
    if not places or random.random() < 0.02:
        return random.choice((*NUMBERS, *TEXTS, *OTHERS))
    container, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[random.choice(TEXTS)] = container[key]
    else:
        container[key] = random.choice(random.choice((NUMBERS, TEXTS, OTHERS)))
    return tree


def edited_header(data: bytes, random: Random) -> bytes:
    """The JSON header of a safetensors file edited; its length follows, most of the time."""
    length = int.from_bytes(data[:8], "little")
    header = edited_json(data[8 : 8 + length], random)
    stated = len(header) if random.random() < 0.8 else random.choice(EXTREMES) % 2**64
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def mutation(name: str, random: Random) -> Mutation:
    """One that fits a file of that name."""
    if name.endswith(".json") and random.random() < 0.8:
        return edited_json
    if name.endswith(".safetensors") and random.random() < 0.5:
        return edited_header
    return random.choice(BYTES)
