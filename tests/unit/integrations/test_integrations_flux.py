"""The edited picture gives the lengths of limbs, and nothing else."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.integrations.flux import FOLDER, WithEditedProportions, instruction, kontext, with_lengths
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints

SHOULDERS, ELBOW, WRIST, HIP, KNEE, ANKLE = ([5, 6], 7, 9, 11, 13, 15)


def person(arm: float, leg: float, scale: float = 1.0, angle: float = 0.0) -> Keypoints:
    """A standing figure: shoulders 40 wide, left arm and leg of two equal limbs, at an angle from straight down."""
    points = np.zeros((133, 3))
    points[:, 2] = 0.9
    for side in (0, 1):
        points[5 + side, :2] = 100 + 40 * side, 100
        points[11 + side, :2] = 105 + 30 * side, 180
        for root, length in ((5, arm), (11, leg)):
            for step in (1, 2):
                drop = np.array([np.sin(angle), np.cos(angle)]) * length * step
                points[root + side + 2 * step, :2] = points[root + side, :2] + drop
    points[91:112, :2] = points[9, :2] + 3
    points[:, :2] *= scale
    return points


def length(points: Keypoints, a: int, b: int) -> float:
    return float(np.hypot(*(points[a, :2] - points[b, :2])))


def test_lengths_come_from_the_edit_and_place_and_pose_stay() -> None:
    own, edited = person(20, 30, angle=0.5), person(35, 50, scale=0.5)
    out = with_lengths(own, edited)
    assert length(out, 5, 7) == pytest.approx(35)
    assert length(out, 13, 15) == pytest.approx(50)
    np.testing.assert_array_equal(out[[5, 6, 11, 12]], own[[5, 6, 11, 12]])
    direction = (out[7] - out[5])[:2] / length(out, 5, 7)
    np.testing.assert_allclose(direction, [np.sin(0.5), np.cos(0.5)])
    np.testing.assert_allclose(out[91, :2] - out[9, :2], own[91, :2] - own[9, :2])


def test_hidden_legs_appear() -> None:
    own, edited = person(20, 30), person(20, 50, angle=0.3)
    own[[13, 14, 15, 16], 2] = 0.1
    out = with_lengths(own, edited)
    assert (out[[13, 15], 2] == 0.9).all()
    np.testing.assert_allclose(out[13, :2] - out[11, :2], 50 * np.array([np.sin(0.3), np.cos(0.3)]))


def test_limbs_that_the_edit_does_not_show_stay() -> None:
    own, edited = person(20, 30), person(50, 50)
    edited[[7, 13], 2] = 0.2
    out = with_lengths(own, edited)
    assert length(out, 5, 7) == pytest.approx(20)
    assert length(out, 11, 13) == pytest.approx(30)


class Detector:
    """Answers each call with the next of `people`."""

    name = "stub"

    def __init__(self, *people: PersonPose | None) -> None:
        self.people, self.seen = iter(people), []  # type: ignore[var-annotated]

    def detect(self, image: Frame) -> PersonPose | None:
        self.seen.append(image)
        return next(self.people)

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        for _ in frames:
            yield PersonPose(person(1, 1), True)


def test_the_detector_sees_both_pictures_at_one_size() -> None:
    own, edited = PersonPose(person(20, 30), True), PersonPose(person(35, 50), True)
    inner, told = Detector(own, edited), []

    def edit(image: Frame, text: str) -> Frame:
        told.append(text)
        return np.full((30, 90, 3), 9, np.uint8)

    found = WithEditedProportions(inner, edit).detect(np.zeros((60, 40, 3), np.uint8))
    assert found is not None
    assert length(found.keypoints, 5, 7) == pytest.approx(35)
    assert [image.shape for image in inner.seen] == [(60, 40, 3)] * 2
    assert told == [instruction(40, 60)]
    assert "hanging down" in told[0]
    assert "T-pose" in instruction(60, 40)


def test_nobody_in_the_edit_keeps_the_person() -> None:
    own = PersonPose(person(20, 30), True)
    found = WithEditedProportions(Detector(own, None), lambda image, text: image).detect(np.zeros((9, 9, 3), np.uint8))
    assert found is own
    assert WithEditedProportions(Detector(None), lambda i, t: i).detect(np.zeros((9, 9, 3), np.uint8)) is None


@pytest.mark.slow
def test_a_kontext_folder_is_opened_and_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny pipeline of diffusers' own classes; it makes about a megapixel, as Kontext does."""
    tiny_kontext(tmp_path / FOLDER)
    monkeypatch.setattr("wanimate.integrations.flux.STEPS", 1)
    edit, picture = kontext(tmp_path), np.zeros((64, 48, 3), np.uint8)
    made = edit(picture, instruction(48, 64))
    assert made.dtype == np.uint8
    assert made.shape[2] == 3
    assert made.shape[0] / made.shape[1] == pytest.approx(64 / 48, abs=0.03)
    np.testing.assert_array_equal(made, edit(picture, instruction(48, 64)))


def tiny_kontext(folder: Path) -> None:
    import diffusers
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    def words() -> Any:
        known = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
        known.pre_tokenizer = Whitespace()
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        return transformers.PreTrainedTokenizerFast(tokenizer_object=known, model_max_length=77, **names)

    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=1, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06,
        scaling_factor=0.15,
    )  # fmt: skip
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 37}
    clip = transformers.CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
        vocab_size=9,
        projection_dim=32,
        max_position_embeddings=77,
        **sizes,
    )
    t5 = transformers.T5Config(d_model=32, d_kv=8, d_ff=37, num_heads=4, num_layers=1, vocab_size=9)
    diffusers.FluxKontextPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(), vae, transformers.CLIPTextModel(clip), words(),
        transformers.T5EncoderModel(t5), words(), network,
    ).save_pretrained(folder)  # fmt: skip


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=FOLDER):
        kontext(tmp_path)
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(InputError, match="cannot open it"):
        kontext(tmp_path)
    real = builtins.__import__

    def without_diffusers(name: str, *more: Any, **most: Any) -> Any:
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *more, **most)

    monkeypatch.setattr(builtins, "__import__", without_diffusers)
    with pytest.raises(InputError, match=r"wanimate\[diffusers\]"):
        kontext(tmp_path)
