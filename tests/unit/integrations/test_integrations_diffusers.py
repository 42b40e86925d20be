"""diffusers' pipeline gives the same frames with our transformer behind it, and no weight is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
)  # fmt: skip
from PIL import Image
from torch import Tensor

from wanimate.errors import InputError
from wanimate.integrations.diffusers import accelerate, share


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def transformer(dtype: torch.dtype = torch.float32) -> WanAnimateTransformer3DModel:
    torch.manual_seed(7)
    module = WanAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=32, ffn_dim=32, num_layers=4, image_dim=16,
        added_kv_proj_dim=24, motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8}, motion_encoder_size=16,
        motion_style_dim=8, motion_dim=4, motion_encoder_dim=8, face_encoder_hidden_dim=16, face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    ).eval()  # fmt: skip
    for name, p in module.named_parameters():  # the motion encoder scales its weights itself
        p.data.normal_(std=1.0 if name.startswith("motion_encoder") and p.ndim > 1 else 0.25)
    return module.to(dtype)


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "hidden_states": randn(1, 36, 3, 4, 6), "timestep": torch.tensor([875]), "encoder_hidden_states": randn(1, 512, 16),
        "encoder_hidden_states_image": randn(1, 5, 16), "pose_hidden_states": randn(1, 16, 2, 4, 6),
        "face_pixel_values": randn(1, 3, 5, 16, 16).clamp(-1, 1),
    }  # fmt: skip


class Stub:
    def __init__(self, module: Any) -> None:
        self.transformer = module


@torch.no_grad()
def pipeline() -> WanAnimatePipeline:
    torch.manual_seed(8)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = WanAnimatePipeline(None, None, vae.eval(), scheduler, None, None, transformer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def frames(pipe: WanAnimatePipeline, guidance: float) -> np.ndarray:
    random = np.random.default_rng(1)
    pictures = [Image.fromarray(random.integers(0, 255, (16, 32, 3), dtype=np.uint8)) for _ in range(9)]
    faces = [Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(9)]
    generator = torch.Generator().manual_seed(2)
    text, negative = (torch.randn(1, 512, 16, generator=generator) for _ in range(2))
    image_tokens = torch.randn(1, 5, 16, generator=generator)
    pipe.encode_image = lambda image, device: image_tokens
    out = pipe(
        image=pictures[0], pose_video=pictures, face_video=faces, height=16, width=32, segment_frame_length=5,
        num_inference_steps=3, guidance_scale=guidance, prompt_embeds=text, negative_prompt_embeds=negative,
        generator=generator, output_type="np", prev_segment_conditioning_frames=1,
    )  # fmt: skip
    return out.frames[0]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_pipeline_gives_the_same_frames(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline()
    expected = frames(pipe, guidance)
    assert expected.std() > 0.03
    assert accelerate(pipe) is pipe
    prepared: list[int] = []
    network = pipe.transformer.forward.network
    real = network.prepare
    monkeypatch.setattr(network, "prepare", lambda *args: prepared.append(1) or real(*args))
    np.testing.assert_allclose(frames(pipe, guidance), expected, atol=2e-4)
    assert len(prepared) == 2 * (1 if guidance == 1 else 2)  # once a segment and branch, not once a step
    del pipe.transformer.forward
    np.testing.assert_array_equal(frames(pipe, guidance), expected)


def test_every_parameter_shares_its_storage() -> None:
    module = transformer()
    network = share(module)
    theirs = {p.untyped_storage().data_ptr() for p in module.parameters()}
    joined = [t for block in network.face_adapter.fuser_blocks for part in block.linear1_kv.parts for t in part]
    mine = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *joined]}
    assert mine == theirs


@torch.no_grad()
def test_weights_that_move_or_change_are_followed() -> None:
    module = transformer()
    given = inputs()
    accelerate(Stub(module))
    first = module(**given).sample
    module.to(torch.float64).to(torch.float32)
    for p in module.parameters():
        p.data = p.data.clone()
    torch.testing.assert_close(module(**given).sample, first)
    module.proj_out.bias.data += 1  # as fuse_lora does
    assert (module(**given).sample - first).mean().item() == pytest.approx(1, abs=1e-4)
    module.blocks[1].attn2.to_k.weight.data = module.blocks[1].attn2.to_k.weight.data * 2
    changed = module(**given).sample
    del module.forward
    torch.testing.assert_close(changed, module(**given).sample, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_new_inputs_are_not_mistaken_for_old_ones() -> None:
    module = transformer()
    cases = [inputs(seed) for seed in range(4)]
    expected = [module(**case).sample for case in cases]
    accelerate(Stub(module))
    for case, want in [*zip(cases, expected, strict=True), (cases[0], expected[0])]:
        torch.testing.assert_close(module(**case, return_dict=False)[0], want, atol=1e-4, rtol=1e-4)
    face = cases[0]["face_pixel_values"]
    face.mul_(-1)  # in place
    changed = module(**cases[0]).sample
    assert (changed - expected[0]).abs().max() > 1e-3
    del module.forward
    torch.testing.assert_close(changed, module(**cases[0]).sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("words", [0, 1, 9, 511])
@torch.no_grad()
def test_a_prompt_that_zeros_fill_up(words: int) -> None:
    """As diffusers fills up its prompts: rows that are alike are prepared once."""
    module, given = transformer(), inputs()
    given["encoder_hidden_states"][:, words:] = 0
    expected = module(**given).sample
    accelerate(Stub(module))
    torch.testing.assert_close(module(**given).sample, expected, atol=1e-4, rtol=1e-4)
    ((_, _, context),) = module.forward._contexts
    assert {kv.k.shape[1] for kv in context.cross} == {max(words, 1) + 1}


@torch.no_grad()
def test_mixed_types_as_from_pretrained_leaves_them() -> None:
    """bfloat16 with what diffusers keeps in float32: equal within bfloat16's noise."""
    exact = transformer()
    module = transformer(torch.bfloat16)
    for name, p in module.named_parameters():
        if any(kept in name for kept in module._keep_in_fp32_modules):
            p.data = p.data.float()
    given = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in inputs().items()}
    want = exact(**{k: v.float() if v.is_floating_point() else v for k, v in given.items()}).sample
    theirs = module(**given).sample
    accelerate(Stub(module))
    mine = module(**given).sample
    assert mine.dtype == theirs.dtype == torch.bfloat16
    errors = [((x.float() - want).norm() / want.norm()).item() for x in (mine, theirs)]
    assert errors[0] < max(0.02, 1.2 * errors[1])


def test_what_cannot_be_shared_is_said() -> None:
    with pytest.raises(InputError, match="is a Linear"):
        accelerate(Stub(torch.nn.Linear(1, 1)))
    module = transformer()
    module.blocks[0].attn1.fuse_projections()
    with pytest.raises(InputError, match="plain form"):
        accelerate(Stub(module))


def test_a_lora_that_is_not_fused_is_refused_at_the_next_call() -> None:
    module = transformer()
    accelerate(Stub(module))
    from peft import LoraConfig

    module.add_adapter(LoraConfig(target_modules=["to_q"], r=2, lora_alpha=2))
    with pytest.raises(InputError, match="Fuse and unload LoRAs"):
        module(**inputs())


def test_offloading_hooks_stay() -> None:
    module = transformer()
    with torch.no_grad():
        want = module(**inputs()).sample
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Counting(ModelHook):  # type: ignore[misc]
        calls = 0

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            type(self).calls += 1
            return args, kwargs

    add_hook_to_module(module, Counting())
    accelerate(Stub(module))
    torch.testing.assert_close(module(**inputs()).sample, want, atol=1e-4, rtol=1e-4)
    assert Counting.calls == 1
