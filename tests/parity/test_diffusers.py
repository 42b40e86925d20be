"""Live agreement with diffusers' own classes on converted weights, and the published key lists at full size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import detgen
import pytest
import torch
from diffusers import AutoencoderKLWan, WanAnimateTransformer3DModel
from published_names import transformer_to_diffusers, vae_to_diffusers
from torch import Tensor, nn

from golden import check, fill, read_json
from wanimate.model.image_encoder import ClipImageEncoder
from wanimate.model.params import LATENT_MEAN, LATENT_STD, MotionParams, TransformerParams, VaeParams
from wanimate.model.text_encoder import TextEncoder, umt5_config
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.weights.checkpoint import load_image_encoder
from wanimate.weights.names import transformer_params, umt5_to_transformers, vae_params

KEYS = Path(__file__).parent.parent / "golden" / "keys"


def published(name: str) -> dict[str, Tensor]:
    """Empty tensors of one published file."""
    shapes: dict[str, list[int]] = read_json(f"keys/{name}.json")
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def twin(params: TransformerParams) -> WanAnimateTransformer3DModel:
    """diffusers' class with the same sizes."""
    motion = params.motion
    channels = {str(motion.size >> i): c for i, c in enumerate(motion.channels)}
    return WanAnimateTransformer3DModel(
        num_attention_heads=params.num_heads, attention_head_dim=params.head_dim, in_channels=params.in_channels,
        latent_channels=params.out_channels, out_channels=params.out_channels, text_dim=params.text_width,
        freq_dim=params.time_width, ffn_dim=params.ffn_dim, num_layers=params.num_layers, eps=params.eps,
        image_dim=params.image_width, added_kv_proj_dim=None if params.image_width is None else params.dim,
        motion_encoder_channel_sizes=channels, motion_encoder_size=motion.size, motion_style_dim=motion.width,
        motion_dim=motion.directions, motion_encoder_dim=motion.width, face_encoder_hidden_dim=params.face_width,
        face_encoder_num_heads=params.face_slots, inject_face_latents_blocks=params.face_every,
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison: latent grid (T, h, w), batch, text tokens."""

    params: TransformerParams
    grid: tuple[int, int, int]
    batch: int
    text: int
    time: int


SMALL_FACES = MotionParams(channels=(8, 16, 32, 32, 32), width=48, directions=12)
CASES = {
    "published layout": Case(
        TransformerParams(dim=256, ffn_dim=512, num_heads=2, num_layers=10, text_width=64, face_width=128),
        (2, 8, 12), 1, 23, 875,
    ),
    "no image tokens, other sizes": Case(
        TransformerParams(
            dim=192, ffn_dim=320, num_heads=3, num_layers=6, text_width=48, text_length=7, image_width=None,
            face_width=96, face_every=3, motion=SMALL_FACES, time_width=128,
        ),
        (3, 12, 8), 2, 7, 31,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "other sizes" in name else ()) for name in CASES]
)
@torch.no_grad()
def test_transformer(name: str) -> None:
    case = CASES[name]
    ours = AnimateTransformer(case.params)
    fill(ours)
    theirs = twin(case.params).eval()
    theirs.load_state_dict(transformer_to_diffusers(ours.state_dict()), strict=True)
    (frames, height, width), batch = case.grid, case.batch
    x = detgen.randn(f"{name}/x", (batch, 16, frames + 1, height, width))
    y = detgen.randn(f"{name}/y", (batch, 20, frames + 1, height, width))
    pose = detgen.randn(f"{name}/pose", (batch, 16, frames, height, width))
    size = case.params.motion.size
    pixels = 4 * frames - 3
    face = detgen.smooth_video(f"{name}/face", batch * pixels, size, size).unflatten(0, (batch, pixels)).transpose(1, 2)
    text = detgen.randn(f"{name}/text", (batch, case.text, case.params.text_width))
    image = None if case.params.image_width is None else detgen.randn(f"{name}/image", (batch, 257, 1280))
    t = torch.full((batch,), case.time)
    padded = nn.functional.pad(text, (0, 0, 0, case.params.text_length - case.text))
    expected = theirs(torch.cat((x, y), 1), t, padded, image, pose, face, return_dict=False)[0]
    check(name, ours(x, t, y, ours.prepare(text, image, face, pose)), expected, 5e-5, 2e-5)


@pytest.mark.parametrize(("base", "res_blocks"), [(16, 2), (24, 1)])
@torch.no_grad()
def test_vae(base: int, res_blocks: int) -> None:
    ours = VideoVae(VaeParams(base=base, res_blocks=res_blocks))
    fill(ours)
    theirs = AutoencoderKLWan(base_dim=base, num_res_blocks=res_blocks).eval()
    theirs.load_state_dict(vae_to_diffusers(ours.state_dict(), res_blocks), strict=True)
    video = detgen.smooth_video("diffusers/video", 13, 48, 64).transpose(0, 1)[None]
    mean, std = (torch.tensor(v).view(1, 16, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    encoded = (theirs.encode(video).latent_dist.mode() - mean) / std
    check("encode", ours.encode(video), encoded, 5e-6 * max(1.0, encoded.abs().max().item()), 5e-6)
    latents = detgen.randn("diffusers/latents", (1, 16, 4, 6, 8))
    decoded = theirs.decode(latents * std + mean).sample
    assert decoded.abs().max() > 0.5
    check("decode", ours.decode(latents).clamp(-1, 1), decoded, 2e-5, 2e-5)


def test_full_size_transformer_has_the_published_keys() -> None:
    listed = published("transformer")
    with torch.device("meta"):
        ours = AnimateTransformer(TransformerParams())
        theirs = twin(TransformerParams())
    assert shapes_of(ours.state_dict()) == shapes_of(listed)
    assert transformer_params(listed, 128, 512, KEYS) == TransformerParams()
    assert shapes_of(transformer_to_diffusers(listed)) == shapes_of(theirs.state_dict())


def test_full_size_vae_has_the_published_keys() -> None:
    listed = published("vae")
    with torch.device("meta"):
        ours, theirs = VideoVae(VaeParams(base=96)), AutoencoderKLWan()
    assert shapes_of(ours.state_dict()) == shapes_of(listed)
    assert vae_params(listed, KEYS) == VaeParams()
    assert shapes_of(vae_to_diffusers(listed)) == shapes_of(theirs.state_dict())


def test_full_size_text_encoder_takes_the_published_keys() -> None:
    with torch.device("meta"):
        ours = TextEncoder(umt5_config(256384, 4096, 4096, 10240, 64, 24), None)
    assert shapes_of(umt5_to_transformers(published("t5_encoder"))) == shapes_of(ours.model.state_dict())


def test_full_size_image_encoder_takes_the_published_keys() -> None:
    """Everything of the visual tower goes somewhere but its last block and its projection, which are never used."""
    listed = published("clip_visual")
    loaded = load_image_encoder({k: v.to("meta") for k, v in listed.items()}, KEYS, device="meta")
    assert shapes_of(loaded.state_dict()) == shapes_of(ClipImageEncoder(1280, 16, 31, 5120).state_dict())
    unused = ("visual.transformer.31.", "visual.post_norm.", "visual.head")
    used = {k: v for k, v in listed.items() if k.startswith("visual.") and not k.startswith(unused)}
    assert shapes_of(used) == shapes_of(loaded.state_dict())
