"""What ranks of a gloo group compute, against one process: run by `test_runtime_parallel` in 2 and in 4 processes.

A check raises on a difference.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from golden import fill
from wanimate.config import CacheKind, LoraUse, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError, RankFailed
from wanimate.model.attention import attention
from wanimate.model.fp8 import FP8, to_fp8
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime import processor
from wanimate.runtime.optimize import thin_attention
from wanimate.runtime.parallel.ranks import Group, Ranks, Sending, join, leave
from wanimate.runtime.parallel.sequence import SplitAttention, SplitTransformer, TokenSplit
from wanimate.runtime.parallel.shard import sharded
from wanimate.runtime.parallel.strips import StripVae
from wanimate.runtime.parallel.team import RankWorker, Team, follow, worker_for
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.planning import sizes
from wanimate.runtime.sparse.layout import BlockSizes
from wanimate.sampling.cache import Caching
from wanimate.sampling.guidance import guided
from wanimate.types import Conditions
from wanimate.weights.checkpoint import Checkpoint, FixedPrompt, drained
from wanimate.weights.locate import CheckpointConfig, read_checkpoint_config
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import LoraStack

PARAMS = TransformerParams(
    dim=48, ffn_dim=64, num_heads=4, num_layers=4, time_width=32, text_width=8, text_length=3, image_width=16, face_width=16,
    face_slots=2, face_every=2, motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
GRIDS = {"even": (2, 4, 8), "one short": (3, 6, 10), "fewer than ranks": (2, 2, 4)}
"""Latent frames, rows and columns: 8, 15 and 2 tokens a frame."""


def network() -> AnimateTransformer:
    model = AnimateTransformer(PARAMS)
    fill(model)
    return model.eval().requires_grad_(False)


def conditions(grid: tuple[int, int, int], seed: int = 0) -> tuple[Conditions, Tensor]:
    """Conditions and a state, the same on every rank."""
    frames, height, width = grid
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    face = randn(3, 4 * frames - 3, 8, 8).clamp(-1, 1)
    made = Conditions(
        randn(20, frames + 1, height, width),
        randn(16, frames, height, width),
        face,
        randn(3, 8),
        randn(2, 8),
        randn(5, 16),
    )
    return made, randn(16, frames + 1, height, width)


def close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    assert found.shape == wanted.shape
    error = ((found - wanted).norm() / wanted.norm()).item()
    assert error < tolerance, f"relative L2 {error:.2e}"


def check_sequence(ranks: Ranks, grid: tuple[int, int, int]) -> None:
    model = network()
    given, x = conditions(grid)
    t = torch.tensor(700)
    wanted = guided(model, given, 2.5)(x, t)
    close(guided(SplitTransformer(model, ranks.everyone), given, 2.5)(x, t), wanted)
    close(guided(model, given, 2.5)(x, t), wanted, 1e-7)  # the transformer is as it was


class _Eight:
    """Attention in float8 in plain PyTorch."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise AssertionError("queries and keys are float8 already")

    def rounded(self, q: tuple[Tensor, Tensor], k: tuple[Tensor, Tensor], v: Tensor) -> Tensor:
        plain = [levels.float() * scale[:, None, :, None] for levels, scale in (q, k)]
        return attention(*plain, v)


