"""Prompts to embeddings. What umT5 made of a prompt is kept on disk, so that its 11 GB are opened for a new prompt only.

The cache is the folder `prompts` of `media.files.cache_folder`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from wanimate.errors import OutputError
from wanimate.log import LOG, log_choice
from wanimate.media.files import AtomicFile, cache_folder, in_utf8
from wanimate.model.text_encoder import TextEncoder

DEFAULT_PROMPT = "视频中的人在做动作"
DEFAULT_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
FORMAT = 1
"""Goes up when the same prompt and files shall give another embedding."""


class PromptEncoder(Protocol):
    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        """[tokens, text width]; an empty prompt is the checkpoint's own default."""
        ...

    def is_known(self, prompt: str, negative: bool = False) -> bool:
        """Whether `encode` can answer without opening a network."""
        ...

    def release(self) -> None:
        """Give the memory of the network back; the next new prompt opens it again."""
        ...


class FixedPrompt:
    """The one prompt a small checkpoint was trained with."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        return self.tensors["negative" if negative else "positive"]

    def is_known(self, prompt: str, negative: bool = False) -> bool:
        return True

    def release(self) -> None:
        pass


class PublishedPrompt:
    """umT5, opened by the first prompt that neither this object nor the cache on disk knows."""

    def __init__(self, files: Sequence[Path], opened: Callable[[], TextEncoder]) -> None:
        self.identity, self.opened = identity(files), opened
        self.known: dict[str, Tensor] = {}
        self._encoder: TextEncoder | None = None

    def is_known(self, prompt: str, negative: bool = False) -> bool:
        text = _text(prompt, negative)
        return text in self.known or self._file(text).is_file()

    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        text = _text(prompt, negative)
        if text not in self.known:
            file = self._file(text)
            found = _read(file)
            log_choice("prompt", "cache" if found is not None else "text encoder", str(file))
            if found is None:
                self._encoder = self._encoder or self.opened()
                found = self._encoder.encode(text).cpu()
                _keep(file, found)
            self.known[text] = found
        return self.known[text]

    def release(self) -> None:
        self._encoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _file(self, text: str) -> Path:
        return cache_folder() / "prompts" / f"{self.key(text)}.safetensors"

    def key(self, text: str) -> str:
        """Name of an embedding in the cache: it changes with the text and with the files of the encoder."""
        return hashlib.sha256(json.dumps([FORMAT, text, self.identity]).encode()).hexdigest()[:40]


def _text(prompt: str, negative: bool) -> str:
    return prompt or (DEFAULT_NEGATIVE if negative else DEFAULT_PROMPT)


def identity(files: Sequence[Path]) -> list[list[object]]:
    """What tells files apart without opening them: name, size and time of change of each, folders with all they hold."""
    inside = [f for path in files for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in inside]


def _read(file: Path) -> Tensor | None:
    try:
        with in_utf8(file) as name:
            return load_file(name)["text"]
    except (OSError, SafetensorError, KeyError):
        return None


def _keep(file: Path, text: Tensor) -> None:
    try:
        with AtomicFile(file) as out:
            out.write(save({"text": text.contiguous()}))
    except (OutputError, OSError) as error:
        LOG.warning("the embedding of the prompt is not kept (%s)", error)
