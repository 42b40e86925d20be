"""Where a checkpoint's files lie and what it says of itself: the published layout, diffusers', ours with a `wanimate.json`, or
files of any names, also spread over ComfyUI's folders. A checkpoint is named by its folder or by its transformer's file.

Nothing is opened here but headers and small JSON files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wanimate.config import Defaults
from wanimate.errors import CheckpointError
from wanimate.media.json_file import read_json
from wanimate.model.params import LATENT_MEAN, LATENT_STD
from wanimate.weights.families import WITHOUT_ANIMATE, Family
from wanimate.weights.formats import open_tensors, shards
from wanimate.weights.peek import ENDINGS, PICKLED, peek
from wanimate.weights.stored import Value
from wanimate.weights.tokenizer import SPIECE_FILE

CARD = "wanimate.json"
_MOST_JSON = 2**20
TRANSFORMER = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE = "Wan2.1_VAE.pth"
TOKENIZER = Path("google") / "umt5-xxl"
_SHARD = re.compile(r"(.{1,200})-[0-9]{5}-of-[0-9]{5}\.safetensors")
_INDEX = ".safetensors.index.json"
_AROUND = ("diffusion_models", "unet")
_FOLDERS: dict[Family, tuple[str, ...]] = {
    "transformer": ("diffusion_models", "unet", "transformer"),
    "VAE": ("vae",),
    "text encoder": ("text_encoders", "clip", "text_encoder"),
    "image encoder": ("clip_vision", "image_encoder"),
}
"""Where ComfyUI and diffusers keep the networks inside a checkpoint's folder."""
_LAYOUTS: dict[Family, str] = {
    "transformer": (
        f"Give a folder with {TRANSFORMER}.safetensors or its shards (published), with transformer/ (diffusers), or with one "
        "file of any name, also in diffusion_models/ (ComfyUI), or give that file."
    ),
    "VAE": f"Put {VAE} (published), vae/{TRANSFORMER}.safetensors (diffusers), or vae/wan_2.1_vae.safetensors (ComfyUI) there.",
    "text encoder": (
        f"Put {T5} (published), text_encoder/ (diffusers), or text_encoders/umt5_xxl_fp16.safetensors (ComfyUI) there."
    ),
    "image encoder": (
        f"Put {CLIP} (published), image_encoder/model.safetensors (diffusers), or clip_vision/clip_vision_h.safetensors "
        "(ComfyUI) there."
    ),
}


class CheckpointConfig(BaseModel):
    """What a small checkpoint says of itself (`wanimate.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(max_length=1024)]
    head_dim: Annotated[int, Field(ge=2, le=4096)] = 128
    text_length: Annotated[int, Field(ge=1, le=2**16)] = 512
    latent_mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=1024)] = LATENT_MEAN
    latent_std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=1024)] = LATENT_STD
    fixed_prompt: bool = False
    note: Annotated[str, Field(max_length=2000)] = ""
    defaults: Defaults = Defaults()


def embedded_path() -> Path:
    """Folder of the checkpoint that ships with the package."""
    return Path(str(files("wanimate.weights") / "embedded" / "mannequin"))


def unnamed_config(root: Path) -> CheckpointConfig:
    """Of a checkpoint without `wanimate.json`: the published network's, under the folder's or the file's name."""
    return CheckpointConfig(
        name=(root.stem if root.is_file() else root.name).encode("utf-8", "backslashreplace").decode()
    )


