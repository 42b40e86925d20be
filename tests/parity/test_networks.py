"""Every network against the numbers of the published code, tap by tap, float32 on the CPU."""

from __future__ import annotations

import detgen
import pytest
import torch
from einops import rearrange

from golden import Golden, Taps, check, fill
from wanimate.model.face import FaceEncoder, FaceFuser
from wanimate.model.motion import MotionEncoder
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.rope import apply_rope, rope_table
from wanimate.model.transformer import AnimateTransformer, time_sinusoid
from wanimate.model.vae import VideoVae


def params_of(config: dict[str, int]) -> TransformerParams:
    return TransformerParams(
        dim=config["dim"],
        ffn_dim=config["ffn_dim"],
        num_heads=config["num_heads"],
        num_layers=config["num_layers"],
        text_width=config["text_dim"],
    )


def test_generators_reproduce_the_canaries() -> None:
    golden, tolerance = Golden("canaries"), (1e-6, 1e-6)
    check("randn", detgen.randn("canary/a", (4, 5)), golden["randn_canary_a_4x5"], *tolerance)
    b = detgen.randn("canary/b", (1000,))
    check("randn, many", b[:16], golden["randn_canary_b_1000_first16"], *tolerance)
    check("randn, sum", b.double().sum()[None], golden["randn_canary_b_sum"], *tolerance)
    check("randn, few", detgen.randn("canary/d", (3,)), golden["randn_canary_d_3"], *tolerance)
    check("rand", detgen.rand("canary/c", (64,)), golden["rand_canary_c_64"], *tolerance)
    video = detgen.smooth_video("canary/v", 1, 32, 48)
    check("smooth video", video[0, :, 7], golden["smooth_canary_v_1x3x32x48_row7"], *tolerance)
    for key, shape in (("norm_q.weight", (16,)), ("q.bias", (16,)), ("q.weight", (16, 16))):
        full = f"blocks.0.self_attn.{key}"
        expected = golden[f"param_{full}_{'x'.join(map(str, shape))}"]
        check(f"param {key}", detgen.param(full, shape), expected, *tolerance)
    seeded = torch.randn(2, 3, 17, generator=torch.Generator("cpu").manual_seed(7))
    check("generator", seeded, golden["generator_seed7_2x3x17"], *tolerance)


@pytest.mark.parametrize("width", [64, 128])
def test_rope(width: int) -> None:
    x = detgen.randn(f"input/rope/x{width}", (1, 60, 2, width))
    check("rope", apply_rope(x, rope_table((3, 4, 5), width)), Golden("basics")[f"rope_out_d{width}"], 1e-5, 1e-5)


def test_time_sinusoid_and_unpatchify() -> None:
    golden = Golden("basics")
    check("sinusoid", time_sinusoid(golden["sinusoid_t"], 256), golden["sinusoid_256"], 0, 0)
    with torch.device("meta"):
        model = AnimateTransformer(
            params_of({"dim": 64, "ffn_dim": 64, "num_heads": 4, "num_layers": 5, "text_dim": 8})
        )
    tokens = torch.arange(60 * 64, dtype=torch.float32).view(1, 60, 64)
    check("unpatchify", model.unpatchify(tokens, (3, 4, 5))[0], golden["unpatchify"].float(), 0, 0)


@torch.no_grad()
def test_motion_encoder() -> None:
    golden = Golden("motion_encoder")
    model = fill(MotionEncoder(MotionParams()), "motion_encoder.")
    assert isinstance(model, MotionEncoder)
    faces = detgen.smooth_video("input/motion/face", 2, 512, 512)
    x = faces
    for level, conv in enumerate(model.enc.net_app.convs):
        x = conv(x)
        check(f"level {level} mean", x.mean((2, 3)), golden[f"level{level}_mean_per_channel"], 5e-5, 5e-5)
        check(f"level {level} corner", x[:, :4, :4, :4], golden[f"level{level}_patch"], 5e-5, 5e-5)
    check("feature", x[:, :, 0, 0], golden["app_feature"], 5e-5, 5e-5)
    check("coefficients", model.enc(faces), golden["motion_coeff"], 5e-5, 5e-5)
    check("Q", model.dec.basis(), golden["Q"], 5e-5, 5e-5)
    check("motion", model(faces), golden["motion"], 5e-5, 5e-5)


@torch.no_grad()
def test_face_encoder() -> None:
    golden = Golden("face_encoder")
    model = fill(FaceEncoder(TransformerParams(dim=256, num_heads=4)), "face_encoder.")
    for frames in golden.meta["frames"]:
        out = model(detgen.randn(f"input/face_encoder/motion{frames}", (1, frames, 512)))
        expected = golden[f"out_{frames}"]
        out = out if out.shape == expected.shape else out[:, :, [0, 4]]
        check(f"{frames} frames", out, expected, 5e-5, 5e-5)


@torch.no_grad()
def test_face_fuser() -> None:
    model = fill(FaceFuser(TransformerParams(dim=256, num_heads=4)), "face_adapter.fuser_blocks.0.")
    assert isinstance(model, FaceFuser)
    tokens = detgen.randn("input/fuser/face_tokens", (1, 3, 5, 256))
    tokens[:, 0] = 0
    out = model(detgen.randn("input/fuser/x", (1, 24, 256)), model.keys_values(tokens))
    check("fuser", out, Golden("fuser_block")["out"], 5e-5, 5e-5)


