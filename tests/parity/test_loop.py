"""The segment loop of both modes against the published one, with formulas in place of networks; lengths and masks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import detgen
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden import Golden, check, read_json
from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.latents import assemble, known_mask, pack_mask
from wanimate.conditions.read import GuidesReader
from wanimate.conditions.reference import letterboxed
from wanimate.conditions.segments import plan_segments, reflected
from wanimate.config import Defaults
from wanimate.engines.segment import SegmentMaker
from wanimate.errors import InputError
from wanimate.jobs.segments import FramesDone, run_segments
from wanimate.media.video import ArrayFrames
from wanimate.sampling.guidance import SegmentNetwork, guided
from wanimate.types import Conditions, Frames, Guides


class FormulaCodec:
    """The stand-in for the VAE that the golden data was made with."""

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        return [self.encode(video) for video in videos]

    def encode(self, video: Tensor) -> Tensor:
        pooled = F.avg_pool2d(video[0].transpose(0, 1), 8)
        groups = [pooled[:1], *(pooled[i : i + 4].mean(0, keepdim=True) for i in range(1, len(pooled), 4))]
        g = torch.cat(groups).transpose(0, 1)
        c = torch.arange(16.0)
        return ((0.5 + c / 16).view(-1, 1, 1, 1) * g[c.long() % 3] + 0.01 * c.view(-1, 1, 1, 1))[None]

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        z = latents[0, [1, 6, 11]]
        for f in range(4 * (z.shape[1] - 1) + 1):
            frame = F.interpolate(z[:, (f + 3) // 4][None], scale_factor=8.0, mode="nearest")
            yield frame[:, :, None] + 0.02 * (f % 5 - 2)


@dataclass(frozen=True)
class FormulaContext:
    """What one branch of a segment was prepared from."""

    text: Tensor
    face: Tensor
    pose: Tensor


@dataclass
class FormulaTransformer:
    """The stand-in for the transformer; keeps what it was given."""

    prepared: list[FormulaContext] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def prepare(self, text: Tensor, image: None, face: Tensor, pose_latents: Tensor) -> FormulaContext:
        self.prepared.append(FormulaContext(text[0], face[0], pose_latents[0]))
        return self.prepared[-1]

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, context: FormulaContext, hook: None = None) -> Tensor:
        self.times.append(int(t))
        m = context.face.mean((0, 2, 3))
        f = torch.stack([m[0], m[0], *(m[i : i + 4].mean() for i in range(1, len(m), 4))])
        pose = F.pad(context.pose, (0, 0, 0, 0, 1, 0))
        known = 0.2 * y[0, :4].mean(0) - 0.5 * y[0, 4:]
        return (0.6 * x[0] + known + 0.3 * pose + 0.1 * f.view(-1, 1, 1) + 0.02 * context.text.mean())[None]


@dataclass
class FirstKept:
    """A segment's network that keeps the latents of its first step, which are the noise."""

    kept: list[Tensor]
    network: SegmentNetwork
    called: bool = False

    @property
    def skipped(self) -> int:
        return self.network.skipped

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if not self.called:
            self.kept.append(x.clone())
        self.called = True
        return self.network(x, t)