def read_checkpoint_config(path: Path | None) -> tuple[Path, CheckpointConfig]:
    """The checkpoint's folder, or the transformer's file where one was given, and its config; no weights are opened."""
    root = embedded_path() if path is None else path
    if not root.exists():
        rule = "there is no such folder or file"
        raise CheckpointError(
            "checkpoint", root, rule, "Give a Wan2.2-Animate-14B folder, or a file of its transformer."
        )
    config = home(root) / CARD
    if not config.is_file():
        return root, unnamed_config(root)
    try:
        return root, CheckpointConfig.model_validate(read_json(config, _MOST_JSON))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        rule = f"not a valid config ({'.'.join(str(x) for x in first['loc'])}: {first['msg']})"
        raise CheckpointError("checkpoint", config, rule, "Download it again.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError("checkpoint", config, f"not a valid config ({error})", "Download it again.") from error


def home(root: Path) -> Path:
    """The folder that a checkpoint's small files lie in."""
    return root.parent if root.is_file() else root


def homes(root: Path) -> list[Path]:
    """Folders where a checkpoint's networks are looked for: its own, and the one around a `diffusion_models/` that it is in."""
    folder = home(root).absolute()
    around = [above.parent for above in (folder, *folder.parents[:2]) if above.name in _AROUND]
    return [home(root), *around[:1]]


def find_vae(root: Path) -> Path:
    """The VAE's file in one of the layouts."""
    return _find(root, "VAE", ("vae.safetensors", f"vae/{TRANSFORMER}.safetensors", VAE))


def find_clip(root: Path) -> Path:
    """CLIP's file in one of the layouts."""
    return _find(root, "image encoder", ("image_encoder/model.safetensors", CLIP))


def find_text_encoder(root: Path) -> tuple[Path, Path]:
    """umT5's file or folder, and the tokenizer's place: a folder, a SentencePiece model's file, or the file of the weights."""
    folder = home(root)
    if (folder / "text_encoder").is_dir() and not (folder / T5).exists():
        return folder / "text_encoder", folder / "tokenizer"
    weights = _find(root, "text encoder", (T5,))
    places = [*homes(root), weights.parent]
    wanted = [folder / name for folder in places for name in (TOKENIZER, "tokenizer", SPIECE_FILE)]
    found = next((place for place in wanted if place.exists()), None)
    if found is None and weights.is_file() and peek(weights).tokenizer:
        found = weights
    return weights, found or folder / TOKENIZER


def open_transformer(root: Path) -> dict[str, Value]:
    """The transformer's tensors under their stored names: published shards, diffusers' `transformer/`, or one file of any name.

    Raises:
        CheckpointError: none is there, or several files could be meant.
    """
    first, *more = transformer_files(root)
    return open_tensors(needed(first, "transformer", root), *more)


def transformer_files(root: Path) -> list[Path]:
    """The files that hold the transformer."""
    if root.is_file():
        return _all_shards(root)
    for place in (root, root / "transformer"):
        if any((place / f"{TRANSFORMER}.safetensors{end}").is_file() for end in ("", ".index.json")):
            return shards(place, TRANSFORMER)
    found = _by_content(root, "transformer")
    return _all_shards(found) if found is not None else [root / f"{TRANSFORMER}.safetensors"]


def _all_shards(file: Path) -> list[Path]:
    """The file, or all that its index names where it is a shard or the index."""
    if file.name.endswith(_INDEX):
        return shards(file.parent, file.name.removesuffix(_INDEX))
    part = _SHARD.fullmatch(file.name)
    return shards(file.parent, part[1]) if part and (file.parent / f"{part[1]}{_INDEX}").is_file() else [file]


def _find(root: Path, family: Family, names: Sequence[str]) -> Path:
    """A file under one of the names of the fixed layouts, else one of any name that holds the network; else the last name."""
    fixed = next((file for name in names if (file := home(root) / name).is_file()), None)
    return fixed or _by_content(root, family) or home(root) / names[-1]


def _by_content(root: Path, family: Family) -> Path | None:
    """The one file that holds such a network, in the checkpoint's folder or those that ComfyUI keeps such networks in.

    Of several that could be meant, those count that fit the transformer.

    Raises:
        CheckpointError: several could be meant.
    """
    unreadable: CheckpointError | None = None
    found: list[Path] = []
    for endings in (ENDINGS, PICKLED):  # pickled files only where no other one is there
        for file in _candidates(root, family, endings) if not found else ():
            try:
                found += [file] if peek(file).family == family else []
            except CheckpointError as error:
                unreadable = unreadable or error
    if len(found) > 1 and family != "transformer":
        wanted = next((n for file in transformer_files(root) if (n := peek(file).takes(family)) is not None), None)
        found = [file for file in found if peek(file).width() == wanted] or found
    if len(found) > 1:
        names = ", ".join(os.path.relpath(file, home(root)) for file in found)
        rule = f"several files hold a {family} ({names})"
        first = "Give one of them as the checkpoint" if family == "transformer" else "Move the others to another folder"
        raise CheckpointError("checkpoint", root, rule, f"{first}, or keep one of them in the folder.")
    if not found and unreadable is not None:
        raise unreadable
    return found[0] if found else None


def _candidates(root: Path, family: Family, endings: Sequence[str]) -> list[Path]:
    """Files of these endings in the folders that such a network lies in, or in a folder inside one of those."""
    own, *around = homes(root)
    kept = [folder / name for folder in (own, *around) for name in _FOLDERS[family]]
    places = [own, *(place for folder in kept for place in (folder, *_inside(folder)))]
    files = (file for place in dict.fromkeys(places) for ending in endings for file in place.glob(f"*{ending}"))
    return sorted({file for file in files if file.is_file()})


def _inside(folder: Path) -> list[Path]:
    return sorted(place for place in folder.glob("*") if place.is_dir())


def needed(file: Path, family: Family, root: Path) -> Path:
    """The file, which must be there.

    Raises:
        CheckpointError: it is not. The message names a file there that cannot be used, or every layout.
    """
    if file.exists():
        return file
    check_unused(root, family)
    folders = ", ".join(f"{name}/" for name in _FOLDERS[family])
    rule = (
        f"there is no such file, nor one of any name that holds a {family}, in {home(root)} or in its folders {folders}"
    )
    raise CheckpointError("checkpoint", file, rule, _LAYOUTS[family])


def check_unused(root: Path, family: Family) -> None:
    """Of a network that was not found: whether a file that lies where it should be is damaged, or of another Wan.

    Raises:
        CheckpointError: it is.
    """
    for file in _candidates(root, family, ENDINGS):
        held = peek(file).family
        if held == "unknown":
            open_tensors(file)
        elif family == "transformer" and held == WITHOUT_ANIMATE:
            rule = "it is a Wan transformer without the parts for pose and face that Animate has"
            raise CheckpointError("checkpoint", file, rule, "Use the transformer of Wan2.2-Animate-14B.")


def text_files(root: Path) -> list[Path]:
    """The files of umT5's weights."""
    weights = find_text_encoder(root)[0]
    return sorted(weights.glob("*.safetensors")) if weights.is_dir() else [weights]


def checkpoint_files(root: Path, config: CheckpointConfig) -> list[Path]:
    """Every file that a job may read, each once, by name; those that are not there are left out."""
    folder = home(root)
    wanted = [folder / CARD, *transformer_files(root), find_vae(root), find_clip(root)]
    if config.fixed_prompt:
        wanted.append(folder / "prompts.safetensors")
    else:
        words = find_text_encoder(root)[1]
        wanted += [*text_files(root), *(words.glob("*") if words.is_dir() else [words])]
    return sorted({file for file in wanted if file.is_file()})
