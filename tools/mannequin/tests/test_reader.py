"""The reader of faces in latents, what its loss asks of a prediction, and the commands that use both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mannequin import __main__ as commands
from mannequin.training import motion, reader, transformer
from mannequin.training.clip_latents import WorldClips, in_fours
from mannequin.training.feed import Feed
from mannequin.training.reader import FaceReader, Faces, Reading, cut, face_places, reader_r2, train_reader
from wanimate.errors import InputError
from wanimate.model.motion import MotionEncoder
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.train.common import save_state
from wanimate.train.flow import LossSettings, flow_loss
from wanimate.weights.locate import embedded_path

CPU = torch.device("cpu")
TINY = TransformerParams(
    dim=64, ffn_dim=64, num_heads=2, num_layers=5, time_width=32, text_width=8, text_length=2, image_width=None,
    face_width=16, face_slots=2, motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
JAW, EYES = motion.TOLD.index("jaw"), motion.TOLD.index("eyes")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "WIDTHS", (16, 16))
    monkeypatch.setattr(transformer, "TRANSFORMER", TINY)


def faces(count: int, seed: int = 0, held_out: bool = False, frames: int = 5, side: int = 10) -> Faces:
    """Faces of four to six latent pixels, somewhere; the jaw's and the eyes' four openings are their channels' heights."""
    generator = torch.Generator().manual_seed(seed + 1000 * held_out)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    does = rand(count, frames, len(motion.TOLD))
    low = 1 + 2 * rand(count, 1, 2)
    box = torch.cat((low, low + 4 + 2 * rand(count, 1, 2)), dim=-1).expand(-1, frames, -1).contiguous()
    latents = torch.randn(count, 16, (frames + 3) // 4, side, side, generator=generator)
    pixels = torch.arange(side) + 0.5
    x, y = ((pixels > box[:, :1, i : i + 1]) & (pixels < box[:, :1, i + 2 : i + 3]) for i in (0, 1))
    inside = (y.unsqueeze(-1) & x.unsqueeze(-2)).unsqueeze(1).float()  # [M, 1, 1, h, w]
    for first, name in ((0, JAW), (4, EYES)):
        four = in_fours(does)[..., name].transpose(1, 2)
        latents[:, first : first + 4] = inside * four[..., None, None]
    return Faces(latents, does, box)


def clips(count: int, frames: int = 5, seed: int = 0) -> WorldClips:
    """The same, with conditions that tell nothing."""
    seen = faces(count, seed, frames=frames)
    target = seen.latents
    person = torch.rand_like(target[:, 0])
    pictures = torch.randint(0, 256, (count, frames, 8, 8, 3), dtype=torch.uint8)
    pose, reference = torch.randn_like(target), torch.randn_like(target[:, :, :1])
    return WorldClips(
        target, pose, torch.zeros_like(pose), reference, torch.zeros_like(pose[:, :4]), person, pictures, seen.box
    )


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_what_latents_tell(tmp_path: Path) -> None:
    config = reader.ReaderTraining(steps=300, seconds=1e9, batch=32, clips=50, first=4, renew=60, rate=4e-3, noise=0.3)
    trained = train_reader(config, faces, tmp_path, CPU)
    fresh = [faces(60, seed=2001)]
    seen, r2 = reader_r2(trained, fresh, 0, 100)
    assert seen == 60 * 2
    assert r2["jaw"] > 0.6
    assert r2["eyes"] > 0.6
    assert r2["smile"] < 0.2, "nothing shows it"
    measured = [line for line in lines(tmp_path) if line.get("what") == "R2"]
    assert measured[0]["jaw"] > 0.6
    assert sum(line["faces"] for line in measured[1:]) == measured[0]["faces"] == 6 * 50 * 2
    again = reader.load_reader(tmp_path, CPU)
    place, _ = face_places(fresh[0].box)
    assert torch.equal(again(fresh[0].latents, place), trained(fresh[0].latents, place))


def test_a_cut_is_what_lies_in_the_box() -> None:
    x = torch.arange(20) + 0.5
    ramps = torch.stack((x.expand(16, -1), x[:16, None].expand(-1, 20)))[None, :, None]
    place = torch.tensor([[[3.0, 2.0, 9.0, 14.0]]])
    found = cut(ramps, place)[0, 0]
    points = (torch.arange(reader.SIDE) + 0.5) / reader.SIDE
    torch.testing.assert_close(found[0], (3 + 6 * points).expand(reader.SIDE, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], (2 + 12 * points)[:, None].expand(-1, reader.SIDE), atol=1e-4, rtol=0)
    assert not cut(ramps, place + 30).any(), "nothing lies outside"
    spike = torch.zeros(1, 1, 1, 48, 48)
    spike[..., 17, 30] = 1
    assert cut(spike, torch.tensor([[[0.0, 0.0, 48.0, 48.0]]])).sum() == pytest.approx(1 / 16), (
        "no pixel is stepped over"
    )


def test_a_face_that_is_hidden_in_one_frame_of_four_has_no_size() -> None:
    box = torch.tensor([2.0, 3.0, 6.0, 8.0]).expand(1, 9, 4).clone()
    box[0, 6] = 0
    place, size = face_places(box)
    assert size.tolist() == [[4.5, 4.5, 0.0]]
    reach = 5 * reader.ROOM / 2
    assert place[0, 0].tolist() == [4 - reach, 5.5 - reach, 4 + reach, 5.5 + reach]


def test_it_asks_only_at_told_faces_and_only_below_the_bound() -> None:
    torch.manual_seed(0)
    given = clips(4, frames=9)
    given.face_box[1] *= 0.5  # small
    given.face_box[2, 5] = 0  # the last latent frame hides it
    off = torch.randn(4, 16, 4, 10, 10, requires_grad=True)
    sigma = torch.tensor([0.3, 0.3, 0.3, 0.7])
    reading = Reading(FaceReader().requires_grad_(False), 1.0, 0.6, 3.0)
    reading.error(off, sigma, given).backward()
    assert off.grad is not None
    asked = off.grad.abs().sum(1) > 0  # [M, T+1, h, w]
    assert asked.flatten(2).any(-1).tolist() == [
        [False, True, True, True], [False] * 4, [False, True, True, False], [False] * 4,
    ]  # fmt: skip
    place, _ = face_places(given.face_box)
    x0, y0, x1, y1 = place[0, 0].tolist()
    pixels = torch.arange(10) + 0.5
    near = ((pixels > y0 - 1) & (pixels < y1 + 1))[:, None] & ((pixels > x0 - 1) & (pixels < x1 + 1))
    assert not (asked[0, 1] & ~near).any()
    assert not near.all()


def test_true_latents_have_no_error_and_it_grows_with_what_is_read() -> None:
    torch.manual_seed(0)
    given, sigma = clips(3), torch.full((3,), 0.5)
    reading = Reading(FaceReader(), 1.0, 0.9, 3.0)
    off = torch.randn(3, 16, 3, 10, 10)
    errors = [reading.error(share * off, sigma, given).item() for share in (0.0, 0.1, 0.5)]
    assert errors[0] == 0 < errors[1] < errors[2]
    later = [reading.error(off, torch.full((3,), s), given).item() for s in (0.9, 0.95, 1.0)]
    assert later == [0, 0, 0]


def test_without_a_reader_and_at_weight_0_the_loss_is_the_flows() -> None:
    torch.manual_seed(0)
    model, given, settings = transformer.Mannequin(), clips(4), LossSettings()
    torch.nn.init.normal_(model.transformer.head.head.weight)

    def found(reading: Reading | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        loss, flow, *_ = transformer.losses(model.flow, given, settings, reading)
        assert torch.equal(loss, flow) == (reading is None or reading.weight == 0)
        loss.backward()
        gradient = model.transformer.head.head.weight.grad
        assert gradient is not None
        return flow, gradient.clone()

    torch.manual_seed(1)
    plain = flow_loss(model.flow, given, settings)
    eye = FaceReader().requires_grad_(False)
    loss, gradient = found(None)
    assert torch.equal(loss, plain)
    for one, other in zip(found(Reading(eye, 0.0, 0.9, 3.0)), (loss, gradient), strict=True):
        assert torch.equal(one, other)
    weighed = found(Reading(eye, 1.0, 0.9, 3.0))
    assert torch.equal(weighed[0], loss)
    assert not torch.equal(weighed[1], gradient)


def filled(folder: Path, frames: tuple[int, int], seed: int) -> Path:
    """A feed with one part of every kind."""
    feed = Feed(folder)
    for kind in range(6):
        feed.put(kind, clips(3, frames[kind // 3], seed=seed + kind))
    return folder


def test_the_commands_train_a_reader_and_then_a_transformer_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANIMATE_MANNEQUINS", str(Path(__file__).parent / "data" / "mannequins.npz"))
    monkeypatch.setattr(reader, "PICTURE", 64)
    vae = ["--vae", str(embedded_path()), "--device", "cpu", "--steps", "2"]
    commands.main(["reader", *vae, "--out", str(tmp_path / "reader"), "--batch", "8", "--clips", "2", "--first", "2"])
    encoder = MotionEncoder(TINY.motion)
    save_state(tmp_path / "motion" / motion.FILE, **encoder.state_dict())
    known = ["--motion", str(tmp_path / "motion"), "--reader", str(tmp_path / "reader")]
    for seed, name in ((0, "feed"), (10, "fresh")):
        known += [f"--{name}", str(filled(tmp_path / name, (9, 5), seed))]
    sizes = ["--batch", "3", "--short-batch", "4", "--frames", "9"]
    commands.main(["transformer", *vae, *known, *sizes, "--out", str(tmp_path / "flow")])
    assert any(line.get("misread", 0) > 0 for line in lines(tmp_path / "flow"))
    assert any(line.get("fresh_misread", 0) > 0 for line in lines(tmp_path / "flow"))
    assert (tmp_path / "flow" / "transformer.pt").is_file()


def test_a_reader_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reader = .*: it has no reader\.pt"):
        reader.load_reader(tmp_path, CPU)