@pytest.mark.parametrize("base", [32, 96])
@torch.no_grad()
def test_vae(base: int) -> None:
    golden = Golden("vae")
    model = fill(VideoVae(VaeParams(base=base)))
    assert isinstance(model, VideoVae)
    video = rearrange(detgen.smooth_video("input/vae/video", 9, 64, 48), "k c h w -> 1 c k h w")
    latents = detgen.randn("input/vae/z", (1, 16, 3, 8, 6))
    check("encode", model.encode(video)[0], golden[f"encode_dim{base}"], 1e-4, 5e-5)
    check("decode", model.decode(latents)[0], golden[f"decode_raw_dim{base}"], 1e-4, 5e-5)


@torch.no_grad()
def test_vae_pieces_do_not_change_the_result() -> None:
    model = fill(VideoVae(VaeParams(base=16)))
    assert isinstance(model, VideoVae)
    video = detgen.randn("pieces/video", (1, 3, 21, 16, 24)).clamp(-1, 1)
    latents = detgen.randn("pieces/latents", (1, 16, 6, 2, 3))
    for chunk in (2, 3, 100):
        check(f"encode by {chunk}", model.encode(video, chunk), model.encode(video), 2e-5, 1e-5)
        check(f"decode by {chunk}", model.decode(latents, chunk), model.decode(latents), 2e-5, 1e-5)
    check("whole", model.encode_piece(video, {}), model.encode(video), 2e-5, 1e-5)
    assert [p.shape[2] for p in model.decode_pieces(latents, 2)] == [1, 8, 8, 4]


def transformer_inputs(golden: Golden) -> dict[str, torch.Tensor]:
    face = detgen.smooth_video("input/dit/face", 17, 512, 512)
    return {
        "x": detgen.randn("input/dit/x", (1, 16, 6, 12, 20)),
        "y": detgen.randn("input/dit/y", (1, 20, 6, 12, 20)),
        "pose": detgen.randn("input/dit/pose_latents", (1, 16, 5, 12, 20)),
        "face": rearrange(face, "k c h w -> 1 c k h w"),
        "image": detgen.randn("input/dit/clip_fea", (1, 257, 1280)),
        "text": detgen.randn("input/dit/context", (1, 23, 64)),
        "t0": torch.tensor([int(golden.meta["t0"])]),
        "t1": torch.tensor([int(golden.meta["t1"])]),
    }


@torch.no_grad()
def test_transformer() -> None:
    golden = Golden("transformer")
    model = AnimateTransformer(params_of(golden.meta["config"]))
    fill(model)
    given = transformer_inputs(golden)
    context = model.prepare(given["text"], given["image"], given["face"], given["pose"])
    blocks, fusers = model.blocks, model.face_adapter.fuser_blocks
    taps = Taps(
        block0_self_attn=blocks[0].self_attn.o, block0_cross_attn=blocks[0].cross_attn, block0_ffn=blocks[0].ffn,
        block0=blocks[0], fuser0_residual=fusers[0], block1=blocks[1], block5=blocks[5], fuser1_residual=fusers[1],
        block9=blocks[9], head=model.head,
    )  # fmt: skip
    tolerance = (2e-4, 5e-5)
    rows = golden["token_rows"]
    e, e0 = model.embed_time(given["t0"])
    check("time_e", e, golden["tap.time_e"], *tolerance)
    check("time_e0", e0.flatten(1), golden["tap.time_e0"], *tolerance)
    text = model.embed_text(given["text"])[0]
    assert len(text) == given["text"].shape[1] + 1
    kept = torch.as_tensor(golden["text_rows"]).clamp(max=len(text) - 1)  # the last one stands for all that follow
    check("text", text[kept], golden["tap.text_tokens_rows"], *tolerance)
    image = model.embed_image(given["image"])
    assert image is not None
    check("image", image[0, golden["image_rows"]], golden["tap.image_tokens_rows"], *tolerance)
    motion = model.motion_encoder(rearrange(given["face"], "1 c k h w -> k c h w"))
    check("motion", motion, golden["tap.motion"], *tolerance)
    check("face tokens", model.encode_face(given["face"]), golden["tap.face_tokens"], *tolerance)
    tokens = model.embed_video(given["x"], given["y"], context.pose)
    check("tokens_in", tokens[0, rows], golden["tap.tokens_in"], *tolerance)

    with taps:
        out = model(given["x"], given["t0"], given["y"], context)
    for name, tensor in taps.items():
        check(name, tensor[0] if name == "head" else tensor[0, rows], golden[f"tap.{name}"], *tolerance)
    check("out_t0", out[0], golden["out_t0"], *tolerance)
    check("out_t1", model(given["x"], given["t1"], given["y"], context)[0], golden["out_t1"], *tolerance)
    blank = model.prepare(given["text"], given["image"], torch.full_like(given["face"], -1), given["pose"])
    out = model(given["x"], given["t0"], given["y"], blank)
    check("out_t0_uncond_face", out[0], golden["out_t0_uncond_face"], *tolerance)


@pytest.mark.parametrize("measured_faces", [True, pytest.param(False, marks=pytest.mark.slow)])
@torch.no_grad()
def test_transformer_in_bfloat16_stays_near_the_float32_numbers(
    measured_faces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With measured face tokens, because bfloat16 convolutions take minutes on processors without such instructions."""
    golden = Golden("transformer")
    if measured_faces:
        monkeypatch.setattr(AnimateTransformer, "encode_face", lambda _, face: golden["tap.face_tokens"].bfloat16())
    model = AnimateTransformer(params_of(golden.meta["config"]))
    fill(model)
    given = transformer_inputs(golden)
    model.bfloat16()
    context = model.prepare(given["text"], given["image"], given["face"], given["pose"])
    out = model(given["x"], given["t0"], given["y"], context)[0]
    expected = golden["out_t0"]
    assert (out - expected).norm() / expected.norm() <= 1e-2
    assert torch.cosine_similarity(out.flatten(), expected.flatten(), dim=0) >= 0.9999
