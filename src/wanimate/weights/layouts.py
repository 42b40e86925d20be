"""Other libraries' layouts of the same networks -> the published names (model spec, section 13).

A layout is told by its keys, never by a file's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from wanimate.weights.families import bare
from wanimate.weights.stored import V, Value, defer, defer_rows

SPIECE = "spiece_model"
"""A tensor of ComfyUI's text encoders: the bytes of the tokenizer's SentencePiece model."""
_TRANSFORMER = [
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"^(blocks\.\d+)\.attn1\.", r"\1.self_attn."),
    (r"^(blocks\.\d+)\.attn2\.", r"\1.cross_attn."),
    (r"^(blocks\.\d+\.\w+_attn)\.to_([qkv])\.", r"\1.\2."),
    (r"^(blocks\.\d+\.\w+_attn)\.to_out\.0\.", r"\1.o."),
    (r"^(blocks\.\d+\.\w+_attn)\.add_([kv])_proj\.", r"\1.\2_img."),
    (r"^(blocks\.\d+\.\w+_attn)\.norm_added_k\.", r"\1.norm_k_img."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),  # diffusers counts norms as they are used
    (r"^(blocks\.\d+)\.ffn\.net\.0\.proj\.", r"\1.ffn.0."),
    (r"^(blocks\.\d+)\.ffn\.net\.2\.", r"\1.ffn.2."),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^face_adapter\.(\d+)\.to_q\.", r"face_adapter.fuser_blocks.\1.linear1_q."),
    (r"^face_adapter\.(\d+)\.to_out\.", r"face_adapter.fuser_blocks.\1.linear2."),
    (r"^face_adapter\.(\d+)\.norm_([qk])\.", r"face_adapter.fuser_blocks.\1.\2_norm."),
    (r"^face_encoder\.(conv\w+)\.", r"face_encoder.\1.conv."),
    (r"^motion_encoder\.motion_synthesis_weight$", "motion_encoder.dec.direction.weight"),
    (r"^motion_encoder\.motion_network\.", "motion_encoder.enc.fc."),
    (r"^motion_encoder\.conv_in\.weight$", "motion_encoder.enc.net_app.convs.0.0.weight"),
    (r"^motion_encoder\.conv_in\.act_fn\.bias$", "motion_encoder.enc.net_app.convs.0.1.bias"),
]
_IN_STAGE = {
    "conv1.weight": "conv1.0.weight", "conv1.act_fn.bias": "conv1.1.bias", "conv2.weight": "conv2.1.weight",
    "conv2.act_fn.bias": "conv2.2.bias", "conv_skip.weight": "skip.1.weight",
}  # fmt: skip
_VAE = [
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.middle.0."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.middle.1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.middle.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (r"^((?:encoder|decoder)\.(?:middle|downsamples|upsamples)\.\d+)\.norm1\.", r"\1.residual.0."),
    (r"^((?:encoder|decoder)\.(?:middle|downsamples|upsamples)\.\d+)\.conv1\.", r"\1.residual.2."),
    (r"^((?:encoder|decoder)\.(?:middle|downsamples|upsamples)\.\d+)\.norm2\.", r"\1.residual.3."),
    (r"^((?:encoder|decoder)\.(?:middle|downsamples|upsamples)\.\d+)\.conv2\.", r"\1.residual.6."),
    (r"^((?:encoder|decoder)\.\w+\.\d+)\.conv_shortcut\.", r"\1.shortcut."),
]
_UMT5 = [
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\.", r"blocks.\1.attn.\2."),
    (
        r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.",
        r"blocks.\1.pos_embedding.embedding.",
    ),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"blocks.\1.norm1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"blocks.\1.norm2."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
]
_CLIP = [
    (r"^embeddings\.patch_embedding\.", "patch_embedding."),
    (r"^pre_layrnorm\.", "pre_norm."),
    (r"^post_layernorm\.", "post_norm."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.\1.attn.proj."),
    (r"^encoder\.layers\.(\d+)\.layer_norm([12])\.", r"transformer.\1.norm\2."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.\1.mlp.0."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.\1.mlp.2."),
]


def native_transformer(tensors: Mapping[str, V]) -> dict[str, V]:
    """A transformer in the published layout, from that layout or from diffusers', with or without a prefix.

    Keys that neither layout has keep their names, so that strict loading names them.
    """
    tensors = bare(tensors)
    if not any(key.startswith("condition_embedder.") for key in tensors):
        return tensors
    out: dict[str, V] = {}
    stages = 1 + max(  # numbers of more digits are no blocks
        (int(m[1]) for k in tensors if (m := re.match(r"motion_encoder\.res_blocks\.([0-9]{1,3})\.", k))), default=0
    )
    for key, tensor in tensors.items():
        if m := re.match(r"face_adapter\.(\d+)\.to_([kv])\.(\w+)$", key):
            values = key.replace(".to_k.", ".to_v.")
            if m[2] == "k" and values in tensors and _fit(tensor, tensors[values]):
                out[f"face_adapter.fuser_blocks.{m[1]}.linear1_kv.{m[3]}"] = defer_rows(
                    _joined, tensor, tensors[values]
                )
            continue
        name = _motion_name(key, stages) or renamed(key, _TRANSFORMER)
        is_bias = name.startswith("motion_encoder.enc.net_app") and name.endswith("bias")
        out[name] = defer(lambda t: t.view(1, -1, 1, 1), tensor) if is_bias else tensor
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for stage in range(1, stages + 1):  # diffusers rebuilds the blur kernels
        for place in ("conv2", "skip"):
            out[f"motion_encoder.enc.net_app.convs.{stage}.{place}.0.kernel"] = torch.outer(taps, taps) / 64
    return out


def native_vae(tensors: Mapping[str, V]) -> dict[str, V]:
    """A VAE in the published layout, from that layout or from diffusers' AutoencoderKLWan."""
    tensors = bare(tensors)
    if "post_quant_conv.weight" not in tensors:
        return dict(tensors)
    found = [int(m[1]) for k in tensors if (m := re.match(r"decoder\.up_blocks\.0\.resnets\.([0-9]{1,3})\.", k))]
    in_level = 1 + max(found, default=0)
    out: dict[str, V] = {}
    for key, tensor in tensors.items():
        name = key
        if m := re.match(r"decoder\.up_blocks\.([0-9]{1,3})\.(?:resnets\.([0-9]{1,3})|upsamplers\.0)\.(.+)$", key):
            place = int(m[1]) * (in_level + 1) + (in_level if m[2] is None else int(m[2]))
            name = f"decoder.upsamples.{place}.{m[3]}"
        out[renamed(name, _VAE)] = tensor
    return out


