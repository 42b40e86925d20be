"""What the keys of a checkpoint tell: the sizes of its networks, and the names other libraries use for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.model.params import LATENT_MEAN, LATENT_STD, MotionParams, TransformerParams, VaeParams


def transformer_params(
    tensors: Mapping[str, Tensor], head_dim: int, text_length: int, source: Path
) -> TransformerParams:
    """Sizes of a transformer from its tensors' shapes. Head size and text length leave no trace in them."""
    try:
        dim, channels = tensors["patch_embedding.weight"].shape[:2]
        motion = "motion_encoder.enc."
        convs = [k for k in tensors if k.startswith(motion + "net_app.convs.") and k.endswith("conv2.1.weight")]
        widths = [tensors[motion + "net_app.convs.0.0.weight"].shape[0]]
        widths += [tensors[f"{motion}net_app.convs.{i + 1}.conv2.1.weight"].shape[0] for i in range(len(convs))]
        layers = sum(k.startswith(motion + "fc.") and k.endswith(".weight") for k in tensors)
        blocks = sum(k.startswith("blocks.") and k.endswith(".modulation") for k in tensors)
        fusers = sum(k.startswith("face_adapter.") and k.endswith("linear2.weight") for k in tensors)
        width, directions = tensors["motion_encoder.dec.direction.weight"].shape
        image = tensors.get("img_emb.proj.1.weight")
        face_width = tensors["face_encoder.out_proj.weight"].shape[1]
        return TransformerParams(
            dim=dim,
            ffn_dim=tensors["blocks.0.ffn.0.weight"].shape[0],
            num_heads=dim // head_dim,
            num_layers=blocks,
            in_channels=channels,
            out_channels=tensors["pose_patch_embedding.weight"].shape[1],
            time_width=tensors["time_embedding.0.weight"].shape[1],
            text_width=tensors["text_embedding.0.weight"].shape[1],
            text_length=text_length,
            image_width=None if image is None else image.shape[1],
            face_width=face_width,
            face_slots=tensors["face_encoder.conv1_local.conv.weight"].shape[0] // face_width,
            face_every=blocks // fusers,
            motion=MotionParams(tuple(widths), width, directions, layers),
        )
    except (KeyError, ZeroDivisionError, AssertionError) as error:
        rule = f"it is not a Wan-Animate transformer (looked for {error})"
        raise CheckpointError(
            "checkpoint", source, rule, "Use a Wan2.2-Animate checkpoint with native keys."
        ) from error


def vae_params(
    tensors: Mapping[str, Tensor],
    source: Path,
    mean: tuple[float, ...] = LATENT_MEAN,
    std: tuple[float, ...] = LATENT_STD,
) -> VaeParams:
    """Sizes of a VAE from its tensors' shapes. The normalisation constants are not stored in published files."""
    try:
        base = tensors["encoder.conv1.weight"].shape[0]
        blocks = 0
        while f"encoder.downsamples.{blocks}.residual.2.weight" in tensors:
            blocks += 1
        levels = [
            tensors[f"encoder.downsamples.{i * (blocks + 1)}.residual.2.weight"].shape[0] // base for i in range(4)
        ]
        latent = tensors["conv2.weight"].shape[0]
        return VaeParams(base=base, latent=latent, multipliers=tuple(levels), res_blocks=blocks, mean=mean, std=std)
    except KeyError as error:
        rule = f"it is not a Wan VAE ({error} is missing)"
        raise CheckpointError("VAE", source, rule, "Use the VAE that comes with the checkpoint.") from error


def umt5_to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published umT5 keys -> transformers' UMT5EncoderModel (model spec, section 7)."""
    simple = {
        "norm1": "0.layer_norm", "norm2": "1.layer_norm", "attn.q": "0.SelfAttention.q", "attn.k": "0.SelfAttention.k",
        "attn.v": "0.SelfAttention.v", "attn.o": "0.SelfAttention.o",
        "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias", "ffn.gate.0": "1.DenseReluDense.wi_0",
        "ffn.fc1": "1.DenseReluDense.wi_1", "ffn.fc2": "1.DenseReluDense.wo",
    }  # fmt: skip
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key == "token_embedding.weight":
            out["shared.weight"] = out["encoder.embed_tokens.weight"] = tensor
        elif key == "norm.weight":
            out["encoder.final_layer_norm.weight"] = tensor
        else:
            _, block, rest = key.split(".", 2)
            out[f"encoder.block.{block}.layer.{simple[rest.removesuffix('.weight')]}.weight"] = tensor
    return out


def clip_to_transformers(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Published CLIP keys -> transformers' CLIPVisionModel (model spec, section 8).

    Leaves out the text tower, the last block and the projection, which are never used. `prefix` is what this version of
    transformers puts before its names.
    """
    simple = {
        "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }  # fmt: skip
    visual = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    last = max(int(k.split(".")[1]) for k in visual if k.startswith("transformer."))
    out: dict[str, Tensor] = {
        "embeddings.class_embedding": visual["cls_embedding"].flatten(),
        "embeddings.position_embedding.weight": visual["pos_embedding"][0],
        "embeddings.patch_embedding.weight": visual["patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        out[f"pre_layrnorm.{kind}"] = visual[f"pre_norm.{kind}"]
        out[f"post_layernorm.{kind}"] = visual[f"post_norm.{kind}"]
    for key, tensor in visual.items():
        if not key.startswith("transformer.") or key.startswith(f"transformer.{last}."):
            continue
        _, block, rest = key.split(".", 2)
        name, kind = rest.rsplit(".", 1)
        layer = f"encoder.layers.{block}."
        if name == "attn.to_qkv":
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{layer}self_attn.{part}_proj.{kind}"] = rows
        else:
            out[f"{layer}{simple[name]}.{kind}"] = tensor
    return {prefix + k: v for k, v in out.items()}
