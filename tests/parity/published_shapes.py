"""Key names and shapes of the published text and image encoders at any size."""

from __future__ import annotations


def t5_shapes(vocab: int, dim: int, inner: int, ffn: int, heads: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embedding.weight": (vocab, dim), "norm.weight": (dim,)}
    for i in range(layers):
        b = f"blocks.{i}."
        shapes |= {b + f"attn.{x}.weight": (inner, dim) for x in "qkv"} | {b + "attn.o.weight": (dim, inner)}
        shapes |= {b + "norm1.weight": (dim,), b + "norm2.weight": (dim,), b + "ffn.fc2.weight": (dim, ffn)}
        shapes |= {b + "ffn.gate.0.weight": (ffn, dim), b + "ffn.fc1.weight": (ffn, dim)}
        shapes[b + "pos_embedding.embedding.weight"] = (32, heads)
    return shapes


def clip_shapes(dim: int, layers: int) -> dict[str, tuple[int, ...]]:
    v = "visual."
    shapes: dict[str, tuple[int, ...]] = {
        v + "cls_embedding": (1, 1, dim), v + "pos_embedding": (1, 257, dim), v + "patch_embedding.weight": (dim, 3, 14, 14),
        v + "pre_norm.weight": (dim,), v + "pre_norm.bias": (dim,), v + "post_norm.weight": (dim,),
        v + "post_norm.bias": (dim,), v + "head": (dim, 1024), "textual.log_scale": (1,),
    }  # fmt: skip
    for i in range(layers):
        b = f"{v}transformer.{i}."
        linears = {
            "attn.to_qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.0": (4 * dim, dim),
            "mlp.2": (dim, 4 * dim),
        }
        for name, shape in linears.items():
            shapes |= {f"{b}{name}.weight": shape, f"{b}{name}.bias": shape[:1]}
        shapes |= {f"{b}{n}.{kind}": (dim,) for n in ("norm1", "norm2") for kind in ("weight", "bias")}
    return shapes