def check_eight(ranks: Ranks, grid: tuple[int, int, int]) -> None:
    """Queries and keys cross as bytes; values are on their way before they are there. A part of the heads goes back before the
    next one is computed."""
    frames, per_frame, heads = grid[0], grid[1] * grid[2] // 4, 4
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, frames * per_frame, heads, 8, generator=generator) for _ in range(3))
    rounded = [to_fp8(x, (1, 3)) for x in (q, k)]
    whole = [(levels, scale[:, 0, :, 0]) for levels, scale in rounded]
    wanted = _Eight().rounded(*whole, v)
    seen: list[object] = []

    class Seen(_Eight):
        def rounded(self, q: tuple[Tensor, Tensor], k: tuple[Tensor, Tensor], v: Tensor) -> Tensor:
            seen.append("computed")
            return super().rounded(q, k, v)

    class Watched(Group):
        def sending(self, x: Tensor, dtype: torch.dtype) -> Sending:
            assert x.dtype == torch.int64  # eight bytes at a time
            seen.append(dtype)
            return super().sending(x, dtype)

    everyone = ranks.everyone
    for ordered in (False, True):
        split = TokenSplit(frames, per_frame, Watched(everyone.index, everyone.size, everyone.handle), ordered)
        both = SplitAttention.of(split, Seen(), heads)
        mine = [split.own(x.flatten(2).float()).unflatten(-1, (heads, 8)) for x in (whole[0][0], whole[1][0], v)]
        values = both.send(mine[2])
        queries = both.send(mine[0].to(FP8)), whole[0][1]
        found = both.rounded(queries, (mine[1].to(FP8), whole[1][1]), values)
        close(split.whole(found.flatten(2)).unflatten(-1, (heads, 8)), wanted, 1e-5)
    parts = len(both.backends)
    assert parts == (1 if ranks.count == heads else 2)
    there = [kind for kind in (torch.float32, FP8, FP8) for _ in range(parts)]
    assert seen == 2 * [*there, *parts * ["computed", torch.float32]]
    far = torch.full((heads, 8), float(ranks.everyone.index))
    assert torch.equal(both.common(far), torch.full((heads, 8), (ranks.count - 1) / 2))


