"""What network a file holds, from its header alone. Files that are damaged or of other programmes hold none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wanimate.errors import CheckpointError
from wanimate.media.json_file import open_plain, parse_json
from wanimate.weights.families import Family, identify
from wanimate.weights.formats import read_pickle
from wanimate.weights.gguf import gguf_shapes, is_gguf
from wanimate.weights.layouts import SPIECE
from wanimate.weights.stored import is_safetensors

ENDINGS = (".safetensors", ".sft", ".gguf")
PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_LONGEST_HEADER = 2**25
_WIDTHS: dict[Family, tuple[tuple[str, int], ...]] = {
    "VAE": (("conv2.weight", 0), ("post_quant_conv.weight", 0)),
    "text encoder": (("token_embedding.weight", 1), ("shared.weight", 1), ("encoder.embed_tokens.weight", 1)),
    "image encoder": (
        ("visual.cls_embedding", -1), ("vision_model.embeddings.class_embedding", -1), ("embeddings.class_embedding", -1),
    ),
}  # fmt: skip
"""Where a network's shapes tell whether it fits the transformer: latent channels, width of the text, width of the picture."""
_TAKES: dict[Family, tuple[tuple[str, int], ...]] = {
    "VAE": (("pose_patch_embedding.weight", 1),),
    "text encoder": (("text_embedding.0.weight", 1), ("condition_embedder.text_embedder.linear_1.weight", 1)),
    "image encoder": (("img_emb.proj.1.weight", 1), ("condition_embedder.image_embedder.ff.net.0.proj.weight", 1)),
}  # fmt: skip
"""The same of the transformer."""


@dataclass(frozen=True)
class Content:
    """A network's family, whether its file carries a tokenizer, and its shapes by their names without a prefix."""

    family: Family
    tokenizer: bool
    shapes: Mapping[str, tuple[int, ...]]

    def width(self) -> int | None:
        """What has to be the transformer's, too."""
        return _size(self.shapes, _WIDTHS.get(self.family, ()))

    def takes(self, family: Family) -> int | None:
        """What a transformer needs of a network beside it."""
        return _size(self.shapes, _TAKES.get(family, ()))


def _size(shapes: Mapping[str, tuple[int, ...]], places: Iterable[tuple[str, int]]) -> int | None:
    found = ((shapes[key], axis) for key, axis in places if key in shapes)
    return next((shape[axis] for shape, axis in found if len(shape) > max(axis, 0)), None)


def peek(path: Path) -> Content:
    """What a file holds.

    Raises:
        CheckpointError: a GGUF file cannot be read, or the package for it is missing.
    """
    try:
        told = path.stat()
    except OSError:
        return Content("unknown", False, {})
    return _peek(path, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=256)
def _peek(path: Path, size: int, changed: int) -> Content:
    shapes = _shapes(path)
    family, _, prefix = identify(shapes)
    wanted = {key for places in (*_WIDTHS.values(), *_TAKES.values()) for key, _ in places}
    kept = {bare: shape for key, shape in shapes.items() if (bare := key.removeprefix(prefix)) in wanted}
    return Content(family, SPIECE in shapes, kept)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        if is_gguf(path):
            return gguf_shapes(path)
        if is_safetensors(path):
            return _safetensors(path)
        loaded = read_pickle(path)
    except OSError:
        return {}
    except CheckpointError:
        if path.suffix == ".gguf":
            raise
        return {}
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    return {key: tuple(getattr(v, "shape", ())) for key, v in loaded.items()} if isinstance(loaded, dict) else {}


def _safetensors(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with open(open_plain(path), "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length)) if 2 <= length <= _LONGEST_HEADER else {}
        entries = header.items() if isinstance(header, dict) else ()
        return {key: _shape(entry) for key, entry in entries if key != "__metadata__"}
    except (OSError, ValueError):
        return {}


def _shape(entry: object) -> tuple[int, ...]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    return tuple(shape) if isinstance(shape, list) and all(type(n) is int for n in shape) else ()
