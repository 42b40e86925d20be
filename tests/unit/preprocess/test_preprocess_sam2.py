"""The SAM 2 backend with a tiny network of random weights: what it is fed, what comes out, and what is kept meanwhile."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from test_preprocess_drive import COUNT, FakePeople, _figure
from test_preprocess_replacement import AREA, _run
from test_preprocess_replacement import clip as clip
from tiny_sam2 import SIDE, sam2_checkpoint
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.preprocess.layout import plan_layout
from wanimate.preprocess.masks import sam2
from wanimate.preprocess.masks.registry import open_masks
from wanimate.preprocess.masks.sam2 import Prepared, Sam2Masks
from wanimate.preprocess.masks.sam_prompts import clicks, key_frames

WIDTH, HEIGHT = 96, 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sam2_checkpoint(tmp_path_factory.mktemp("sam") / "tiny")


@pytest.fixture(scope="module")
def masks(folder):
    return Sam2Masks(folder, device="cpu")


def _frames(count, seed=0):
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 255, (count, 5, 6, 3), dtype=np.uint8)
    return [np.ascontiguousarray(b.repeat(16, 0).repeat(16, 1)) for b in blocks]


def _people(count):
    return np.stack([_figure(30.0 + 3 * i, 20.0, 50.0) for i in range(count)])


def _reference(masks, frames, people, keys):
    """transformers' own way, with every frame prepared beforehand and everything kept."""
    video = torch.stack([Prepared(frames, SIDE)[i] for i in range(len(frames))])
    session = Sam2VideoInferenceSession(video=video, video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32)
    person = session.obj_id_to_idx(1)
    with torch.inference_mode():
        for i in keys:
            points = torch.tensor(clicks(people[i], WIDTH, HEIGHT)) * torch.tensor([SIDE / WIDTH, SIDE / HEIGHT])
            labels = torch.ones(1, 1, len(points), dtype=torch.int32)
            session.add_point_inputs(person, i, {"point_coords": points[None, None], "point_labels": labels})
            session.obj_with_new_inputs = [1]
            masks._model(session, frame_idx=i)
        return [o.pred_masks[0, 0] for o in masks._model.propagate_in_video_iterator(session, start_frame_idx=0)]