def check_shares(ranks: Ranks) -> None:
    """Every rank runs the blocks on its own tokens only, and no collective but those of self-attention carries all of them."""
    model = network()
    given, x = conditions(GRIDS["one short"])
    seen: list[tuple[int, ...]] = []
    for block in [*model.blocks, *model.face_adapter.fuser_blocks]:
        block.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape)))
    moved: list[int] = []

    class Counting(Group):
        def gather(self, x: Tensor) -> Tensor:
            moved.append(x.numel())
            return super().gather(x)

    everyone = ranks.everyone
    split = SplitTransformer(model, Counting(everyone.index, everyone.size, everyone.handle))
    guided(split, given, 1.0)(x, torch.tensor(700))
    share = -(-15 // ranks.count)
    assert set(seen) == {(1, 4 * share, 48)}
    faces = -(-given.face.shape[1] // ranks.count)
    assert moved == [faces * model.params.motion.width, 4 * share * 64]  # the faces' motion and the head's output, once


def check_sparse(ranks: Ranks, grid: tuple[int, int, int]) -> None:
    """Attention that leaves out blocks needs the order of the grid. It is the same on any number of ranks, and so is what it
    tells of its steps."""
    model = network()
    thin_attention(model, 0.4)
    run = model.__dict__["sparse"]
    run.sizes = BlockSizes(4, 2, (2, 2))
    given, x = conditions(grid)
    wanted = guided(model, given, 2.5)(x, torch.tensor(700))
    alone = run.meter.take()
    assert 0 < alone.density < 1
    tiny = Checkpoint(
        Path(), CheckpointConfig(name="tiny"), model, VideoVae(VaeParams(base=8)), FixedPrompt({}), None, ranks.device
    )
    worker = RankWorker(ranks, tiny, ParallelSettings())
    close(guided(SplitTransformer(model, ranks.everyone), given, 2.5)(x, torch.tensor(700)), wanted, 1e-4)
    together = worker.attention_step()
    assert together is not None
    assert abs(together.density - alone.density) < 1e-6
    assert abs(together.error - alone.error) < 1e-4


def check_heads(ranks: Ranks) -> None:
    with pytest.raises(InputError, match=r"divide the 4 attention heads of the network\. Use one of 1, 2, 4"):
        SplitTransformer(network(), replace(ranks.everyone, size=3))


def check_sharded(ranks: Ranks) -> None:
    """FSDP2, under both ways of splitting; and each rank holds its part only."""
    model = network()
    given, x = conditions(GRIDS["one short"])
    t = torch.tensor(300)
    wanted = guided(model, given, 2.0)(x, t)
    twin = sharded(model, ranks)
    whole = sum(p.numel() for p in model.blocks.parameters())
    local = sum(p.to_local().numel() for p in twin.blocks.parameters())
    assert local < 1.1 * whole / ranks.count
    net = guided(SplitTransformer(twin, ranks.everyone), given, 2.0)
    for _ in range(2):
        close(net(x, t), wanted)
    assert sum(p.to_local().numel() for p in twin.blocks.parameters()) == local  # given back after the step
    close(guided(model, given, 2.0)(x, t), wanted, 1e-7)


def check_vae(ranks: Ranks, rows: int) -> None:
    torch.manual_seed(3)
    vae = VideoVae(VaeParams(base=8, res_blocks=1))
    fill(vae)
    vae.channels_last().eval().requires_grad_(False)
    video = torch.randn(1, 3, 9, 8 * rows, 24).clamp(-1, 1)
    latents = torch.randn(1, 16, 4, rows, 3)
    strips = StripVae(vae, ranks.everyone)
    close(strips.encode(video, 2), vae.encode(video, 2))
    pieces = latents.split([1, 1, 2], dim=2)
    decoded = torch.cat([strips.decode_piece(piece, i == 0) for i, piece in enumerate(pieces)], dim=2)
    close(decoded, vae.decode(latents))


def check_messages(ranks: Ranks) -> None:
    half = torch.ones(2, dtype=torch.bfloat16)
    sent = {"t": torch.arange(6.0).view(2, 3).T, "half": half, "n": None, "list": [torch.tensor(3)]}
    if ranks.first:
        ranks.send(sent)
        return
    got = ranks.receive()
    assert (got["n"], got["list"][0].item(), got["half"].dtype) == (None, 3, torch.bfloat16)
    torch.testing.assert_close(got["t"], sent["t"])


def team_part(ranks: Ranks, settings: ParallelSettings) -> RankWorker:
    model = network()
    torch.manual_seed(3)
    vae = VideoVae(VaeParams(base=8, res_blocks=1))
    fill(vae)
    config = CheckpointConfig(name="tiny", text_length=3)
    vae.eval().requires_grad_(False)
    return RankWorker(ranks, Checkpoint(Path(), config, model, vae, FixedPrompt({}), None, ranks.device), settings)


def check_team(ranks: Ranks, settings: ParallelSettings, lora: Path) -> None:
    """Rank 0 leads through two segments and two jobs, the others follow; one job has a LoRA. Nobody keeps anything of a video
    that has been decoded, in whole or in part."""
    part = team_part(ranks, settings)
    if not ranks.first:
        follow(ranks, part)
        assert part.vae.kept == 0
        assert part.has_network is False
        return
    team = Team(part, lambda sure: RankFailed("lost"))
    model, vae = part.checkpoint.transformer, part.checkpoint.vae
    uses = (LoraUse(path=lora, strength=0.7),)
    stack = LoraStack(model, [(match_lora(read_lora(lora), model), uses[0])])
    for loras, active, scale in (((), (), 1.0), (uses, (0,), 2.0)):
        team.use_loras(loras, False)
        for seed, grid in enumerate((GRIDS["one short"], GRIDS["even"])[: 1 if loras else 2]):
            given, x = conditions(grid, seed)
            net, alone = team.network(active, given, scale), guided(stack.transformer(active), given, scale)
            for t in (torch.tensor(900), torch.tensor(100)):
                close(net(x, t), alone(x, t))
    videos, latents = [torch.randn(1, 3, 9, 32, 16) for _ in range(3)], torch.randn(1, 16, 3, 4, 2)
    videos[1][:, :, 1:] = 0.0
    for found, video in zip(team.encode_each(iter(videos), 1), videos, strict=True):
        close(found, vae.encode(video))
    close(torch.cat(list(team.decode_pieces(latents, 1)), dim=2), vae.decode(latents))
    assert part.vae.kept == 0
    pieces = team.decode_pieces(latents, 1)
    next(pieces)
    assert part.vae.kept > 0
    pieces.close()
    assert part.vae.kept == 0
    assert part.has_network is False
    team.stop()


def check_fast(ranks: Ranks, settings: ParallelSettings, folder: Path) -> None:
    """`--speed fast` on a processor that multiplies bfloat16: weights, VAE and result are those of one process."""
    runtime = RuntimeSettings(speed="fast")
    with pytest.MonkeyPatch.context() as patched:
        for module in (sizes, processor):
            patched.setattr(module, "has_bf16", lambda device: True)
        part = drained(worker_for(ranks, folder, settings, runtime, None))
        alone = drained(PlacedNetworks(*read_checkpoint_config(folder), ranks.device, runtime).open())
    checkpoint = part.checkpoint
    assert alone.transformer.dtype == checkpoint.transformer.dtype == torch.bfloat16
    assert alone.vae.dtype == checkpoint.vae.dtype == torch.bfloat16
    if not ranks.first:
        follow(ranks, part)
        return
    team = Team(part, lambda sure: RankFailed("lost"))
    given, x = conditions(GRIDS["one short"])
    given = replace(given, image_tokens=None)
    team.use_loras((), False)
    t = torch.tensor(300)
    close(team.network((), given, 2.0)(x, t), guided(alone.transformer, given, 2.0)(x, t), 2e-2)
    video, latents = torch.randn(1, 3, 5, 32, 16), torch.randn(1, 16, 3, 4, 2)
    (found,) = team.encode_each(iter((video,)), 1)
    close(found, alone.vae.encode(video), 2e-2)
    close(torch.cat(list(team.decode_pieces(latents, 1)), dim=2), alone.vae.decode(latents), 2e-2)
    team.stop()


def check_cache(ranks: Ranks, kind: CacheKind, settings: ParallelSettings) -> None:
    """All ranks skip the steps that one process skips, by gates that lie among this network's errors; filled-up tokens
    have no say."""
    part = team_part(ranks, settings)
    if not ranks.first:
        follow(ranks, part)
        return
    team = Team(part, lambda sure: RankFailed("lost"))
    given, x = conditions(GRIDS["one short"])
    steps, between = 10, torch.randn(16, generator=torch.Generator().manual_seed(4))
    for scale in (1.0, 2.5):
        for gate in {"taylor": (0.28, 0.35, 9.0), "first-block": (0.2, 0.24), "magnitude": (0.003, 0.1)}[kind]:
            caching = Caching(kind, gate, steps)
            team.use_loras((), False)
            net, alone = (
                team.network((), given, scale, caching),
                guided(part.checkpoint.transformer, given, scale, caching),
            )
            for i in range(steps):
                state, t = x * (1 - i / steps) + between.view(-1, 1, 1, 1) * i / steps, torch.tensor(990 - 80 * i)
                close(net(state, t), alone(state, t), 1e-4)
                assert net.skipped == alone.skipped, f"scale {scale}, gate {gate}, step {i}"
    team.stop()


def checks(lora: Path) -> dict[str, Callable[[Ranks], None]]:
    found: dict[str, Callable[[Ranks], None]] = {
        f"sequence, {name}": lambda r, g=grid: check_sequence(r, g) for name, grid in GRIDS.items()
    }
    found |= {f"float8, {name}": lambda r, g=grid: check_eight(r, g) for name, grid in GRIDS.items()}
    found |= {f"vae, {rows} rows": lambda r, n=rows: check_vae(r, n) for rows in (5, 1)}
    for name, values in {
        "plain": {}, "sharded": {"shard_weights": True}, "split guidance": {"split_guidance": True},
        "both": {"shard_weights": True, "split_guidance": True},
    }.items():  # fmt: skip
        settings = ParallelSettings(**values)
        found[f"team, {name}"] = lambda r, s=settings: check_team(r, s, lora)
        found[f"fast, {name}"] = lambda r, s=settings: check_fast(r, s, lora.with_name("checkpoint"))
    for kind in ("taylor", "first-block", "magnitude"):
        for name, values in {"plain": {}, "both": {"shard_weights": True, "split_guidance": True}}.items():
            settings = ParallelSettings(**values)
            found[f"cache, {kind}, {name}"] = lambda r, k=kind, s=settings: check_cache(r, k, s)
    return found | {
        "sparse, even": lambda r: check_sparse(r, GRIDS["even"]),
        "sparse, one short": lambda r: check_sparse(r, GRIDS["one short"]),
        "shares": check_shares, "heads": check_heads, "sharded": check_sharded, "messages": check_messages,
    }  # fmt: skip


NAMES = {
    2: tuple(checks(Path())),
    4: (
        "sparse, even",
        "sequence, one short",
        "sequence, fewer than ranks",
        "float8, one short",
        "vae, 5 rows",
        "team, both",
    ),
}
"""The checks for so many processes."""


def run(rank: int, count: int, port: int, folder: Path, lora: Path) -> None:
    """One of `count` processes: every check; what went wrong is written to a file of its own."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ranks = join()
    for name in NAMES[count]:
        check, said = checks(lora)[name], "ok"
        try:
            with torch.inference_mode():
                check(ranks)
        except Exception:
            said = traceback.format_exc()
        (folder / f"{name} {count} {rank}").write_text(said)
    leave()
