"""What the keys of a checkpoint tell: the sizes of its networks, and the names other libraries use for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.model.params import LATENT_MEAN, LATENT_STD, MotionParams, TransformerParams, VaeParams
from wanimate.weights.stored import V, Values, defer


class Sizes:
    """Sizes read off the shapes of a checkpoint; a key that is missing or has another number of axes is named."""

    def __init__(self, tensors: Values) -> None:
        self.tensors = tensors

    def of(self, key: str, axis: int, axes: int) -> int:
        """Length of one axis of a tensor that has `axes`."""
        if key not in self.tensors:
            raise ValueError(f"{key} is missing")
        shape = self.tensors[key].shape
        if len(shape) != axes:
            raise ValueError(f"{key} has the shape {list(shape)}, not {axes} axes")
        return int(shape[axis])

    def count(self, prefix: str) -> int:
        """How many numbers follow `prefix`, from 0 on."""
        found = {key[len(prefix) :].split(".", 1)[0] for key in self.tensors if key.startswith(prefix)}
        if not found:
            raise ValueError(f"{prefix}0 is missing")
        return len(found)


def transformer_params(tensors: Values, head_dim: int, text_length: int, source: Path) -> TransformerParams:
    """Sizes of a transformer from its tensors' shapes. Head size and text length leave no trace in them."""
    sizes, motion = Sizes(tensors), "motion_encoder.enc."
    try:
        dim = sizes.of("patch_embedding.weight", 0, 5)
        stages = sizes.count(motion + "net_app.convs.") - 2
        widths = [sizes.of(motion + "net_app.convs.0.0.weight", 0, 4)]
        widths += [sizes.of(f"{motion}net_app.convs.{i + 1}.conv2.1.weight", 0, 4) for i in range(stages)]
        blocks, fusers = sizes.count("blocks."), sizes.count("face_adapter.fuser_blocks.")
        face_width = sizes.of("face_encoder.out_proj.weight", 1, 2)
        has_image = any(key.startswith("img_emb.") for key in tensors)
        return TransformerParams(
            dim=dim,
            ffn_dim=sizes.of("blocks.0.ffn.0.weight", 0, 2),
            num_heads=dim // head_dim,
            num_layers=blocks,
            in_channels=sizes.of("patch_embedding.weight", 1, 5),
            out_channels=sizes.of("pose_patch_embedding.weight", 1, 5),
            time_width=sizes.of("time_embedding.0.weight", 1, 2),
            text_width=sizes.of("text_embedding.0.weight", 1, 2),
            text_length=text_length,
            image_width=sizes.of("img_emb.proj.1.weight", 1, 2) if has_image else None,
            face_width=face_width,
            face_slots=sizes.of("face_encoder.conv1_local.conv.weight", 0, 3) // face_width,
            face_every=blocks // fusers,
            motion=MotionParams(
                channels=tuple(widths),
                width=sizes.of("motion_encoder.dec.direction.weight", 0, 2),
                directions=sizes.of("motion_encoder.dec.direction.weight", 1, 2),
                layers=sizes.count(motion + "fc."),
            ),
        )
    except (ValueError, ZeroDivisionError, AssertionError) as error:
        rule = f"it is not a Wan-Animate transformer ({error or 'its sizes do not fit together'})"
        raise CheckpointError(
            "checkpoint", source, rule, "Use a Wan2.2-Animate checkpoint with native keys."
        ) from error


