"""Which network a set of keys is of, and what stands before its keys. Told by keys that no other network has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from wanimate.weights.stored import V

Family = Literal[
    "transformer", "VAE", "text encoder", "image encoder", "LoRA", "Wan transformer without Animate's parts", "unknown"
]
WITHOUT_ANIMATE: Family = "Wan transformer without Animate's parts"
NETWORKS: tuple[Family, ...] = ("transformer", "VAE", "text encoder", "image encoder")

_KEYS: tuple[tuple[Family, str, str], ...] = (
    ("transformer", "published", r"pose_patch_embedding\.(weight|bias)$"),
    ("VAE", "published", r"decoder\.conv1\.(weight|bias)$"),
    ("VAE", "diffusers", r"post_quant_conv\.(weight|bias)$"),
    ("text encoder", "published", r"blocks\.0\.pos_embedding\.embedding\.weight$"),
    ("text encoder", "diffusers", r"encoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.weight$"),
    ("image encoder", "published", r"visual\.cls_embedding$"),
    ("image encoder", "diffusers", r"(vision_model\.)?embeddings\.class_embedding$"),
    (WITHOUT_ANIMATE, "published", r"blocks\.0\.self_attn\.(norm_)?q\.weight$"),
    (WITHOUT_ANIMATE, "diffusers", r"blocks\.0\.attn1\.(norm_q|to_q)\.weight$"),
)
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
"""What PyTorch and its helpers put into the names of modules that they wrap."""
_LONGEST_PREFIX = 200


def identify(keys: Iterable[str]) -> tuple[Family, str, str]:
    """(network, layout, what stands before most of its keys)."""
    names = {_WRAPPERS.sub("", key) for key in keys}
    if any(re.search(r"\.lora_(A|B|down|up)\b|\.diff(_b|_m)?$|\.(lokr|hada)_w1", k) for k in names):
        return "LoRA", "see its dialect in a job's record", ""
    for family, layout, pattern in _KEYS:
        found = [key[: m.start()] for key in names if (m := re.search(rf"(?:^|(?<=\.)){pattern}", key))]
        if not found:
            continue
        prefix = min(found, key=lambda text: (len(text), text))
        most = 2 * sum(name.startswith(prefix) for name in names) >= len(names)
        if len(prefix) > _LONGEST_PREFIX or not most or not _is_ours(family, layout, prefix, names):
            continue
        theirs = family == "transformer" and f"{prefix}condition_embedder.time_proj.weight" in names
        return family, "diffusers" if theirs else layout, prefix
    return "unknown", "unknown", ""


def _is_ours(family: Family, layout: str, prefix: str, names: set[str]) -> bool:
    """Other programmes' VAEs and T5s share some of the names: theirs have norms with biases, and one table of distances."""
    if family == "VAE":
        return any(name.startswith(prefix) and name.endswith(".gamma") for name in names)
    if family == "text encoder" and layout == "diffusers":
        second = f"{prefix}encoder.block.1.layer.0."
        table = f"{second}SelfAttention.relative_attention_bias.weight"
        return table in names or not any(name.startswith(second) for name in names)
    return True


def bare(tensors: Mapping[str, V]) -> dict[str, V]:
    """Keys without what programmes put before them, or into some. Keys that have it not keep their names."""
    prefix = identify(tensors)[2]
    out = {_WRAPPERS.sub("", key).removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return out if len(out) == len(tensors) else dict(tensors)
