"""What each speed comes to on a machine; the kernels themselves are tested on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from golden import fill
from wanimate.config import Attention, GenerateSettings, RuntimeSettings, Speed
from wanimate.engines.resolved import ResolvedJob
from wanimate.errors import InputError
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime import optimize as speed
from wanimate.runtime.backends import backends
from wanimate.runtime.patches import installed
from wanimate.runtime.planning.sizes import wanted_weights
from wanimate.weights.locate import read_checkpoint_config

PARAMS = TransformerParams(
    dim=64, ffn_dim=128, num_heads=2, num_layers=10, text_width=32, text_length=16, image_width=32, face_width=32,
    motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
CPU = torch.device("cpu")


def test_the_quickest_attention_that_is_allowed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = speed.attention_trials(CPU, torch.float32, 64, 32, True)
    assert list(found) == sorted(found, key=lambda trial: trial.seconds)
    failed = [trial for trial in found if trial.seconds == float("inf")]
    assert all(trial.why for trial in failed)
    assert "torch" in [trial.name for trial in found if trial not in failed]

    close = (speed.Trial("torch", 0.100), speed.Trial("cudnn", 0.103), speed.Trial("torch-flash", 0.2))
    assert speed.best_trial(close).name == speed.best_trial((close[0], close[1])).name == "cudnn"

    def trials(device: torch.device, dtype: torch.dtype, tokens: int, width: int, exact: bool) -> object:
        asked.append((tokens, exact))
        return speed.Trial("torch-flash", 0.1), speed.Trial("torch", 0.2)

    asked: list[tuple[int, bool]] = []
    monkeypatch.setattr(speed, "attention_trials", trials)
    model = fill(AnimateTransformer(PARAMS))
    cuda = torch.device("cuda", 0)
    assert speed.choose_attention(cuda, torch.bfloat16, 32, "fast", 64) == "torch-flash"
    assert asked == [(64, False)]
    speed.optimize_transformer(model, CPU, "fast", "torch-flash")
    assert installed(model) == ["attention (torch-flash)"]
    for block in model.blocks:
        assert block.self_attn.attend == backends()["torch-flash"].attend
        assert "attend" not in block.cross_attn.__dict__
    assert not any("before_attention" in block.__dict__ for block in model.blocks)  # no kernels on a processor


def test_attention_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken whatever a stopwatch says, and refused by name where it cannot be had."""
    known = {name: backends()["torch"] for name in ("torch", "cudnn")}
    known["float8"] = replace(known["torch"], name="float8", exact=False)
    found = (speed.Trial("torch", 0.1), speed.Trial("float8", 0.2), speed.Trial("cudnn", float("inf"), "no kernel"))
    monkeypatch.setattr(speed, "backends", lambda: known)
    monkeypatch.setattr(speed, "attention_trials", lambda *_: found)
    cuda = torch.device("cuda", 0)

    def choose(asked: Attention, kind: Speed = "fast", device: torch.device = cuda) -> str:
        return speed.choose_attention(device, torch.bfloat16, 128, kind, 64, asked)

    assert choose("float8") == "float8"
    assert choose("torch", "exact") == "torch"
    with pytest.raises(InputError, match=r"attention = cudnn: no kernel\. Use one of auto, torch, float8"):
        choose("cudnn")
    with pytest.raises(InputError, match=r"attention = sage: it is not installed"):
        choose("sage")
    with pytest.raises(InputError, match=r"attention = float8: it rounds to 8 bits, which speed exact does not allow"):
        choose("float8", "exact")
    with pytest.raises(InputError, match=r"attention = float8: it needs a CUDA GPU"):
        choose("float8", device=CPU)
    assert choose("auto", device=CPU) == "torch"


def test_what_a_speed_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller weights only where the device multiplies them; a cache only for turbo, and never over the user's own choice."""
    fast = RuntimeSettings(speed="fast")
    monkeypatch.setattr("wanimate.runtime.planning.sizes.has_bf16", lambda device: False)
    assert wanted_weights(fast, CPU) == "auto"
    monkeypatch.setattr("wanimate.runtime.planning.sizes.has_bf16", lambda device: True)
    assert wanted_weights(fast, CPU) == "bf16"
    monkeypatch.setattr("wanimate.runtime.planning.sizes.has_fp8", lambda device: True)
    assert wanted_weights(fast, CPU) == "fp8"
    assert wanted_weights(RuntimeSettings(), CPU) == "auto"
    assert wanted_weights(RuntimeSettings(speed="fast", weights_dtype="bf16"), CPU) == "bf16"

    def cache(given: GenerateSettings, speed: Speed) -> str | None:
        return ResolvedJob.of(given, "animation", *read_checkpoint_config(None), speed).generate.cache

    assert cache(GenerateSettings(), "turbo") not in (None, "none")
    assert cache(GenerateSettings(cache="none"), "turbo") == "none"
    assert cache(GenerateSettings(), "fast") is None