def native_umt5(tensors: Mapping[str, V]) -> dict[str, V]:
    """umT5 in the published layout, from that layout or from transformers' UMT5EncoderModel.

    The tokenizer that ComfyUI's files carry as a tensor is left out (`weights.tokenizer`).
    """
    tensors = {key: tensor for key, tensor in bare(tensors).items() if key != SPIECE}
    table = next((k for k in ("shared.weight", "encoder.embed_tokens.weight") if k in tensors), None)
    if table is None:
        return dict(tensors)
    twice = ("shared.weight", "encoder.embed_tokens.weight")
    out = {renamed(key, _UMT5): tensor for key, tensor in tensors.items() if key not in twice}
    return {"token_embedding.weight": tensors[table]} | out


def native_clip(tensors: Mapping[str, V]) -> dict[str, V]:
    """CLIP's picture tower in the published layout, from that layout or from transformers' CLIPVisionModel."""
    tensors = bare(tensors)
    own = {key.removeprefix("vision_model."): tensor for key, tensor in tensors.items()}
    if "embeddings.class_embedding" not in own:
        return dict(tensors)
    out: dict[str, V] = {}
    for key, tensor in own.items():
        name = renamed(key, _CLIP)
        if key.endswith("position_ids") or key == "visual_projection.weight":  # the projection is never used
            continue
        if key == "embeddings.class_embedding":
            name, tensor = "cls_embedding", defer(lambda t: t.view(1, 1, -1), tensor)
        elif key == "embeddings.position_embedding.weight":
            name, tensor = "pos_embedding", defer(lambda t: t[None], tensor)
        elif m := re.match(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)$", key):
            rows = [own.get(key.replace(f".{m[2]}_proj.", f".{part}_proj.")) for part in "qkv"]
            whole = [r for r in rows if r is not None]
            if m[2] != "q" or len(whole) < 3 or not _fit(*whole):
                continue
            name, tensor = f"transformer.{m[1]}.attn.to_qkv.{m[3]}", defer(_joined, *whole)
        out[f"visual.{name}"] = tensor
    return out


def _fit(*parts: Value) -> bool:
    """Whether they can be joined; where they cannot, strict loading names the whole as missing."""
    return all(part.ndim and part.shape[1:] == parts[0].shape[1:] and part.dtype == parts[0].dtype for part in parts)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def native_module(name: str) -> str:
    """The published name of a transformer's module from diffusers'; other names stay."""
    return renamed(f"{name}.", _TRANSFORMER).removesuffix(".")


def renamed(key: str, rules: list[tuple[str, str]]) -> str:
    """A key after all rules (pattern, replacement), in order."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _motion_name(key: str, stages: int) -> str | None:
    if key == "motion_encoder.conv_out.weight":
        return f"motion_encoder.enc.net_app.convs.{stages + 1}.weight"
    m = re.match(r"motion_encoder\.res_blocks\.([0-9]{1,3})\.(.+)$", key)
    return f"motion_encoder.enc.net_app.convs.{int(m[1]) + 1}.{_IN_STAGE.get(m[2], m[2])}" if m else None
