"""umT5's tokenizer: a folder of transformers' files, or a SentencePiece model, alone or as a tensor among the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wanimate.errors import CheckpointError, is_fault
from wanimate.model.text_encoder import Tokenizer
from wanimate.weights.formats import open_tensors
from wanimate.weights.layouts import SPIECE
from wanimate.weights.stored import value

SPIECE_FILE = "spiece.model"
_LARGEST = 2**27
"""Bytes of a SentencePiece model; umT5's has 4.5 million."""


class SentencePiece:
    """Token ids by a SentencePiece model, the end of the text behind them, as transformers' T5 tokenizers give them."""

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self.processor = SentencePieceProcessor(model_proto=model)
        self.end = int(self.processor.eos_id())
        if self.end < 0:
            raise ValueError("it has no token for the end of a text")

    def __call__(self, text: str, *, truncation: bool, max_length: int) -> dict[str, list[int]]:
        ids = [int(i) for i in self.processor.encode(text)]
        return {"input_ids": [*(ids[: max_length - 1] if truncation else ids), self.end]}


def open_tokenizer(place: Path) -> Tokenizer:
    """The tokenizer of a folder, of a SentencePiece model's file, or of a file of weights that carries one.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        model = spiece_bytes(place)
        return _from_folder(place) if model is None else SentencePiece(model)
    except CheckpointError:
        raise
    except BaseException as error:  # libraries raise anything for damaged files, panics among it
        if not is_fault(error):
            raise
        rule = "no readable tokenizer: a file of it is missing or damaged"
        raise CheckpointError("checkpoint", place, rule, "Download the checkpoint again.") from error


def spiece_bytes(place: Path) -> bytes | None:
    """The SentencePiece model, where the tokenizer is nothing but one."""
    if place.is_dir():
        alone = place / SPIECE_FILE
        return None if any(place.glob("tokenizer*.json")) or not alone.is_file() else spiece_bytes(alone)
    if place.suffix != ".model":
        tensor = value(open_tensors(place)[SPIECE])
        if tensor.dtype not in (torch.uint8, torch.int8) or tensor.numel() > _LARGEST:
            raise ValueError("it is no SentencePiece model")
        return tensor.contiguous().view(torch.uint8).numpy().tobytes()
    if place.stat().st_size > _LARGEST:
        raise ValueError("it is no SentencePiece model")
    return place.read_bytes()


def _from_folder(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
