"""Where a checkpoint's files lie and what it says of itself: the published layout, diffusers', or ours with a `wanimate.json`.

Nothing is opened here but headers and small JSON files.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wanimate.config import Defaults
from wanimate.errors import CheckpointError
from wanimate.media.json_file import read_json
from wanimate.model.params import LATENT_MEAN, LATENT_STD
from wanimate.weights.formats import open_tensors, shards
from wanimate.weights.layouts import holds_transformer
from wanimate.weights.stored import Value

CARD = "wanimate.json"
_MOST_JSON = 2**20
TRANSFORMER = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE = "Wan2.1_VAE.pth"
TOKENIZER = Path("google") / "umt5-xxl"


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


def unnamed_config(folder: Path) -> CheckpointConfig:
    """Of a folder without `wanimate.json`: the published network's, under the folder's name."""
    return CheckpointConfig(name=folder.name.encode("utf-8", "backslashreplace").decode())


def read_checkpoint_config(path: Path | None) -> tuple[Path, CheckpointConfig]:
    """The checkpoint's folder and config, without opening its weights."""
    folder = embedded_path() if path is None else path
    if not folder.is_dir():
        raise CheckpointError("checkpoint", folder, "there is no such folder", "Give a Wan2.2-Animate-14B folder.")
    config = folder / CARD
    if not config.is_file():
        return folder, unnamed_config(folder)
    try:
        return folder, CheckpointConfig.model_validate(read_json(config, _MOST_JSON))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        rule = f"not a valid config ({'.'.join(str(x) for x in first['loc'])}: {first['msg']})"
        raise CheckpointError("checkpoint", config, rule, "Download it again.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError("checkpoint", config, f"not a valid config ({error})", "Download it again.") from error


def find_vae(folder: Path) -> Path:
    """The VAE's file in one of the layouts."""
    places = (folder / "vae.safetensors", folder / "vae" / f"{TRANSFORMER}.safetensors")
    return next((file for file in places if file.is_file()), folder / VAE)


def find_clip(folder: Path) -> Path:
    """CLIP's file in one of the layouts."""
    own = folder / "image_encoder" / "model.safetensors"
    return own if own.is_file() else folder / CLIP


def find_text_encoder(folder: Path) -> tuple[Path, Path]:
    """umT5's file or folder, and the tokenizer's folder, in one of the layouts."""
    diffusers = (folder / "text_encoder").is_dir() and not (folder / T5).exists()
    weights = folder / ("text_encoder" if diffusers else T5)
    return weights, folder / ("tokenizer" if diffusers else TOKENIZER)


def open_transformer(folder: Path) -> dict[str, Value]:
    """The transformer's tensors under their stored names: published shards, diffusers' `transformer/`, or one file of any name.

    Raises:
        CheckpointError: none is there, or several files could be meant.
    """
    return open_tensors(*transformer_files(folder))


def transformer_files(folder: Path) -> list[Path]:
    """The files that hold the transformer."""
    for place in (folder, folder / "transformer"):
        if any((place / f"{TRANSFORMER}.safetensors{end}").is_file() for end in ("", ".index.json")):
            return shards(place, TRANSFORMER)
    files = sorted(file for ending in ("safetensors", "gguf") for file in folder.glob(f"*.{ending}"))
    found = [file for file in files if holds_transformer(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        rule = f"several files hold a transformer ({names})"
        raise CheckpointError("checkpoint", folder, rule, "Keep one of them in the folder.")
    return found or [folder / f"{TRANSFORMER}.safetensors"]


def text_files(folder: Path) -> list[Path]:
    """The files of umT5's weights."""
    weights = find_text_encoder(folder)[0]
    return sorted(weights.glob("*.safetensors")) if weights.is_dir() else [weights]


def checkpoint_files(folder: Path, config: CheckpointConfig) -> list[Path]:
    """Every file that a job may read, each once, by name; those that are not there are left out."""
    wanted = [folder / CARD, *transformer_files(folder), find_vae(folder), find_clip(folder)]
    if config.fixed_prompt:
        wanted.append(folder / "prompts.safetensors")
    else:
        wanted += [*text_files(folder), *find_text_encoder(folder)[1].glob("*")]
    return sorted({file for file in wanted if file.is_file()})
