"""Published names -> those of diffusers and transformers; the way back is in `layouts` (model spec, section 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from wanimate.model.params import TransformerParams, VaeParams
from wanimate.weights.layouts import renamed
from wanimate.weights.names import clip_to_transformers, umt5_to_transformers
from wanimate.weights.stored import V, defer, defer_rows

_BLOCK = r"^(blocks\.\d+)\."
_TRANSFORMER = [
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (_BLOCK + r"norm3\.", r"\1.norm2."),
    (_BLOCK + r"ffn\.0\.", r"\1.ffn.net.0.proj."),
    (_BLOCK + r"ffn\.2\.", r"\1.ffn.net.2."),
    (_BLOCK + r"modulation$", r"\1.scale_shift_table"),
    (_BLOCK + r"self_attn\.", r"\1.attn1."),
    (_BLOCK + r"cross_attn\.", r"\1.attn2."),
    (r"^(blocks\.\d+\.attn[12])\.o\.", r"\1.to_out.0."),
    (r"^(blocks\.\d+\.attn[12])\.([qkv])\.", r"\1.to_\2."),
    (r"^(blocks\.\d+\.attn2)\.([kv])_img\.", r"\1.add_\2_proj."),
    (r"^(blocks\.\d+\.attn2)\.norm_k_img\.", r"\1.norm_added_k."),
    (r"^face_adapter\.fuser_blocks\.(\d+)\.linear1_q\.", r"face_adapter.\1.to_q."),
    (r"^face_adapter\.fuser_blocks\.(\d+)\.linear2\.", r"face_adapter.\1.to_out."),
    (r"^face_adapter\.fuser_blocks\.(\d+)\.([qk])_norm\.", r"face_adapter.\1.norm_\2."),
    (r"^face_encoder\.(conv\w+)\.conv\.", r"face_encoder.\1."),
    (r"^motion_encoder\.dec\.direction\.weight$", "motion_encoder.motion_synthesis_weight"),
    (r"^motion_encoder\.enc\.fc\.", "motion_encoder.motion_network."),
    (r"^motion_encoder\.enc\.net_app\.convs\.0\.0\.", "motion_encoder.conv_in."),
    (r"^motion_encoder\.enc\.net_app\.convs\.0\.1\.", "motion_encoder.conv_in.act_fn."),
]
_IN_STAGE = [
    (r"^conv1\.0\.", "conv1."), (r"^conv1\.1\.", "conv1.act_fn."), (r"^conv2\.1\.", "conv2."),
    (r"^conv2\.2\.", "conv2.act_fn."), (r"^skip\.1\.", "conv_skip."),
]  # fmt: skip
_VAE = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"^(encoder|decoder)\.middle\.0\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.middle\.1\.", r"\1.mid_block.attentions.0."),
    (r"^(encoder|decoder)\.middle\.2\.", r"\1.mid_block.resnets.1."),
    (r"^encoder\.downsamples\.", "encoder.down_blocks."),
]


def diffusers_transformer(tensors: Mapping[str, V]) -> dict[str, V]:
    """WanAnimateTransformer3DModel: the fixed blur kernels are left out, keys and values of a fuser come apart."""
    last = max(
        (int(m[1]) for k in tensors if (m := re.match(r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.", k))), default=0
    )
    out: dict[str, V] = {}
    for key, tensor in tensors.items():
        if key.endswith(".kernel"):
            continue
        if m := re.match(r"face_adapter\.fuser_blocks\.(\d+)\.linear1_kv\.(\w+)$", key):
            for i, part in enumerate("kv"):
                out[f"face_adapter.{m[1]}.to_{part}.{m[2]}"] = defer_rows(partial(_half, i), tensor)
            continue
        name = renamed(key, _TRANSFORMER)
        if m := re.match(r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.(.+)$", name):
            stage = f"res_blocks.{int(m[1]) - 1}.{renamed(m[2], _IN_STAGE)}"
            name = "motion_encoder." + ("conv_out.weight" if int(m[1]) == last else stage)
        flat = key.startswith("motion_encoder.enc.net_app") and key.endswith("bias")
        out[name] = defer(lambda t: t.flatten(), tensor) if flat else tensor
    return out


def diffusers_vae(tensors: Mapping[str, V], res_blocks: int = 2) -> dict[str, V]:
    """AutoencoderKLWan."""
    out: dict[str, V] = {}
    for key, tensor in tensors.items():
        name = renamed(key, _VAE)
        if m := re.match(r"decoder\.upsamples\.(\d+)\.(.+)$", name):
            level, place = divmod(int(m[1]), res_blocks + 2)
            part = "upsamplers.0" if place > res_blocks else f"resnets.{place}"
            name = f"decoder.up_blocks.{level}.{part}.{m[2]}"
        out[name] = tensor
    return out


def transformers_umt5(tensors: Mapping[str, V]) -> dict[str, V]:
    """UMT5EncoderModel; of the embedding's two names only one is written."""
    return {k: v for k, v in umt5_to_transformers(tensors).items() if k != "encoder.embed_tokens.weight"}


def transformers_clip(tensors: Mapping[str, V]) -> dict[str, V]:
    """CLIPVisionModel: the picture tower without its projection."""
    return clip_to_transformers(tensors, "vision_model.", whole=True)


def _half(which: int, tensor: Tensor) -> Tensor:
    return tensor.chunk(2)[which]


def transformer_config(p: TransformerParams) -> dict[str, Any]:
    """`config.json` of diffusers' WanAnimateTransformer3DModel."""
    return {
        "_class_name": "WanAnimateTransformer3DModel", "patch_size": list(p.patch), "num_attention_heads": p.num_heads,
        "attention_head_dim": p.head_dim, "in_channels": p.in_channels, "latent_channels": p.out_channels,
        "out_channels": p.out_channels, "text_dim": p.text_width, "freq_dim": p.time_width, "ffn_dim": p.ffn_dim,
        "num_layers": p.num_layers, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": p.eps,
        "image_dim": p.image_width, "added_kv_proj_dim": p.dim if p.image_width else None,
        "motion_encoder_channel_sizes": {str(p.motion.size >> i): c for i, c in enumerate(p.motion.channels)},
        "motion_encoder_size": p.motion.size, "motion_style_dim": p.motion.width, "motion_dim": p.motion.directions,
        "motion_encoder_dim": p.motion.width,
        "face_encoder_hidden_dim": p.face_width, "face_encoder_num_heads": p.face_slots,
        "inject_face_latents_blocks": p.face_every,
    }  # fmt: skip


def vae_config(p: VaeParams) -> dict[str, Any]:
    """`config.json` of diffusers' AutoencoderKLWan."""
    return {
        "_class_name": "AutoencoderKLWan", "base_dim": p.base, "z_dim": p.latent, "dim_mult": list(p.multipliers),
        "num_res_blocks": p.res_blocks, "attn_scales": [], "temperal_downsample": list(p.temporal), "dropout": 0.0,
        "latents_mean": list(p.mean), "latents_std": list(p.std),
    }  # fmt: skip
