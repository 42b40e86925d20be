"""32 bits, their CRC, and a convolutional code that corrects what a video loses of them."""

from __future__ import annotations

import binascii
import math
from functools import cache

import numpy as np
import numpy.typing as npt

BITS, CHECK, MEMORY = 32, 16, 6
"""Payload, CRC-16, and zeros at the end that lead the code's register back."""
_POLYNOMIALS = (0o133, 0o145, 0o175)
"""Of the code of rate 1/3 and constraint length 7 with the largest free distance, 15."""
SYMBOLS = (BITS + CHECK + MEMORY) * len(_POLYNOMIALS)
_STATES = 1 << MEMORY

Signs = npt.NDArray[np.float64]


def encode(payload: int) -> Signs:
    """`SYMBOLS` signs, +1 or -1, of a payload of 0 to 2^32 - 1."""
    data = payload.to_bytes(BITS // 8, "big")
    bits = np.unpackbits(np.frombuffer(data + _crc(data), np.uint8)).tolist() + [0] * MEMORY
    signs, _ = _steps()
    state, made = 0, []
    for bit in bits:
        made.append(signs[state, bit])
        state = (state << 1 | bit) & (_STATES - 1)
    return np.concatenate(made)


def decode(scores: Signs) -> tuple[int | None, float]:
    """The payload that fits best (Viterbi), None where its CRC is wrong, and how well it fits: the sum of the scores by its
    signs over the root of their number.

    Args:
        scores: of each symbol, positive where +1 is likely, spread by 1 without a mark.
    """
    signs, before = _steps()
    given = scores.reshape(-1, len(_POLYNOMIALS))
    best = np.full(_STATES, -np.inf)
    best[0] = 0.0
    chosen = np.empty((len(given), _STATES), np.intp)
    states = np.arange(_STATES)
    for step, three in enumerate(given):
        gains = signs[before, (states & 1)[:, None]] @ three  # of the two ways into each state
        sums = best[before] + gains
        chosen[step] = sums.argmax(1)
        best = sums.max(1)
    state, bits = 0, []
    for step in range(len(given) - 1, -1, -1):
        bits.append(state & 1)
        state = before[state, chosen[step, state]]
    whole = np.packbits(bits[::-1][: BITS + CHECK]).tobytes()
    data, check = whole[: BITS // 8], whole[BITS // 8 :]
    fit = float(best[0]) / math.sqrt(len(scores))
    return int.from_bytes(data, "big") if _crc(data) == check else None, fit


def _crc(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(CHECK // 8, "big")


@cache
def _steps() -> tuple[Signs, npt.NDArray[np.intp]]:
    """Signs [state, bit, 3] that a step sends, and the two states [state, 2] from which a step leads to a state."""
    signs = np.empty((_STATES, 2, len(_POLYNOMIALS)))
    for state in range(_STATES):
        for bit in (0, 1):
            register = state << 1 | bit
            signs[state, bit] = [1 - 2 * ((register & p).bit_count() % 2) for p in _POLYNOMIALS]
    states = np.arange(_STATES)
    return signs, np.stack((states >> 1, states >> 1 | _STATES >> 1), 1)
