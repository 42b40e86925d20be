"""Will it fit, and how long will it take: a forecast made before any weights are read, and what to do where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import psutil
import torch
from torch import nn

from wanimate.config import BlocksMode, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError, OutOfMemory
from wanimate.events import Stage
from wanimate.runtime.planning.rates import Rates
from wanimate.runtime.planning.simulate import TransformerCost, VaeCost, transformer_cost, vae_cost
from wanimate.runtime.planning.sizes import GIB, Networks
from wanimate.runtime.sparse.layout import BlockSizes, list_bytes
from wanimate.runtime.tiling import CELL
from wanimate.types import Segment
from wanimate.weights.checkpoint import fits_beside
from wanimate.weights.lora_view import LoraSizes

SPARE = 1.04
"""What the allocator holds beyond what is alive, at the worst."""
WORKSPACE = 256 * 2**20
"""Workspaces of the matrix and convolution libraries."""
TOKEN_CHUNK = 8192
TILES = (96, 64, 48, 32, 24, 16)
"""Sides of VAE tiles in latents, largest first."""
FUSED_MEMORY, FUSED_TRAFFIC = 0.65, 0.3
FUSED_MEMORY_EIGHT, FUSED_TRAFFIC_EIGHT = 0.55, 0.22
"""What fused blocks leave of what a step holds besides its context, and of the bytes it reads and writes, unfused; with
products in eight bits, less (measured in float8 at 480p and 720p: benchmarks/results/speed_h100_2026-11-27.md)."""
VAE_ENCODE, VAE_DECODE = 1.15, 1.12
"""What the VAE holds on a GPU, with frames stacked and the workspaces of its convolutions, over what its tensors take unfused
(same file, 720p)."""
EXCHANGED = 5
"""Tensors of a GPU's own tokens that the exchange around attention holds besides, on several GPUs, while values and queries are
on their way; counted from the code, 3 measured one after the other (benchmarks/results/two_gpus_h100_2026-11-27.md)."""
REORDERED = 5
"""Tensors of all tokens that attention holds besides where it leaves out blocks. Counted on a processor by `simulate._Alive`,
with stand-ins for the kernels and 40 heads at 480p: 4.0 where it chooses (in int8 also at 720p), 3 to 4 in other calls. Where
all heads are off at once it is 4.5 in float8, 5.1 in int8 and 7 in bfloat16: not planned for, as such a job makes room."""
PIXELS_AT_ONCE = 1 << 18
"""On a GPU the VAE takes so many latent frames at once that their pictures stay below this many pixels together."""


ALONE = ParallelSettings()


@dataclass(frozen=True)
class Placement:
    """Where the blocks live, how many tokens go at once (None: all), the side of VAE tiles in latents (None: no tiles), and how
    the job is spread over GPUs."""

    blocks: BlocksMode = "resident"
    token_chunk: int | None = None
    tile: int | None = None
    spread: ParallelSettings = ALONE

    def shrunk(self, stage: Stage) -> tuple[Placement, str] | None:
        """The next one that takes less in this stage, and in words what changed; None where nothing is left to give.

        While weights are loaded, the blocks give way. While the network is prepared or computes (`denoise`), tokens go in
        chunks, and then the blocks give way. Elsewhere the VAE works in tiles first. On several GPUs each one has its strip
        of the VAE already, and blocks give way by being sharded.
        """
        if stage is Stage.DENOISE:
            if self.token_chunk is None:
                return replace(self, token_chunk=TOKEN_CHUNK), f"the network now takes {TOKEN_CHUNK} tokens at once"
            if (less := self._with_fewer_blocks()) is not None:
                return less
            if self.token_chunk > 1024:
                fewer = self.token_chunk // 2
                return replace(self, token_chunk=fewer), f"the network now takes {fewer} tokens at once"
            return None
        smaller = [side for side in TILES if self.tile is None or side < self.tile]
        alone = self.spread.gpus == 1 and stage not in (Stage.LOAD, Stage.LORA)
        if alone and smaller and (self.tile is None or self.tile > 32 or self.blocks != "resident"):
            side = 64 if self.tile is None else smaller[0]
            return replace(self, tile=side), f"the VAE now works in tiles of {CELL * side} pixels"
        return self._with_fewer_blocks()

    def _with_fewer_blocks(self) -> tuple[Placement, str] | None:
        if self.spread.gpus > 1:
            if self.spread.shard_weights:
                return None
            spread = self.spread.model_copy(update={"shard_weights": True})
            return replace(self, spread=spread), "each GPU now keeps its part of the transformer's blocks"
        if self.blocks == "resident":
            return replace(self, blocks="streamed"), "the transformer's blocks now stay in host memory"
        return None

    def __str__(self) -> str:
        chunk = "" if self.token_chunk is None else f", {self.token_chunk} tokens at once"
        if self.spread.gpus > 1:
            blocks = "blocks sharded" if self.spread.shard_weights else "blocks and VAE whole on each"
            return blocks + chunk
        tile = "VAE whole" if self.tile is None else f"VAE in tiles of {CELL * self.tile} pixels"
        return f"blocks {self.blocks}{chunk}, {tile}"


@dataclass(frozen=True)
class Work:
    """What a job asks for. `size` is width and height; `branches` is 2 with guidance; `new_prompt`: the text encoder runs;
    `kept`: tensors of all tokens that a step cache holds; `loras`: what its LoRAs take; `finishing`: bytes that finishing takes
    beside the decoder."""

    size: tuple[int, int]
    segments: tuple[Segment, ...]
    steps: int
    branches: int = 1
    new_prompt: bool = False
    kept: int = 0
    loras: LoraSizes = field(default_factory=LoraSizes)
    finishing: int = 0

    @property
    def length(self) -> int:
        return max(s.length for s in self.segments)

    @property
    def tokens(self) -> int:
        """Of the longest segment, the reference frame's included."""
        return ((self.length + 3) // 4 + 1) * (self.size[0] // (2 * CELL)) * (self.size[1] // (2 * CELL))


@dataclass(frozen=True)
class ResidentBytes:
    """Bytes that the networks of a checkpoint take before a job begins: none before the first one."""

    gpu: int = 0
    host: int = 0

    @classmethod
    def of(cls, *networks: nn.Module) -> ResidentBytes:
        """What the tensors of these networks take, each on its device."""
        tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        return cls(*(sum(t.nbytes for t in tensors if t.device.type == kind) for kind in ("cuda", "cpu")))


@dataclass(frozen=True)
class Machine:
    """What a job runs on. `room` and `host`: bytes that it may take on each GPU and in the host, with those that its networks
    hold already; on a CPU the second one counts. `eight`: it multiplies the weights' matrices of eight bits."""

    device: torch.device
    name: str
    room: int
    host: int
    rates: Rates
    eight: bool = False


@dataclass(frozen=True)
class Plan:
    """A forecast. `gpu` and `host` are peaks in bytes (`gpu` is 0 without one), `stages` the GPU's by stage; on several GPUs
    they are those of the first one and of its process."""

    device: str
    weights: str
    placement: Placement
    room: int
    gpu: int
    host: int
    stages: dict[str, int]
    step_seconds: float
    clip_seconds: float

    def __str__(self) -> str:
        where = f"GPU {self.gpu / GIB:.1f} of {self.room / GIB:.1f} GiB, " if self.gpu else ""
        return (
            f"plan: {self.device}, weights {self.weights}, {self.placement}; peak {where}host {self.host / GIB:.1f} GiB; "
            f"about {_seconds(self.step_seconds)} a step, {_seconds(self.clip_seconds)} for the clip"
        )


Alternative = tuple[str, Networks, Work, ParallelSettings]
"""Another setting's name, and what it comes to."""


def make_plan(
    nets: Networks, work: Work, settings: RuntimeSettings, machine: Machine,
    alternatives: Callable[[], Iterator[Alternative]] | None = None, held: ResidentBytes = ResidentBytes(),
    spread: ParallelSettings = ALONE,
) -> Plan:  # fmt: skip
    """The first placement that fits: everything resident, then slices of tokens, then streamed blocks, then smaller VAE tiles.

    alternatives: other settings to look at, nearest first, with their names, if this one does not fit.

    Raises:
        OutOfMemory: nothing fits; the message names the nearest setting that does.
    """
    smallest: Plan | None = None
    room, host_room = machine.room, machine.host
    for placement in _ladder(nets, settings, machine.device, spread):
        plan = _forecast(nets, work, placement, settings, machine, held)
        fits = spread.gpus * plan.host <= host_room and (not plan.gpu or SPARE * plan.gpu + WORKSPACE <= room)
        if fits:
            return plan
        if smallest is None or plan.gpu + plan.host < smallest.gpu + smallest.host:
            smallest = plan
    assert smallest is not None
    which = "the GPU" if spread.gpus == 1 else "each GPU"
    taken = f"{smallest.gpu / GIB:.1f} of {room / GIB:.1f} GiB of {which} and " if smallest.gpu else ""
    host = spread.gpus * smallest.host
    rule = f"the job needs at least {taken}{host / GIB:.1f} of {host_room / GIB:.1f} GiB of host memory"
    for words, other, less, wider in () if alternatives is None else alternatives():
        try:
            make_plan(other, less, settings, machine, held=held, spread=wider)
        except OutOfMemory:
            continue
        raise OutOfMemory(f"{rule}. It fits with {words}.")
    raise OutOfMemory(f"{rule}. No smaller setting of this checkpoint fits here.")


def _ladder(
    nets: Networks, settings: RuntimeSettings, device: torch.device, spread: ParallelSettings
) -> Iterator[Placement]:
    if spread.gpus > 1:  # nothing is streamed there, and the VAE works in strips
        yield from (Placement(token_chunk=chunk, spread=spread) for chunk in (None, TOKEN_CHUNK))
        return
    if device.type != "cuda":
        yield Placement(tile=None if settings.vae_tile is None else settings.vae_tile // CELL)
        return
    modes: Sequence[BlocksMode] = (
        ("resident", "streamed", "mapped") if settings.blocks == "auto" else (settings.blocks,)
    )
    if settings.blocks == "mapped" and not nets.as_stored:
        rule = "the blocks can stay in the file only if it holds them in the type they are used in"
        raise InputError("runtime.blocks", "mapped", rule, "Use streamed, or convert with `wanimate weights convert`.")
    tiles = (None, *TILES) if settings.vae_tile is None else (settings.vae_tile // CELL,)
    for mode in modes:
        if mode != "mapped" or nets.as_stored:
            for token_chunk in (None, TOKEN_CHUNK):
                yield from (Placement(mode, token_chunk, tile) for tile in tiles)


def _forecast(
    nets: Networks, work: Work, placement: Placement, settings: RuntimeSettings, machine: Machine, held: ResidentBytes
) -> Plan:
    device, room, speed = machine.device, machine.room, settings.speed
    width, height = work.size
    cuda, eight = device.type == "cuda", speed != "exact" and machine.eight
    chunk = vae_chunk(work.size, device)
    spread, loras = placement.spread, work.loras
    halves = spread.split_guidance and work.branches == 2
    sharing, branches = (spread.gpus // 2, 1) if halves else (spread.gpus, work.branches)
    shape = (nets.params, nets.dtype, nets.quantized, work.size, work.length, placement.token_chunk)
    cost = transformer_cost(*shape, processes=sharing)
    lora_traffic = transformer_cost(*shape, loras.rank, sharing).traffic - cost.traffic
    vae = vae_cost(nets.vae_params, work.size, work.length, chunk, placement.tile)
    if spread.gpus > 1:  # an even number of ranks encodes two videos at once
        both = 2 if spread.gpus % 2 == 0 else 1
        vae = replace(vae, encode=both * vae.encode // spread.gpus, decode=vae.decode // spread.gpus)
    if cuda:
        less = nets.quantized and eight
        memory, traffic = (FUSED_MEMORY_EIGHT, FUSED_TRAFFIC_EIGHT) if less else (FUSED_MEMORY, FUSED_TRAFFIC)
        fused = cost.context + int(memory * (cost.forward - cost.context))
        cost = replace(cost, forward=fused, traffic=traffic * cost.traffic)
    cost = replace(cost, traffic=cost.traffic + lora_traffic)
    vae_share = 2 if cuda and speed != "exact" else 1
    if cuda:
        encode, decode = VAE_ENCODE * vae.encode / vae_share, VAE_DECODE * vae.decode / vae_share
        vae = replace(vae, encode=int(encode), decode=int(decode))
    resident = placement.blocks == "resident"
    own, grown, others = _copies(nets, loras, eight)
    blocks = nets.blocks if resident else 2 * (nets.block + grown)
    if spread.shard_weights:  # the fusers are sharded as the blocks are
        fusers = nets.params.num_layers // nets.params.face_every * 4 * nets.params.dim**2 * nets.dtype.itemsize
        own = own // spread.gpus
        blocks = (blocks + fusers) // spread.gpus - fusers + 2 * (nets.block + grown)
    fixed = nets.rest + nets.vae // vae_share + blocks
    lora = others + (own if resident else 0) + (loras.beside if cuda else 0)  # a CPU's are those of the mapped file
    video = 12 * work.length * width * height
    inputs = 2 * video + 12 * work.length * nets.params.motion.size**2
    tensor = work.tokens // sharing * nets.params.dim * nets.dtype.itemsize
    beside_blocks = (work.kept + (EXCHANGED if sharing > 1 else 0)) * tensor  # a step cache's, and the exchange
    if settings.attention_error:  # inputs and output in another order, and which blocks are visited
        lists = list_bytes(work.tokens, nets.params.num_heads // sharing, nets.params.num_layers, BlockSizes(128, 64))
        beside_blocks += REORDERED * tensor + branches * lists
    beside = (branches - 1) * cost.context + beside_blocks
    preparing = lora + branches * cost.context + cost.prepare - cost.context
    stages = {
        "conditions": fixed + inputs + vae.encode + lora,
        "denoise": fixed + max(inputs + preparing, inputs // 2 + lora + cost.forward + beside),
        "decode": fixed + inputs // 2 + lora + vae.decode + work.finishing,
    }
    if work.new_prompt and fits_beside(nets.text, room - held.gpu):
        stages["prompt"] = held.gpu + nets.text
    base = max(0, psutil.Process().memory_info().rss - held.host) + 2 * video + (video if placement.tile else 0)
    step, clip = _seconds_of(nets, replace(work, branches=branches), placement, cost, vae, machine.rates)
    most = max(stages.values())
    if cuda:
        host = base + (0 if resident else own) + (nets.blocks if placement.blocks == "streamed" else 0)
    else:
        host = base + most
    return Plan(machine.name, nets.weights, placement, room, most if cuda else 0, host, stages, step, clip)


def _copies(nets: Networks, loras: LoraSizes, eight: bool) -> tuple[int, int, int]:
    """Bytes of the LoRA views' own copies: of blocks' tensors; by which the largest block grows with them; of others. `eight`:
    quantised layers multiply matrices of eight bits, and so do their copies; else those are of the network's type."""
    size = 1 if nets.quantized and eight else nets.dtype.itemsize
    grown = (size - 1) * loras.block if nets.quantized else 0
    return size * loras.blocks, grown, nets.dtype.itemsize * loras.others


def _seconds_of(
    nets: Networks, work: Work, placement: Placement, cost: TransformerCost, vae: VaeCost, rates: Rates
) -> tuple[float, float]:
    """Seconds of a step of the longest segment, and of all segments; as if LoRAs acted in every step."""
    copying = 0.0 if placement.blocks == "resident" else nets.blocks / rates.copies
    beside = 2 * work.tokens * work.loras.values / placement.spread.gpus

    def step(length: int) -> float:
        share = ((length + 3) // 4 + 1) / ((work.length + 3) // 4 + 1)
        computing = share * (cost.products / rates.products + cost.traffic / rates.memory + beside / rates.singles)
        computing += share**2 * cost.attention / rates.attention
        return work.branches * max(computing, copying)

    frames = sum(s.latent_frames for s in work.segments)
    coding = frames * (2 * vae.encode_flops + vae.decode_flops) / rates.convolutions / placement.spread.gpus
    return step(work.length), work.steps * sum(step(s.length) for s in work.segments) + coding


def vae_chunk(size: tuple[int, int], device: torch.device) -> int:
    """Latent frames that the VAE takes at once; on a CPU, pieces that fit its cache are fastest."""
    return 1 if device.type == "cpu" else max(1, PIXELS_AT_ONCE // (size[0] * size[1]))


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