def test_masks_are_those_of_transformers_own_session(masks):
    frames, people = _frames(13), _people(13)
    got = list(masks.follow(iter(frames), people, np.ones(13, dtype=bool)))
    assert all(a is b for (a, _), b in zip(got, frames, strict=True))
    want = _reference(masks, frames, people, key_frames(13))
    shares = []
    for (_, mask), logits in zip(got, want, strict=True):
        assert (mask.shape, mask.dtype) == ((HEIGHT, WIDTH), np.uint8)
        large = F.interpolate(logits[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0].numpy() > 0
        assert (large & (mask == 0)).sum() == 0  # filled holes are all that was added
        assert (large != (mask > 0)).mean() < 0.02
        shares.append(mask.mean())
    assert 0.02 < np.mean(shares) < 0.98
    assert np.std(shares) > 0  # the masks depend on the frames


def test_the_input_is_the_published_one(masks):
    (frame,) = _frames(1)
    small = np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255.0
    want = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(Prepared([frame], SIDE)[0].permute(1, 2, 0).numpy(), want, atol=1e-5)


def test_memory_does_not_grow_with_the_clip(masks, monkeypatch):
    """Chunks are as long as the bytes allow, and a session keeps no more frames than the network looks back."""
    monkeypatch.setattr(sam2, "_CHUNK_BYTES", 20 * WIDTH * HEIGHT * 3)
    monkeypatch.setattr(sam2, "_LEAST_CHUNK", 4)
    taken, kept, prepared, alive, sessions = [], [], [], [], []
    real_session, real_propagate, real_prepare = masks._session, masks._propagate, Prepared.__getitem__
    monkeypatch.setattr(masks, "_session", lambda frames: sessions.append(len(frames)) or real_session(frames))

    def propagate(session, frame):
        logits = real_propagate(session, frame)
        outputs = session.output_dict_per_obj[0]
        kept.append(len(outputs["non_cond_frame_outputs"]))
        assert all("high_res_masks" not in out for kind in outputs.values() for out in kind.values())
        alive.append(sum(made() is not None for made in prepared))
        return logits

    def prepare(self, index):
        picture = real_prepare(self, index)
        prepared.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(masks, "_propagate", propagate)
    monkeypatch.setattr(Prepared, "__getitem__", prepare)

    def frames():
        for i, frame in enumerate(_frames(45)):
            taken.append(i)
            yield frame

    ahead = [
        len(taken) - i for i, _ in enumerate(masks.follow(frames(), _people(45) % (96, 80, 2), np.ones(45, dtype=bool)))
    ]
    assert sessions == [20, 20, 5]
    assert max(ahead) == 20
    assert max(kept) <= 4
    assert len(prepared) >= 45
    assert max(alive) <= 1


def test_compat_keeps_the_published_chunks(masks, monkeypatch):
    seen = []
    monkeypatch.setattr(
        masks, "_chunk", lambda frames, *_: seen.append(len(frames)) or iter([frames[0][..., 0]] * len(frames))
    )
    monkeypatch.setattr(masks, "_compat", True)
    monkeypatch.setattr(sam2, "_CHUNK_BYTES", 1)
    frames = [np.zeros((2, 2, 3), np.uint8)] * 450
    assert len(list(masks.follow(iter(frames), np.zeros((450, 133, 3)), np.ones(450, dtype=bool)))) == 450
    assert seen == [400, 50]


def test_a_chunk_ends_at_a_cut_but_not_with_compat(masks, monkeypatch):
    seen = []
    monkeypatch.setattr(
        masks, "_chunk", lambda frames, *_: seen.append(len(frames)) or iter([frames[0][..., 0]] * len(frames))
    )
    for compat in (False, True):
        monkeypatch.setattr(masks, "_compat", compat)
        list(masks.follow(iter(_frames(13)), _people(13), np.ones(13, dtype=bool), cuts=[5, 9]))
    assert seen == [5, 4, 4, 13]


def test_clicks_are_in_frames_that_show_the_person(masks):
    people, valid = _people(16), np.ones(16, dtype=bool)
    assert list(masks._prompts(people, valid, WIDTH, HEIGHT)) == [0, 4, 8, 12]
    assert masks._prompts(people, valid, WIDTH, HEIGHT)[4] == clicks(people[4], WIDTH, HEIGHT)
    valid[:3] = valid[8] = False
    assert list(masks._prompts(people, valid, WIDTH, HEIGHT)) == [3, 4, 7, 12]
    assert masks._prompts(people, np.zeros(16, dtype=bool), WIDTH, HEIGHT) == {}


def test_frames_without_the_person_have_no_mask(masks):
    valid = np.array([False, True, True, False, True, True])
    found = [mask.any() for _, mask in masks.follow(iter(_frames(6)), _people(6), valid)]
    assert not found[0]
    assert not found[3]
    assert any(found)
    nobody = [mask for _, mask in masks.follow(iter(_frames(3)), _people(3), np.zeros(3, dtype=bool))]
    assert len(nobody) == 3
    assert not np.any(nobody)


def test_small_holes_are_filled_and_large_ones_stay():
    logits = torch.ones(32, 32)
    logits[4:6, 4:6] = -1
    logits[16:24, 16:24] = -1
    mask = sam2._mask(logits, 32, 32)
    assert mask[4:6, 4:6].all()
    assert not mask[18:22, 18:22].any()


def test_a_checkpoint_makes_guides(folder, clip, tmp_path):
    settings = {"sam2": folder}
    asked = PreprocessSettings(**settings)
    layout = plan_layout("replacement", clip, (300, 400), asked, AREA)
    made, why = open_masks(asked, clip, layout.indices, layout.fitted)
    assert why == "a SAM 2 checkpoint was given"
    guides, _ = _run(clip, tmp_path / "g", FakePeople(gone=(5,)), made, **settings)
    assert guides.manifest["mask"]["backend"] == "sam2"
    share = [guides.mask.take([i]).mean() / 255 for i in range(COUNT)]
    assert share[5] == 0
    assert max(share) > 0


def test_folders_that_are_refused(folder, tmp_path: Path):
    def refused(place, rule):
        with pytest.raises(InputError, match=rule) as caught:
            Sam2Masks(place, device="cpu")
        assert caught.value.field == "preprocess.sam2"
        assert caught.value.exit_code == 2

    def copied(name):
        place = tmp_path / name
        place.mkdir()
        for file in folder.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        return place

    refused(tmp_path / "nowhere", "there is no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"config\.json is not in it")
    (tmp_path / "empty" / "config.json").write_text("{")
    refused(tmp_path / "empty", "cannot be loaded")
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    refused(tmp_path / "empty", "holds a clip model, not sam2_video")
    place = copied("weightless")
    (place / "model.safetensors").unlink()
    refused(place, "cannot be loaded")
    tensors = load_file(folder / "model.safetensors")
    for name, change in {
        "missing": {"no_memory_embedding": None}, "misshapen": {"no_memory_embedding": torch.zeros(1, 1, 7)},
        "nan": {"no_memory_embedding": torch.full((1, 1, 128), torch.nan)},
    }.items():  # fmt: skip
        changed = {k: v for k, v in (tensors | change).items() if v is not None}
        save_file(changed, copied(name) / "model.safetensors", {"format": "pt"})
        refused(
            tmp_path / name, "no_memory_embedding is not finite" if name == "nan" else "1 tensors are missing or of"
        )