def vae_params(
    tensors: Values,
    source: Path,
    mean: tuple[float, ...] = LATENT_MEAN,
    std: tuple[float, ...] = LATENT_STD,
) -> VaeParams:
    """Sizes of a VAE from its tensors' shapes. The normalisation constants are not stored in published files."""
    sizes = Sizes(tensors)
    try:
        base = sizes.of("encoder.conv1.weight", 0, 5)
        blocks = 0
        while f"encoder.downsamples.{blocks}.residual.2.weight" in tensors:
            blocks += 1
        first = [f"encoder.downsamples.{level * (blocks + 1)}.residual.2.weight" for level in range(4)]
        multipliers = tuple(sizes.of(key, 0, 5) // base for key in first)
        latent = sizes.of("conv2.weight", 0, 5)
        if len(mean) != latent or len(std) != latent:
            raise ValueError(
                f"it has {latent} latent channels, the config gives {len(mean)} means and {len(std)} widths"
            )
        return VaeParams(base, latent, multipliers, blocks, mean=mean, std=std)
    except (ValueError, ZeroDivisionError) as error:
        rule = f"it is not a Wan VAE ({error})"
        raise CheckpointError("VAE", source, rule, "Use the VAE that comes with the checkpoint.") from error


def umt5_to_transformers(tensors: Mapping[str, V]) -> dict[str, V]:
    """Published umT5 keys -> transformers' UMT5EncoderModel (model spec, section 7). Unknown keys keep their names."""
    simple = {
        "norm1": "0.layer_norm", "norm2": "1.layer_norm", "attn.q": "0.SelfAttention.q", "attn.k": "0.SelfAttention.k",
        "attn.v": "0.SelfAttention.v", "attn.o": "0.SelfAttention.o",
        "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias", "ffn.gate.0": "1.DenseReluDense.wi_0",
        "ffn.fc1": "1.DenseReluDense.wi_1", "ffn.fc2": "1.DenseReluDense.wo",
    }  # fmt: skip
    out: dict[str, V] = {}
    for key, tensor in tensors.items():
        if key == "token_embedding.weight":
            out["shared.weight"] = out["encoder.embed_tokens.weight"] = tensor
        elif key == "norm.weight":
            out["encoder.final_layer_norm.weight"] = tensor
        else:
            _, _, inside = key.partition(".")
            block, _, rest = inside.partition(".")
            place = simple.get(rest.removesuffix(".weight"))
            out[f"encoder.block.{block}.layer.{place}.weight" if place else key] = tensor
    return out


def clip_to_transformers(tensors: Mapping[str, V], prefix: str = "", whole: bool = False) -> dict[str, V]:
    """Published CLIP keys -> transformers' CLIPVisionModel (model spec, section 8).

    Leaves out the text tower, the last block and the projection, which are never used; `whole` keeps the last block.
    `prefix` is what this version of transformers puts before its names. Unknown keys keep their names.

    Raises:
        KeyError: the published key of a tensor that is missing.
        ValueError: the rows of a `to_qkv` cannot be told apart.
    """
    simple = {
        "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }  # fmt: skip
    visual = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    numbers = [int(m[1]) for k in visual if (m := re.match(r"transformer\.([0-9]{1,3})\.", k))]
    if not numbers:
        raise KeyError("transformer.0")
    last = max(numbers)
    out: dict[str, V] = {
        "embeddings.class_embedding": defer(lambda t: t.flatten(), visual["cls_embedding"]),
        "embeddings.position_embedding.weight": defer(lambda t: t[0], visual["pos_embedding"]),
        "embeddings.patch_embedding.weight": visual["patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        out[f"pre_layrnorm.{kind}"] = visual[f"pre_norm.{kind}"]
        out[f"post_layernorm.{kind}"] = visual[f"post_norm.{kind}"]
    for key, tensor in visual.items():
        if not key.startswith("transformer.") or (key.startswith(f"transformer.{last}.") and not whole):
            continue
        if not (m := re.fullmatch(r"transformer\.([0-9]{1,3})\.(.+)\.(\w+)", key)):
            raise ValueError(f"visual.{key} is unknown")
        block, name, kind = m.groups()
        layer = f"encoder.layers.{block}."
        if name == "attn.to_qkv":
            if not tensor.ndim or len(tensor) % 3:
                raise ValueError(f"visual.{key} has the shape {list(tensor.shape)}")
            for i, part in enumerate("qkv"):
                out[f"{layer}self_attn.{part}_proj.{kind}"] = defer(partial(_third, i), tensor)
        else:
            out[f"{layer}{simple[name]}.{kind}" if name in simple else f"visual.{key}"] = tensor
    return {prefix + k: v for k, v in out.items()}


def _third(which: int, tensor: Tensor) -> Tensor:
    return tensor.chunk(3)[which]
