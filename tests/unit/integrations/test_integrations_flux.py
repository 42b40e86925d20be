"""What the editor is told, and what redrawn pictures decide: the lengths of limbs, and nothing else."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden import read_json
from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Event, Notice
from wanimate.integrations.flux import FOLDER, WithEditedProportions, instructions, kontext, with_lengths
from wanimate.integrations.published import write_published_guides
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter
from wanimate.preprocess.detect.base import MeasuringBackend
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose import retarget, retarget_published
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Guides, Keypoints

CHOICES = read_json("preprocess/edit_prompt_choice.json")
WORDS = {
    "t_pose": "T-pose", "arms_down": "arms hanging down", "standing": "standing upright", "feet": "both feet",
    "hands": "both hands",
}  # fmt: skip
"""Published tags of an instruction -> our words for it."""
BODY = np.full((1, 20, 3), 0.5)
ELBOW_AND_KNEE = (3, 9)
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
    for joint, spot in enumerate(((120, 70), (117, 66), (123, 66), (112, 68), (128, 68))):
        points[joint, :2] = spot
    for first, wrist in ((91, 9), (112, 10)):
        points[first : first + 21, :2] = points[wrist, :2] + np.linspace(3, 9, 21)[:, None]
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


def tags(text: str) -> dict[str, bool]:
    found = {tag: words in text for tag, words in WORDS.items()}
    return found | {"face_forward_only": not any(found.values()) and "face to the camera" in text}


@pytest.mark.parametrize("case", CHOICES, ids=range(len(CHOICES)))
def test_instructions_are_chosen_as_published(case: dict[str, Any]) -> None:
    sizes = [(case[f"{who}_w"], case[f"{who}_h"]) for who in ("tpl", "ref")]
    performer, character = instructions(np.array(case["body2frames"]), *sizes)
    assert tags(performer) == dict(case["tpl"].items())
    assert tags(character) == dict(case["ref"].items())


def test_published_choices_are_of_every_kind() -> None:
    texts = {text for tall in ((9, 16), (16, 9)) for text in instructions(BODY, tall, tall)}
    for joint in ELBOW_AND_KNEE:
        body = BODY.copy()
        body[0, joint, 2] = 0.75
        texts |= {*instructions(body, (9, 16), (16, 9))}
    assert len(CHOICES) == 24
    assert len(texts) == 5


@pytest.mark.parametrize(
    ("point", "seen"),
    [
        ((0.5, 0.5, 0.75), True), ((1.0, 1.0, 0.9), True), ((-0.2, -3.0, 0.9), True), ((0.5, 0.5, 0.74), False),
        ((1.01, 0.5, 0.9), False), ((0.5, 1.01, 0.9), False), ((0.0, 0.5, 0.9), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("joint", ELBOW_AND_KNEE)
def test_one_joint_in_one_frame_decides(joint: int, point: tuple[float, float, float], seen: bool) -> None:
    body = np.zeros((3, 20, 3))
    body[1, joint] = point
    text, same = instructions(body, (9, 16), (9, 16))
    assert text == same
    assert tags(text)["hands"] == seen
    assert tags(text)["feet"] == (seen and joint == ELBOW_AND_KNEE[1])


class Detector:
    """Answers each `detect` with the next of `people`; the performer of a clip is the same in every frame."""

    name = "stub"

    def __init__(self, *people: PersonPose | None) -> None:
        self.people, self.seen = iter(people), []  # type: ignore[var-annotated]

    def detect(self, image: Frame) -> PersonPose | None:
        self.seen.append(image)
        return next(self.people)

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        for _ in frames:
            yield PersonPose(person(25, 35), True)

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        return []


class Editor:
    """Gives a picture of another shape, and keeps what it was given and told."""

    def __init__(self) -> None:
        self.given: list[Frame] = []
        self.told: list[str] = []

    def __call__(self, image: Frame, text: str) -> Frame:
        self.given.append(image)
        self.told.append(text)
        return np.full((30, 90, 3), 9, np.uint8)


def measure(people: WithEditedProportions, own: Keypoints, frames: int = 3) -> Any:
    clip = np.stack([np.full((240, 320, 3), i, np.uint8) for i in range(frames)])
    performer = np.stack([person(25, 35)] * frames)
    return people.measure(performer, (320, 240), lambda i: clip[i], np.full((300, 200, 3), 77, np.uint8), own)


def test_the_character_alone_is_redrawn_and_gives_lengths() -> None:
    own, edited, edit = person(20, 30), person(35, 50), Editor()
    inner = Detector(PersonPose(edited, True))
    people = WithEditedProportions(inner, edit)
    assert isinstance(people, MeasuringBackend)
    found = measure(people, own)
    assert length(found.character, 5, 7) == pytest.approx(35)
    assert found.edits is None
    assert [image.shape for image in inner.seen] == [(300, 200, 3)]
    assert [int(image[0, 0, 0]) for image in edit.given] == [77]
    assert [tags(text) for text in edit.told] == [tags(instructions(BODY + 0.4, (9, 16), (9, 16))[1])]
    assert found.facts == {"redrawn": {"character": edit.told[0]}}
    assert {name: picture.shape for name, picture in people.pictures.items()} == {"character": (300, 200, 3)}


def test_both_are_redrawn_as_published_and_give_ratios() -> None:
    own, others, edit = person(20, 30), (person(35, 50), person(15, 25)), Editor()
    inner = Detector(*(PersonPose(points, True) for points in others))
    people = WithEditedProportions(inner, edit, compat=True)
    found = measure(people, own)
    assert found.character is own
    np.testing.assert_array_equal(found.edits, others[::-1])  # performer, character
    assert [image.shape for image in inner.seen] == [(300, 200, 3), (240, 320, 3)]
    assert [int(image[0, 0, 0]) for image in edit.given] == [77, 1], "the clip's second frame is redrawn"
    wanted = instructions(BODY + 0.4, (320, 240), (200, 300))
    assert edit.told == [wanted[1], wanted[0]]
    assert ["T-pose" in text for text in edit.told] == [False, True]
    assert found.facts == {"redrawn": {"character": wanted[1], "performer": wanted[0]}}


def test_one_frame_has_no_second() -> None:
    with pytest.raises(InputError, match="second frame"):
        measure(WithEditedProportions(Detector(), Editor(), compat=True), person(20, 30), frames=1)
    found = measure(
        WithEditedProportions(Detector(PersonPose(person(35, 50), True)), Editor()), person(20, 30), frames=1
    )
    assert length(found.character, 5, 7) == pytest.approx(35)


@pytest.mark.parametrize(
    ("compat", "found", "who"), [(False, 0, "character"), (True, 0, "character"), (True, 1, "performer")]
)
def test_nobody_in_a_redrawn_picture_keeps_the_proportions_and_is_told(compat: bool, found: int, who: str) -> None:
    own, other = person(20, 30), PersonPose(person(35, 50), True)
    inner = Detector(*[other] * found, None)
    given = measure(WithEditedProportions(inner, Editor(), compat), own)
    assert given.character is own
    assert given.edits is None
    assert set(given.facts["redrawn"]) == {"character", who}
    assert f"redrawn picture of the {who}" in given.warnings[0]


def test_finding_people_is_the_detectors() -> None:
    own = PersonPose(person(20, 30), True)
    people = WithEditedProportions(Detector(own, None), Editor())
    assert people.detect(np.zeros((9, 9, 3), np.uint8)) is own
    assert people.detect(np.zeros((9, 9, 3), np.uint8)) is None
    assert sum(p.valid for p in people.track(np.zeros((4, 9, 9, 3), np.uint8))) == 4


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "walk.mkv"
    with LosslessWriter(path, Fraction(25), 320, 240) as writer:
        for i in range(3):
            writer.write(np.full((240, 320, 3), 40 * i, np.uint8))
    return path


def job(compat: bool) -> tuple[PreprocessSettings, Frame]:
    mode = "published" if compat else "auto"
    settings = PreprocessSettings(area=320 * 240, retarget=mode, compat=compat, smooth=False, face_size=64)
    return settings, np.full((240, 320, 3), 90, np.uint8)


def three_people(compat: bool) -> WithEditedProportions:
    """A detector that finds the character, then both in their redrawn pictures."""
    people = (PersonPose(person(*limbs), True) for limbs in ((20, 30), (35, 50), (15, 25)))
    return WithEditedProportions(Detector(*people), Editor(), compat)


@pytest.mark.parametrize("compat", [True, False])
def test_the_skeleton_gets_the_proportions_of_the_redrawn_pictures(
    clip_file: Path, tmp_path: Path, compat: bool
) -> None:
    people, clip = three_people(compat), probe(clip_file, limits=None)
    settings, image = job(compat)
    guides, _ = finished(preprocess("animation", clip, image, settings, tmp_path / "guides", 320 * 240, people))
    size, track, own, redrawn = (320, 240), np.stack([person(25, 35)] * 3), person(20, 30), person(35, 50)
    if compat:
        _, fit = retarget_published.retarget(track, size, own, size, (person(15, 25), redrawn))
        _, plain = retarget_published.retarget(track, size, own, size)
        assert fit.ratios[3] == pytest.approx(35 / 15 * fit.ratios[0], rel=0.01)
        expected, without = fit.ratios, plain.ratios
    else:
        valid = np.ones(3, dtype=bool)
        expected = retarget.auto(track, valid, size, with_lengths(own, redrawn), size)[1].ratios
        without = retarget.auto(track, valid, size, own, size)[1].ratios
    assert not np.allclose(expected, without)
    assert guides.manifest is not None
    np.testing.assert_allclose(guides.manifest["retarget"]["ratios"], expected)
    assert set(guides.manifest["retarget"]["redrawn"]) == {"character", *(["performer"] if compat else [])}
    assert guides.manifest["backend"] == "stub with FLUX Kontext"


def test_lost_redrawings_are_in_the_record(clip_file: Path, tmp_path: Path) -> None:
    people = WithEditedProportions(Detector(PersonPose(person(20, 30), True), None), Editor())
    settings, image = job(compat=False)
    clip = probe(clip_file, limits=None)
    guides, notices = finished(preprocess("animation", clip, image, settings, tmp_path / "guides", 320 * 240, people))
    assert guides.manifest is not None
    assert guides.manifest["warnings"] == [n.message for n in notices]
    assert any("redrawn picture of the character" in notice.message for notice in notices)


@pytest.mark.parametrize("compat", [True, False])
def test_redrawn_pictures_lie_beside_the_guides(clip_file: Path, tmp_path: Path, compat: bool) -> None:
    out, names = tmp_path / "out", {"refer_edit.png", "tpl_edit.png"}
    out.mkdir()
    (out / "tpl_edit.png").touch()  # of an older set
    people, clip = three_people(compat), probe(clip_file, limits=None)
    settings, image = job(compat)
    finished(write_published_guides("animation", clip, image, settings, out, people, (clip_file,), people.pictures))
    assert names & {path.name for path in out.iterdir()} == (names if compat else {"refer_edit.png"})
    np.testing.assert_array_equal(load_image(out / "refer_edit.png"), people.pictures["character"])
    with pytest.raises(OutputError, match=r"refer_edit\.png: this is an input"):
        next(
            write_published_guides(
                "animation", clip, image, settings, out, people, (out / "refer_edit.png",), people.pictures
            )
        )


def finished(events: Iterator[Event]) -> tuple[Guides, list[Notice]]:
    notices = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value, notices
        if isinstance(event, Notice):
            notices.append(event)


@pytest.mark.slow
def test_a_kontext_folder_is_opened_and_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny pipeline of diffusers' own classes; it makes about a megapixel, as Kontext does."""
    tiny_kontext(tmp_path / FOLDER)
    monkeypatch.setattr("wanimate.integrations.flux.STEPS", 1)
    edit, picture = kontext(tmp_path), np.zeros((64, 48, 3), np.uint8)
    text, _ = instructions(BODY, (48, 64), (48, 64))
    made = edit(picture, text)
    assert made.dtype == np.uint8
    assert made.shape[2] == 3
    assert made.shape[0] / made.shape[1] == pytest.approx(64 / 48, abs=0.03)
    np.testing.assert_array_equal(made, edit(picture, text))


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
