"""Text and image encoders through the published keys, and the whole road with small real networks."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import detgen
import pytest
import torch
from published_shapes import clip_shapes, t5_shapes
from test_loop import FirstKept, golden_guides
from test_networks import params_of
from torch import Tensor

from golden import Golden, Taps, check, fill
from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.reference import letterboxed
from wanimate.conditions.segments import plan_segments
from wanimate.config import Defaults
from wanimate.engines.segment import SegmentMaker
from wanimate.jobs.segments import FramesDone, run_segments
from wanimate.model.image_encoder import ClipImageEncoder, preprocess
from wanimate.model.params import VaeParams
from wanimate.model.text_encoder import TextEncoder, clean
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.sampling.guidance import guided
from wanimate.types import Conditions
from wanimate.weights.checkpoint import load_image_encoder, load_text_encoder


def published_t5(c: dict[str, int], seed_prefix: str = "") -> TextEncoder:
    shapes = t5_shapes(c["vocab"], c["dim"], c["dim_attn"], c["dim_ffn"], c["num_heads"], c["num_layers"])
    return load_text_encoder(detgen.state_dict(shapes, prefix=seed_prefix), None, Path("golden"))


def published_clip(dim: int, heads: int, layers: int) -> ClipImageEncoder:
    return load_image_encoder(detgen.state_dict(clip_shapes(dim, layers)), Path("golden"), heads)


def test_text_encoder() -> None:
    golden = Golden("t5_encoder")
    config: dict[str, Any] = golden.meta["config"]
    encoder = published_t5(config)
    short, medium, full = (ids[:n] for ids, n in zip(golden["ids"], config["lens"], strict=True))
    outputs = [encoder.encode_ids(short)]
    with Taps(block0=encoder.model.encoder.block[0]) as taps:
        outputs.append(encoder.encode_ids(medium))
    outputs.append(encoder.encode_ids(full))
    check("short", outputs[0], golden["out_0"], 3e-4, 1e-4)
    check("medium", outputs[1][::7], golden["out_1_rows"], 3e-4, 1e-4)
    check("medium, first block", taps["block0"][0, ::7], golden["block0_out_1_rows"], 3e-4, 1e-4)
    check("full", outputs[2][::7], golden["out_2_rows"], 3e-4, 1e-4)


def test_buckets_of_the_text_encoder() -> None:
    """Each head's bias is made the bucket's own number, so the biases that attention gets tell the buckets."""
    golden = Golden("t5_encoder")
    encoder = published_t5(golden.meta["config"])
    for block in encoder.model.encoder.block:
        attention = block.layer[0].SelfAttention
        with torch.no_grad():
            attention.relative_attention_bias.weight.copy_(torch.arange(32.0)[:, None])
        buckets = attention.compute_bias(512, 512)[0, 0]
        towards = torch.cat((buckets[-1, :-1], buckets[0]))  # key - query from -511 to 511
        check("buckets", towards, golden["buckets_rel_-511..511"].float(), 0, 0)


def test_prompts_are_cleaned() -> None:
    assert clean("  a&amp;amp;b \n\t c ") == "a&b c"


def test_image_encoder() -> None:
    golden = Golden("clip_visual")
    encoder = published_clip(**{k: golden.meta["config"][k] for k in ("dim", "heads", "layers")})
    picture = detgen.smooth_video("input/clip/image", 1, 96, 160)[0]
    check("preprocessed", preprocess(picture)[:, ::8], golden["preprocessed_rows"], 1e-4, 5e-5)
    tokens = encoder.encode(picture)
    check("tokens", tokens[golden["rows"]], golden["out_rows"], 1e-4, 5e-5)
    check("class", tokens[:4], golden["out_cls_full"], 1e-4, 5e-5)


@torch.no_grad()
def test_whole_road_with_small_networks() -> None:
    golden = Golden("e2e")
    config, case = golden.meta["config"], golden.meta["cases"]["animate"]
    transformer = AnimateTransformer(params_of(config["dit"]))
    fill(transformer)
    vae = VideoVae(VaeParams(base=config["vae_dim"]))
    fill(vae, seed_prefix="vae.")
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(b"input/e2e/ids_POS"))
    ids = torch.randint(2, config["t5"]["vocab"], (7,), generator=generator)
    ids[-1] = 1
    text = published_t5(config["t5"], "t5.").encode_ids(ids)
    guides = golden_guides("e2e_animate", case, face=512)
    settings = Defaults(steps=case["steps"], solver=case["solver"], clip_length=case["clip"], overlap=case["ref"])
    builder = ConditionBuilder(guides, vae, published_clip(**config["clip"]), text, None)
    assert builder.image_tokens is not None
    check("image tokens", builder.image_tokens[:3], golden["animate.clip_rows"], 3e-4, 1e-4)

    seen: list[Conditions] = []
    noise: list[Tensor] = []
    decoded: list[Tensor] = []

    def network(conditions: Conditions) -> Any:
        seen.append(conditions)
        return FirstKept(noise, guided(transformer, conditions, case["cfg"]))

    class Codec:
        def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Any:
            decoded.append(latents[0])
            return vae.decode_pieces(latents, chunk)

    segments = plan_segments(guides.count, case["clip"], case["ref"], compat=True)
    events = run_segments(SegmentMaker(builder, network, Codec(), settings), segments, guides.count, case["seed"])
    frames = torch.cat([e.frames for e in events if isinstance(e, FramesDone)]).permute(1, 0, 2, 3) * 2 - 1
    for k in range(2):
        check(f"segment {k} y", seen[k].y, golden[f"animate.y_seg{k}"], 3e-4, 1e-4)
        check(f"segment {k} noise", noise[k], golden[f"animate.noise_seg{k}"], 3e-4, 1e-4)
        check(f"segment {k} latents", decoded[k], golden[f"animate.latents_seg{k}"], 3e-4, 1e-4)
    check("frames", frames, golden["animate.out"], 3e-4, 1e-4)
    assert letterboxed(guides.reference, guides.size).shape == (3, 1, 64, 64)


@pytest.mark.parametrize("missing", ["token_embedding.weight", "blocks.0.attn.q.weight"])
def test_a_file_that_is_not_the_encoder_is_named(missing: str) -> None:
    tensors = {k: torch.zeros(4, 4) for k in ("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight")}
    tensors |= {"blocks.0.attn.q.weight": torch.zeros(4, 4), "blocks.0.ffn.fc1.weight": torch.zeros(4, 4)}
    del tensors[missing]
    with pytest.raises(Exception, match=missing):
        load_text_encoder(tensors, None, Path("t5.pth"))
