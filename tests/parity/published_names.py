"""Published key names -> those of diffusers' WanAnimateTransformer3DModel and AutoencoderKLWan (model spec, section 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_SIMPLE = {
    "text_embedding.0.": "condition_embedder.text_embedder.linear_1.",
    "text_embedding.2.": "condition_embedder.text_embedder.linear_2.",
    "time_embedding.0.": "condition_embedder.time_embedder.linear_1.",
    "time_embedding.2.": "condition_embedder.time_embedder.linear_2.",
    "time_projection.1.": "condition_embedder.time_proj.",
    "img_emb.proj.0.": "condition_embedder.image_embedder.norm1.",
    "img_emb.proj.1.": "condition_embedder.image_embedder.ff.net.0.proj.",
    "img_emb.proj.3.": "condition_embedder.image_embedder.ff.net.2.",
    "img_emb.proj.4.": "condition_embedder.image_embedder.norm2.",
    "head.modulation": "scale_shift_table",
    "head.head.": "proj_out.",
    "motion_encoder.dec.direction.weight": "motion_encoder.motion_synthesis_weight",
    "motion_encoder.enc.fc.": "motion_encoder.motion_network.",
    "motion_encoder.enc.net_app.convs.0.0.weight": "motion_encoder.conv_in.weight",
    "motion_encoder.enc.net_app.convs.0.1.bias": "motion_encoder.conv_in.act_fn.bias",
}
_IN_BLOCK = {
    "norm3.": "norm2.", "ffn.0.": "ffn.net.0.proj.", "ffn.2.": "ffn.net.2.", "modulation": "scale_shift_table",
    "self_attn.": "attn1.", "cross_attn.": "attn2.",
}  # fmt: skip
_IN_ATTENTION = {
    "q.": "to_q.", "k.": "to_k.", "v.": "to_v.", "o.": "to_out.0.", "k_img.": "add_k_proj.", "v_img.": "add_v_proj.",
    "norm_k_img.": "norm_added_k.",
}  # fmt: skip
_IN_FUSER = {"linear1_q.": "to_q.", "linear2.": "to_out.", "q_norm.": "norm_q.", "k_norm.": "norm_k."}
_IN_STAGE = {
    "conv1.0.weight": "conv1.weight", "conv1.1.bias": "conv1.act_fn.bias", "conv2.1.weight": "conv2.weight",
    "conv2.2.bias": "conv2.act_fn.bias", "skip.1.weight": "conv_skip.weight",
}  # fmt: skip
_IN_RESIDUAL = {
    "residual.0.": "norm1.", "residual.2.": "conv1.", "residual.3.": "norm2.", "residual.6.": "conv2.",
    "shortcut.": "conv_shortcut.",
}  # fmt: skip


def transformer_to_diffusers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fixed blur kernels are left out; keys and values of a fuser come apart."""
    stages = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.", k)))
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.endswith(".kernel"):
            continue
        if m := re.match(r"face_adapter\.fuser_blocks\.(\d+)\.linear1_kv\.(\w+)", key):
            for name, rows in zip(("to_k", "to_v"), tensor.chunk(2), strict=True):
                out[f"face_adapter.{m[1]}.{name}.{m[2]}"] = rows
            continue
        biases_of_activations = key.startswith("motion_encoder.enc.net_app")
        flat = tensor.flatten() if biases_of_activations and key.endswith("bias") else tensor
        out[_transformer_name(key, stages)] = flat
    return out


def _transformer_name(key: str, stages: int) -> str:
    if m := re.match(r"blocks\.(\d+)\.(.+)", key):
        rest = _start(m[2], _IN_BLOCK)
        if rest.startswith("attn"):
            attention, rest = rest.split(".", 1)
            rest = f"{attention}.{_start(rest, _IN_ATTENTION)}"
        return f"blocks.{m[1]}.{rest}"
    if m := re.match(r"face_adapter\.fuser_blocks\.(\d+)\.(.+)", key):
        return f"face_adapter.{m[1]}.{_start(m[2], _IN_FUSER)}"
    if m := re.match(r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.(.+)", key):
        if int(m[1]) == stages - 1:
            return "motion_encoder.conv_out.weight"
        if int(m[1]):
            return f"motion_encoder.res_blocks.{int(m[1]) - 1}.{_IN_STAGE[m[2]]}"
    if key.startswith("face_encoder."):
        return key.replace(".conv.", ".")
    return _start(key, _SIMPLE)


def vae_to_diffusers(tensors: Mapping[str, Tensor], res_blocks: int = 2) -> dict[str, Tensor]:
    return {_vae_name(key, res_blocks): tensor for key, tensor in tensors.items()}


def _vae_name(key: str, res_blocks: int) -> str:
    side, _, rest = key.partition(".")
    if side in ("conv1", "conv2"):
        return f"{'quant_conv' if side == 'conv1' else 'post_quant_conv'}.{rest}"
    part, _, rest = rest.partition(".")
    if part == "conv1":
        return f"{side}.conv_in.{rest}"
    index, _, rest = rest.partition(".")
    place = int(index)
    rest = _start(rest, _IN_RESIDUAL)
    if part == "head":
        return f"{side}.{'norm_out' if place == 0 else 'conv_out'}.{rest}"
    if part == "middle":
        return f"{side}.mid_block.{('resnets.0', 'attentions.0', 'resnets.1')[place]}.{rest}"
    if part == "downsamples":
        return f"{side}.down_blocks.{index}.{rest}"
    level, place = divmod(place, res_blocks + 2)
    return f"{side}.up_blocks.{level}.{'upsamplers.0' if place > res_blocks else f'resnets.{place}'}.{rest}"


def _start(name: str, table: Mapping[str, str]) -> str:
    """`name` with its beginning replaced, where the table has one for it."""
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name