def pixels(name: str, n: int, height: int, width: int) -> Frames:
    video = detgen.smooth_video(name, n, height, width)
    return np.ascontiguousarray(((video + 1) * 127.5).floor().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def person_mask(name: str, n: int, height: int, width: int) -> Frames:
    s = detgen.smooth_video(name, n, height, width)[:, 0]
    levels = torch.where(s > 0.2, 255, torch.where(s > 0, 128, 0)).to(torch.uint8)
    return levels[..., None].expand(-1, -1, -1, 3).contiguous().numpy()


def golden_guides(name: str, case: dict[str, Any], face: int = 16) -> Guides:
    n, h, w = case["n"], case["H"], case["W"]
    replace = case["replace"]
    return Guides(
        mode="replacement" if replace else "animation",
        fps=Fraction(30),
        pose=ArrayFrames(pixels(f"input/{name}/pose", n, h, w)),
        face=ArrayFrames(pixels(f"input/{name}/face", case.get("n_face", n), face, face)),
        reference=pixels(f"input/{name}/ref", 1, h, w)[0],
        background=ArrayFrames(pixels(f"input/{name}/bg", case.get("n_bg", n), h, w)) if replace else None,
        mask=ArrayFrames(person_mask(f"input/{name}/mask", case.get("n_mask", n), h, w)) if replace else None,
    )


@pytest.mark.parametrize("name", ["animate_ref1", "animate_ref5", "replace_ref1_cfg3", "replace_ref5"])
def test_whole_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readers, read = [], GuidesReader._read
    monkeypatch.setattr(
        GuidesReader, "_read", lambda *given: readers.append(threading.current_thread().name) or read(*given)
    )
    golden = Golden("loop")
    case = golden.meta["cases"][name]
    guides = golden_guides(name, case)
    settings = Defaults(steps=case["steps"], solver=case["solver"], clip_length=case["clip"], overlap=case["ref"])
    segments = plan_segments(guides.count, case["clip"], case["ref"], compat=True)
    codec, transformer = FormulaCodec(), FormulaTransformer()
    text = torch.ones(1, 4)
    builder = ConditionBuilder(guides, codec, None, text, -text)
    seen: list[Conditions] = []
    noise: list[Tensor] = []

    def network(conditions: Conditions) -> FirstKept:
        seen.append(conditions)
        return FirstKept(noise, guided(transformer, conditions, case["cfg"]))  # type: ignore[arg-type]

    events = run_segments(SegmentMaker(builder, network, codec, settings), segments, guides.count, case["seed"])
    frames = torch.cat([e.frames for e in events if isinstance(e, FramesDone)]).permute(1, 0, 2, 3) * 2 - 1
    branches = 1 if case["cfg"] == 1 else 2
    assert len(transformer.prepared) == branches * len(segments)
    for k in range(len(segments)):
        place = f"{name}.seg{k}"
        check(f"segment {k} y", seen[k].y, golden[f"{place}.y"], 1e-5, 1e-5)
        check(f"segment {k} noise", noise[k], golden[f"{place}.noise"], 0, 0)
        used = transformer.prepared[branches * k]
        check(f"segment {k} pose", used.pose, golden[f"{place}.pose_latents"], 1e-5, 1e-5)
        check(f"segment {k} face", used.face.mean((0, 2, 3)), golden[f"{place}.face_frame_mean"], 1e-5, 1e-5)
        if branches == 2:
            blank = transformer.prepared[branches * k + 1].face
            expected = golden[f"{place}.uncond_face_minmax"]
            check(f"segment {k} blank face", torch.stack((blank.min(), blank.max())), expected, 1e-5, 1e-5)
    assert f"{name}.seg{len(segments)}.y" not in golden.names()
    timesteps = golden[f"{name}.timesteps"].tolist()
    assert transformer.times == [t for _ in segments for t in timesteps for _ in range(branches)]
    check("frames", frames[:, :, ::8, ::8], golden[f"{name}.out_every_8th_pixel"], 1e-5, 1e-5)
    ahead = sum(thread.startswith("guides") for thread in readers)
    assert (ahead, len(readers)) == (len(segments) - 1, len(segments)), "all segments but the first are read ahead"


def test_published_lengths() -> None:
    table = read_json("model/lengths.json")
    assert table["valid_len_columns"] == ["real_len", "clip_len", "overlap", "target_len", "segments"]
    assert table["padding_columns"] == ["source_len", "target_len", "source_index_of_each_output_frame"]
    for n, clip, overlap, padded, count in table["valid_len"]:
        segments = plan_segments(n, clip, overlap, compat=True)
        # The published code plans no segment, and fails, where the clip is no longer than the overlap.
        assert len(segments) == max(count, 1), (n, clip, overlap)
        assert segments[-1].stop == padded or not count, (n, clip, overlap)
    for n, target, indices in table["padding"]:
        assert reflected(0, target, n) == indices, (n, target)


@pytest.mark.parametrize(("clip", "overlap"), [(77, 1), (77, 5), (33, 5), (9, 1)])
def test_every_length_is_covered_once(clip: int, overlap: int) -> None:
    for count in range(1, 401):
        segments = plan_segments(count, clip, overlap)
        covered = [i for s in segments for i in range(s.start + s.overlap, min(s.stop, count))]
        assert covered == list(range(count)), count
        assert all(s.length <= clip for s in segments), count
        assert segments[-1].stop - count < 4, "no more than three frames are thrown away"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 76, 1), r"clip_length = 76.*Use 73 or 77"),
        ((0, 77, 1), "frames = 0"),
        ((10, 77, 3), "overlap = 3"),
        ((10, 5, 5), "clip_length = 5.*longer than the overlap"),
    ],
)
def test_impossible_plans_are_named(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_segments(*arguments)


def test_masks_and_letterbox() -> None:
    golden = Golden("basics")
    person = 1 - (detgen.rand("input/mask/m", (1, 13, 6, 8))[0] > 0.5).float()
    full = person.repeat_interleave(8, 1).repeat_interleave(8, 2)
    for known in (0, 1, 5):
        check("no person", pack_mask(known_mask(13, known, (6, 8))), golden[f"mask_none_len{known}"], 0, 0)
        check("person", pack_mask(known_mask(13, known, (6, 8), full)), golden[f"mask_pix_len{known}"], 0, 0)
    sampled = 1 - known_mask(5, 0, (6, 8), detgen.rand("input/mask/full", (5, 1, 48, 64))[:, 0])
    check("sampling", sampled, golden["mask_down8"][:, 0], 0, 0)
    reference = assemble(torch.zeros(4, 1, 6, 8), torch.zeros(16, 1, 6, 8), torch.zeros(16, 1, 6, 8))[:4, :1]
    check("reference", reference, golden["mask_ref"], 0, 0)
    image = (255 * detgen.rand("input/pad/img", (30, 50, 3))).floor().to(torch.uint8).numpy()
    for h, w in ((32, 96), (64, 48)):
        ours = (letterboxed(image, (w, h))[:, 0].permute(1, 2, 0) + 1) * 127.5
        assert (ours - golden[f"letterbox_{h}x{w}"].float()).abs().max() < 1e-3
