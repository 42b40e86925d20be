"""Both trainings on the CPU with tiny networks: the loss falls, a run goes on where it stopped, the result is packaged."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mannequin.training import clip_latents, motion, networks, package, pool, reports, transformer, vae
from mannequin.training.clip_latents import LatentSet, WorldClips
from mannequin.training.observer import Observer
from mannequin.training.pieces import Join, Pack, join_pieces, pack
from mannequin.training.pool import ClipPool
from mannequin.training.reports import SampleReport, report_samples
from mannequin.training.transformer import FlowTraining, Mannequin, train_flow
from mannequin.training.vae import VaeTraining, latent_statistics, train_vae, vae_loss
from mannequin.world.assets import Mannequins
from mannequin.world.world import World, WorldSettings
from wanimate.config import Defaults
from wanimate.errors import InputError
from wanimate.model.motion import Blur
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.vae import VideoVae
from wanimate.train.common import load_state, save_state
from wanimate.train.flow import Flow, LossSettings, flow_loss
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import read_tensors
from wanimate.weights.locate import embedded_path

STEPS = 50
TINY_VAE = VaeParams(base=8, res_blocks=1, mean=(0.0,) * 16, std=(1.0,) * 16)
TINY = TransformerParams(
    dim=64, ffn_dim=64, num_heads=2, num_layers=5, time_width=32, text_width=8, text_length=2, image_width=None,
    face_width=16, face_slots=2, motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
SIZES = ((32, 32), (32, 48), (48, 32))
VAE_RUN = VaeTraining(
    steps=STEPS, seconds=1e9, base=8, crop=32, frame_crop=32, frame_batch=8, clip_batch=4, detail_crop=16, detail_batch=4,
    rate=8e-3, refresh=10**6, frame_share=0.5,
)  # fmt: skip
FLOW_RUN = FlowTraining(steps=STEPS, seconds=1e9, short_batch=16, batch=16, rate=2e-2, renew=10**6)
CPU = torch.device("cpu")


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Small networks and pictures wherever the trainings look them up."""
    torch.set_num_threads(1)
    patch.setattr(vae, "VAE", TINY_VAE)
    patch.setattr(transformer, "TRANSFORMER", TINY)
    patch.setattr(motion, "TRANSFORMER", TINY)
    patch.setattr(package, "TRANSFORMER", TINY)
    patch.setattr(package, "LEAST_QUANTIZED", 256)
    patch.setattr(pool, "SIZES", SIZES)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def render(count: int, width: int, height: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright bar that moves over a coloured ground, and the bar alone; the bar weighs more."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(40, 120, (count, 1, 1, 1, 4), generator=generator).expand(-1, 5, height, width, -1).clone()
    sticks = torch.zeros_like(clips)
    for i in range(count):
        x = int(torch.randint(4, width - 16, (), generator=generator))
        for frame in range(5):
            for video in (clips, sticks):
                video[i, frame, 4:-4, x + 2 * frame : x + 2 * frame + 6] = 230
    clips[..., 3] = sticks[..., 3]
    return clips.to(torch.uint8), sticks.to(torch.uint8)


def make_pool() -> ClipPool:
    return ClipPool(render, capacity=4, step=4)


def make_latents(clips: int = 12) -> LatentSet:
    """Latents that follow from the pose and the reference, so that there is something to learn."""
    generator = torch.Generator().manual_seed(5)

    def of(height: int, width: int) -> WorldClips:
        pose = torch.randn(clips, 16, 2, height, width, generator=generator)
        reference = torch.randn(clips, 16, 1, height, width, generator=generator)
        return WorldClips(
            target=0.7 * pose + 0.7 * reference,
            pose=pose,
            known=torch.zeros_like(pose),
            reference=reference,
            keep=torch.zeros(clips, 4, 2, height, width),
            person=torch.rand(clips, 2, height, width, generator=generator),
            face=torch.randint(0, 256, (clips, 5, 8, 8, 3), generator=generator, dtype=torch.uint8),
            face_box=torch.zeros(clips, 5, 4),
        )

    return LatentSet([[of(height // 8, width // 8)] for width, height in SIZES])


def vae_error(model: VideoVae) -> float:
    torch.manual_seed(1)
    video = make_pool().clips(8, 32, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return float(vae_loss(model, video, VAE_RUN)[0])


def flow_error(model: Mannequin) -> float:
    torch.manual_seed(1)
    clips = make_latents().draw(64, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return float(flow_loss(model.flow, clips, FLOW_RUN.loss))


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def untrained_vae() -> VideoVae:
    torch.manual_seed(0)
    model = VideoVae(TINY_VAE)
    vae.initialise_vae(model)
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `vae` and `flow` of one run of each training."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        codec = train_vae(VAE_RUN, make_pool(), root / "vae", CPU)
        train_flow(FLOW_RUN, make_latents(), root / "flow", CPU)
        patch.setattr(pool, "SIZES", ((128, 128),) * 3)
        mean, std = latent_statistics(codec, make_pool(), batches=2)
    save_state(root / "vae" / "statistics.pt", mean=mean, std=std)
    return root


def trained_vae(root: Path) -> VideoVae:
    model = VideoVae(TINY_VAE)
    model.load_state_dict(load_state(root / "vae" / "vae.pt"))
    return model


def trained_flow(root: Path) -> Mannequin:
    model = Mannequin()
    model.load_state_dict(load_state(root / "flow" / "transformer.pt"))
    return model


@pytest.mark.slow
def test_the_vae_learns(trained: Path) -> None:
    before, after = vae_error(untrained_vae()), vae_error(trained_vae(trained))
    assert after < 0.6 * before, (before, after)
    assert logged(trained / "vae")[-1]["step"] == STEPS


@pytest.mark.slow
def test_the_transformer_learns(trained: Path) -> None:
    torch.manual_seed(0)
    before, after = flow_error(Mannequin()), flow_error(trained_flow(trained))
    assert after < 0.8 * before, (before, after)
    assert logged(trained / "flow")[-1]["step"] == STEPS


@pytest.mark.slow
def test_a_seed_decides_a_run(trained: Path, tmp_path: Path) -> None:
    short = replace(VAE_RUN, steps=6)
    first, again = (train_vae(short, make_pool(), tmp_path / name, CPU) for name in "ab")
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.slow
def test_vae_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = train_vae(replace(VAE_RUN, steps=8), make_pool(), tmp_path, CPU)
    state = load_state(tmp_path / "state.pt")
    assert state["step"] == 8
    same = train_vae(replace(VAE_RUN, steps=8), make_pool(), tmp_path, CPU, resume=True)
    for key, value in stopped.state_dict().items():
        assert torch.equal(value, same.state_dict()[key]), key
    seen: list[dict[str, Tensor]] = []

    def watched(
        model: VideoVae, video: Tensor, config: VaeTraining, observer: Observer | None
    ) -> tuple[Tensor, Tensor]:
        seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return vae_loss(model, video, config, observer)

    monkeypatch.setattr(vae, "vae_loss", watched)
    train_vae(replace(VAE_RUN, steps=12), make_pool(), tmp_path, CPU, resume=True)
    assert len(seen) == 4
    assert all(torch.equal(seen[0][k], v) for k, v in state["model"].items())
    assert load_state(tmp_path / "state.pt")["step"] == logged(tmp_path)[-1]["step"] == 12


@pytest.mark.slow
def test_flow_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_flow(replace(FLOW_RUN, steps=8), make_latents(), tmp_path, CPU)
    state = load_state(tmp_path / "state.pt")
    seen: list[dict[str, Tensor]] = []

    def watched(predict: Flow, clips: WorldClips, config: LossSettings) -> Tensor:
        model: Mannequin = predict.__self__  # type: ignore[attr-defined]
        seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return flow_loss(predict, clips, config)

    monkeypatch.setattr(transformer, "flow_loss", watched)
    train_flow(replace(FLOW_RUN, steps=12), make_latents(), tmp_path, CPU, resume=True)
    assert len(seen) == 4
    assert all(torch.equal(seen[0][k], v) for k, v in state["model"].items())
    assert load_state(tmp_path / "state.pt")["step"] == logged(tmp_path)[-1]["step"] == 12


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"resume = .*state\.pt: there is no such training state"):
        train_vae(VAE_RUN, make_pool(), tmp_path, CPU, resume=True)


@pytest.mark.slow
def test_the_decoder_alone_can_be_trained_further(trained: Path, tmp_path: Path) -> None:
    """The latents, which a transformer may know already, stay as they are."""
    start = trained / "vae" / "vae.pt"
    more = train_vae(replace(VAE_RUN, steps=8, decoder_only=True), make_pool(), tmp_path, CPU, start=start)
    before, after = trained_vae(trained).state_dict(), more.state_dict()
    kept = [k for k in before if k.startswith(("encoder.", "conv1."))]
    assert all(torch.equal(before[k], after[k]) for k in kept)
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("decoder."))


@pytest.mark.slow
def test_a_grown_vae_computes_the_same_and_every_new_channel_can_learn(trained: Path) -> None:
    narrow = trained_vae(trained)
    torch.manual_seed(3)
    wide = vae.begin_with(narrow.state_dict(), 12)
    video = make_pool().clips(2, 32, torch.Generator().manual_seed(4))[:, :3]
    latents = narrow.encode_piece(video, {})
    torch.testing.assert_close(wide.encode_piece(video, {}), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(wide.decode(latents, 2), narrow.decode(latents, 2), rtol=1e-4, atol=1e-5)
    wide.decode(wide.encode_piece(video, {}), 2).square().sum().backward()
    for name in ("encoder.conv1", "encoder.downsamples.0.residual.2", "decoder.conv1", "decoder.middle.0.residual.2"):
        old = len(narrow.get_parameter(f"{name}.bias"))
        gradient = wide.get_parameter(f"{name}.weight").grad
        assert gradient is not None
        assert (gradient[old:].abs().flatten(1).sum(1) > 0).all(), name


@pytest.mark.slow
def test_the_package_holds_what_was_trained(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "mannequin"
    defaults = Defaults(area=32 * 32, steps=2, clip_length=5)
    package.package(trained / "vae", trained / "flow", out, defaults, "tiny")
    loaded = load_checkpoint(out, "cpu")
    assert (loaded.config.name, loaded.config.note, loaded.config.defaults) == ("mannequin", "tiny", defaults)
    assert loaded.transformer.params == TINY
    stored = read_tensors(out / "diffusion_pytorch_model.safetensors")
    rounded = 0
    for key, value in trained_flow(trained).transformer.state_dict().items():
        rows = value.abs().flatten(1).amax(1).view(-1, *[1] * (value.ndim - 1)) if value.ndim > 1 else value.abs()
        error = (loaded.transformer.state_dict()[key] - value).abs()
        assert (error <= rows / 127 * 0.501 + 1e-6).all(), key
        assert torch.equal(stored[key].float(), loaded.transformer.state_dict()[key])
        rounded += bool((error > value.abs() * 2**-11 + 1e-6).any())
    assert rounded > 10, "large weights are int8"
    for key, value in trained_vae(trained).state_dict().items():
        step = value.abs().flatten(1).amax(1).view(-1, *[1] * (value.ndim - 1)) / 127 if value.ndim > 1 else 0
        assert ((loaded.vae.state_dict()[key] - value).abs() <= 0.501 * step + value.abs() * 2**-11 + 1e-6).all(), key
    positive, negative = trained_flow(trained).prompts.detach()
    assert torch.equal(loaded.prompts.encode("").float(), positive.half().float())
    assert torch.equal(loaded.prompts.encode("", negative=True).float(), negative.half().float())
    numbers = load_state(trained / "vae" / "statistics.pt")
    assert loaded.vae.mean.flatten().tolist() == pytest.approx(numbers["mean"], abs=1e-4)
    assert loaded.vae.std.flatten().tolist() == pytest.approx(numbers["std"], abs=1e-4)
    assert flow_error(trained_flow(trained)) == pytest.approx(flow_error(begun_with(out)), rel=0.02)
    package.package(out, trained / "flow", tmp_path / "again", defaults, "tiny")
    for name in ("vae.safetensors", "diffusion_pytorch_model.safetensors", "wanimate.json"):
        again = (tmp_path / "again" / name).read_bytes().replace(b'"again"', b'"mannequin"')
        assert again == (out / name).read_bytes(), "a packaged VAE stays as it is"


def begun_with(folder: Path) -> Mannequin:
    model = Mannequin()
    model.load_checkpoint(folder)
    return model


def faces(people: int, seed: int, held_out: bool) -> motion.Faces:
    """Grey faces whose mouth, a dark lower half, is as wide as the jaw is open, and eyes as wide as they are open."""
    generator = torch.Generator().manual_seed(seed + 1000 * held_out)
    told = torch.rand(2 * people, len(motion.TOLD), generator=generator)
    column = torch.arange(8).view(1, 1, 8) / 8
    pictures = torch.full((2 * people, 8, 8, 3), 160, dtype=torch.uint8)
    for row, name in ((5, "jaw"), (2, "eyes")):
        wide = column < told[:, motion.TOLD.index(name)].view(-1, 1, 1)
        pictures[:, row : row + 2] = torch.where(wide, 20, 160).to(torch.uint8).unsqueeze(-1)
    return motion.Faces(pictures, told)


@pytest.mark.slow
def test_the_motion_encoder_learns_what_faces_do_and_the_transformer_keeps_it(tmp_path: Path) -> None:
    run = motion.MotionTraining(
        steps=250, seconds=1e9, batch=64, clips=32, first=4, most=6, renew=5, rate=1e-2, coarse=0.0
    )
    encoder = motion.train_motion(run, faces, tmp_path / "motion", CPU)
    r2 = logged(tmp_path / "motion")[-1]
    assert r2["jaw"] > 0.5
    assert r2["eyes"] > 0.5
    assert r2["smile"] < 0.2, "nothing shows it"
    flow = replace(FLOW_RUN, steps=3)
    model = train_flow(flow, make_latents(), tmp_path / "flow", CPU, motion=tmp_path / "motion")
    for key, value in encoder.state_dict().items():
        assert torch.equal(model.transformer.motion_encoder.state_dict()[key], value), key


@pytest.mark.slow
def test_a_face_branch_of_another_size_begins_anew(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Defaults(area=32 * 32, steps=2, clip_length=5)
    package.package(trained / "vae", trained / "flow", tmp_path / "small", defaults, "tiny")
    larger = replace(TINY, motion=replace(TINY.motion, channels=(8, 8, 8)))
    monkeypatch.setattr(transformer, "TRANSFORMER", larger)
    model = begun_with(tmp_path / "small")
    assert model.transformer.params.motion.size == 16
    known, own = trained_state(trained), model.transformer.state_dict()
    assert torch.allclose(own["blocks.0.ffn.0.weight"], known["blocks.0.ffn.0.weight"], atol=0.02)
    assert not own["face_adapter.fuser_blocks.0.linear2.weight"].any(), "it says nothing yet"


def trained_state(root: Path) -> dict[str, Tensor]:
    state = load_state(root / "flow" / "transformer.pt")
    return {k.removeprefix("transformer."): v for k, v in state.items()}


@pytest.mark.slow
def test_latents_get_unit_size(trained: Path) -> None:
    """The packaged statistics make latents of clips about normal."""
    numbers = load_state(trained / "vae" / "statistics.pt")
    codec = VideoVae(replace(TINY_VAE, mean=tuple(numbers["mean"]), std=tuple(numbers["std"])))
    codec.load_state_dict(trained_vae(trained).state_dict())
    video = make_pool().clips(12, 32, torch.Generator().manual_seed(9))
    with torch.no_grad():
        z = codec.encode_piece(video[:, :3], {})
    assert z.mean().abs() < 0.4
    assert 0.5 < z.std() < 2


def numbered(kinds: list[list[WorldClips]], made: list[int], kind: int) -> WorldClips:
    made.append(kind)
    return WorldClips(**{k: torch.full_like(v[:4], len(made)) for k, v in vars(kinds[kind][0]).items()})


def test_new_clips_are_added_and_the_oldest_go_when_there_are_too_many() -> None:
    kinds, made = make_latents(clips=6).kinds, list[int]()
    growing = LatentSet([list(parts) for parts in kinds], partial(numbered, kinds, made), most=40)
    for _ in range(6):
        growing.renew()
    assert made == [0, 1, 2, 0, 1, 2]
    assert [[len(part) for part in parts] for parts in growing.kinds] == [[4, 4], [6, 4, 4], [6, 4, 4]]
    assert growing.seen == 18 + 24
    drawn = growing.draw(200, torch.Generator().manual_seed(1))
    assert len(drawn) == 200


def test_every_clip_is_drawn_as_often_and_short_ones_in_larger_batches() -> None:
    whole = make_latents(clips=9).kinds[0][0]

    def piece(name: str, tensor: Tensor) -> Tensor:
        return tensor[:, :1] if name == "person" else tensor[:, :, :1]

    short = WorldClips(**{k: v[:, :1] if k in ("face", "face_box") else piece(k, v) for k, v in vars(whole).items()})
    halves = [WorldClips(**{k: v[i:j] for k, v in vars(whole).items()}) for i, j in ((0, 2), (2, 9))]
    data, generator = LatentSet([halves, [short]]), torch.Generator().manual_seed(3)
    counts = torch.zeros(9)
    for _ in range(60):
        drawn = data.draw(20, generator, short_batch=30)
        long = drawn.pose.shape[2] == 2
        assert len(drawn) == (20 if long else 30)
        known = whole.pose if long else short.pose
        counts += (drawn.pose.flatten(1).unsqueeze(1) == known.flatten(1)).all(-1).sum(0)
    assert counts.min() > 0.7 * counts.mean()


def test_faces_are_looked_at_once_and_tell_the_same(tmp_path: Path) -> None:
    """Vectors instead of pictures change nothing, blank faces included."""
    torch.manual_seed(0)
    model, data = Mannequin().eval(), make_latents(clips=4)
    torch.nn.init.normal_(model.transformer.head.head.weight)
    for block in model.transformer.face_adapter.fuser_blocks:
        torch.nn.init.normal_(block.linear2.weight)
    pictures = data.kinds[0][0]
    told = model.faces.told(pictures)
    assert told.face.shape == (4, 5, TINY.motion.width)
    x = torch.randn(4, 16, 3, *pictures.pose.shape[-2:])
    t, dropped = torch.full((4,), 500), torch.tensor([True, False, False, True])
    with torch.no_grad():
        seen = model.flow(x, t, pictures, dropped)
        again = model.flow(x, t, replace(told, face=told.face.float()), dropped)
        other = model.flow(x, t, pictures, ~dropped)
    torch.testing.assert_close(again, seen, rtol=1e-2, atol=1e-2)
    assert (other - seen).abs().max() > 0.1


@pytest.mark.slow
def test_the_loss_of_held_out_clips_is_logged_and_teaches_nothing(tmp_path: Path) -> None:
    run = replace(FLOW_RUN, steps=3)
    alone = train_flow(run, make_latents(), tmp_path / "alone", CPU)
    watched = train_flow(run, make_latents(), tmp_path / "watched", CPU, fresh=make_latents(clips=3))
    assert logged(tmp_path / "watched")[-1]["fresh_loss"] > 0
    for key, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key


@pytest.mark.slow
def test_what_a_training_made_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANIMATE_MANNEQUINS", str(Path(__file__).parent / "data" / "mannequins.npz"))
    monkeypatch.setattr(reports, "SIZES", SIZES)
    faces: list[int] = []

    def world(people: Mannequins, settings: WorldSettings) -> World:
        faces.append(settings.face_size)
        return World(people, settings)

    monkeypatch.setattr(reports, "World", world)
    save_state(tmp_path / "transformer.pt", **Mannequin().state_dict())
    job = SampleReport(embedded_path(), tmp_path, tmp_path / "seen.png", clips=1, frames=5, steps=2, device="cpu")
    report_samples(job)
    assert capsys.readouterr().out.count("PSNR") == len(SIZES)
    assert (tmp_path / "seen.png").is_file()
    assert faces == [TINY.motion.size], "what the motion encoder takes"


def test_the_clip_pool_renews_itself_piece_by_piece() -> None:
    clips = ClipPool(
        lambda n, w, h, seed: (torch.full((n, 1, h, w, 4), seed, dtype=torch.uint8),) * 2, capacity=4, step=2
    )
    assert [v[:, 0, 0, 0, 0].tolist() for v in clips.videos] == [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5, 6, 6]]
    for _ in range(4):
        clips.refresh()
    assert [v[:, 0, 0, 0, 0].tolist() for v in clips.videos] == [[7, 7, 10, 10], [8, 8, 4, 4], [9, 9, 6, 6]]


def test_face_cuts_follow_the_faces() -> None:
    """Cuts of a clip show its face; what is drawn there is what the clip has there."""

    def faced(count: int, width: int, height: int, seed: int) -> tuple[Tensor, Tensor]:
        clips = torch.zeros(count, 3, height, width, 4, dtype=torch.uint8)
        for i in range(count):
            x, y = 4 + 5 * (i % 4), 6 + 4 * (i % 5)
            clips[i, :, y : y + 4, x : x + 4] = torch.tensor([200, 10 * i, 0, pool.FACE], dtype=torch.uint8)
        return clips, clips

    people = ClipPool(faced, capacity=8, step=8)
    assert people.faces[0][:2].tolist() == [[6, 8], [11, 12]]
    for single, frames in ((False, 3), (True, 1)):
        cut = people.details(6, 16, torch.Generator().manual_seed(1), single)
        assert cut.shape == (6, 4, frames, 16, 16)
        assert (cut[:, 3].amax((1, 2, 3)) == pool.FACE / 255).all()
        seen = cut[:, 3] > 0
        assert (seen.sum((1, 2, 3)) == 16 * frames).all()
        assert torch.equal(cut[:, 0][seen], torch.full_like(cut[:, 0][seen], 200 / 127.5 - 1))
    nobody = torch.zeros(2, 3, 8, 12)
    assert pool.face_places(nobody).tolist() == [[6, 4], [6, 4]]


def test_hand_cuts_show_hands_that_the_clips_show() -> None:
    def handed(count: int, width: int, height: int, seed: int) -> tuple[Tensor, Tensor]:
        clips = torch.zeros(count, 5, height, width, 4, dtype=torch.uint8)
        for i in range(count):
            for x in (0, width - 8):  # two hands, further apart than a cut is wide
                clips[i, :, 8:16, x : x + 8, 3] = pool.HAND
        return clips, clips

    people = ClipPool(handed, capacity=4, step=4)
    cut = people.details(64, 16, torch.Generator().manual_seed(1), single=False, hands=True)
    assert (cut[:, 3] > 0).flatten(1).any(1).all()
    x = people.hands[1][..., 0]
    assert ((x < 8) | (x > SIZES[1][0] - 8)).all()
    assert (x < 8).any()
    assert (x > 8).any()


def test_narrow_pictures_give_more_and_narrower_cuts() -> None:
    clips = ClipPool(render, capacity=4, step=4)
    shapes = {tuple(clips.clips(4, 48, torch.Generator().manual_seed(i)).shape) for i in range(8)}
    assert shapes == {(9, 4, 5, 32, 32)}


def test_steps_of_every_kind_are_spread_over_a_run() -> None:
    config = VaeTraining(face_share=0.5, hand_share=0.2, frame_mix=0.2)
    kinds = [vae.kind_of(config, step, 0.5) for step in range(2000)]
    shares = {kind: kinds.count(kind) / 2000 for kind in vae.KINDS}
    wanted = {
        "clips": 0.24,
        "frames": 0.06,
        "face_clips": 0.4,
        "face_frames": 0.1,
        "hand_clips": 0.16,
        "hand_frames": 0.04,
    }
    assert shares == pytest.approx(wanted, abs=0.02)
    assert set(kinds[:60]) == set(vae.KINDS)
    early = {vae.kind_of(VaeTraining(frame_share=0.35), step, 0.1) for step in range(100)}
    assert early == {"frames", "face_frames", "hand_frames"}


@pytest.mark.slow
def test_a_packed_training_goes_on_and_gives_the_same_pictures(trained: Path, tmp_path: Path) -> None:
    run = replace(VAE_RUN, steps=8)
    train_vae(run, make_pool(), tmp_path / "a", CPU)
    save_state(tmp_path / "a" / "statistics.pt", mean=[0.0] * 16, std=[1.0] * 16)
    pieces = pack(Pack(tmp_path / "a", tmp_path / "pieces", mebibytes=0.2))
    assert len(pieces) > 2
    assert all(p.stat().st_size <= 0.2 * 2**20 for p in pieces)
    join_pieces(Join(tmp_path / "pieces", tmp_path / "b"))
    ours, theirs = (vae.load_trained_vae(tmp_path / name, CPU) for name in "ab")
    video = make_pool().clips(2, 32, torch.Generator().manual_seed(3))[:, :3]
    torch.testing.assert_close(ours.decode(ours.encode(video)), theirs.decode(theirs.encode(video)), atol=0.02, rtol=0)
    assert (tmp_path / "a" / "log.jsonl").read_text() == (tmp_path / "b" / "log.jsonl").read_text()
    train_vae(replace(run, steps=12), make_pool(), tmp_path / "b", CPU, resume=True)
    last = logged(tmp_path / "b")[-1]
    assert last["step"] == 12
    assert last["rate"] < run.rate * 12 / 200, "the rate rises anew"
    pieces[0].unlink()
    with pytest.raises(InputError, match="missing"):
        join_pieces(Join(tmp_path / "pieces", tmp_path / "c"))


def test_faces_and_hands_count_more_than_bodies() -> None:
    from types import SimpleNamespace

    region = torch.tensor([[[[0, 4, 1, 9, 2, 7]]]], dtype=torch.uint8)  # background, top, skin, hand, face, eye
    batch = SimpleNamespace(region=region, cover=torch.tensor([[[[0, 255, 255, 255, 255, 255]]]], dtype=torch.uint8))
    plain = clip_latents.person_weight(batch, 0.0).flatten().tolist()  # type: ignore[arg-type]
    assert plain == pytest.approx([0, 1.49, 1.86, 2.41, 3.0, 5.0], abs=0.02)
    more = clip_latents.person_weight(batch, 8.0).flatten().tolist()  # type: ignore[arg-type]
    assert more == pytest.approx([0, 1.49, 1.86, 5.24, 7.0, 13.0], abs=0.04)


def test_shifted_sums_blur_like_the_network() -> None:
    x = torch.randn(2, 3, 16, 12)
    for padding in (1, 2):
        assert torch.allclose(networks.shifted_blur(padding, x), Blur(padding)(x), atol=1e-6)
