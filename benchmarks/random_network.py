"""Conditions of random numbers at any size, and a report that survives being cut short; for benchmarks."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wanimate.model.params import TransformerParams
from wanimate.runtime.sparse import control
from wanimate.runtime.sparse.choice import DENSE
from wanimate.sampling.cache import StepCache
from wanimate.types import Conditions

SEEN_SKIPS = "FFF...F....F...F.F.F"
"""Full and skipped steps (dots) of `turbo` on the embedded checkpoint with the 14B's 20 steps and shift of 5 (`dev/LOG.md`)."""
WORDS = 32
"""Tokens of a prompt of some sentences; rows of zeros follow up to the text length, in every implementation."""


@dataclass
class Report:
    """Tables of a Markdown file, rewritten after every row."""

    path: Path
    title: str
    head: list[str]
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def add(self, table: str, columns: list[str], row: list[object]) -> None:
        self.tables.setdefault(table, [columns]).append([f"{x:.3f}" if isinstance(x, float) else str(x) for x in row])
        print(f"{table}: {dict(zip(columns, row, strict=True))}", flush=True)
        lines = [f"# {self.title}", "", *self.head]
        for title, (names, *rows) in self.tables.items():
            lines += ["", f"## {title}", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
            lines += [f"| {' | '.join(cells)} |" for cells in rows]
        self.path.write_text("\n".join(lines) + "\n")


def fresh() -> None:
    """Give back what the GPU's memory holds for nobody, and count its peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def random_conditions(
    params: TransformerParams, size: tuple[int, int], frames: int, device: torch.device
) -> tuple[Conditions, Tensor]:
    """Random conditions of a segment and its noise, the same whoever calls; prompts of `WORDS` tokens."""
    (width, height), latent, side = size, (frames + 3) // 4, params.motion.size
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    shape = height // 8, width // 8
    text, image = (min(WORDS, params.text_length), params.text_width), (257, params.image_width or 0)
    given = Conditions(
        randn(20, latent + 1, *shape), randn(16, latent, *shape), randn(3, frames, side, side).clamp(-1, 1),
        randn(*text), randn(*text), randn(*image),
    )  # fmt: skip
    return given, randn(16, latent + 1, *shape)


def skip_like(pattern: str) -> None:
    """From here on step caches skip the steps that are dots in `pattern`, whatever their gates find: random weights foretell
    nothing. What a gate costs is spent all the same."""

    def share(cache: StepCache, parts: Tensor) -> float:
        cache._total(parts).tolist()
        return 0.0 if pattern[cache.step] == "." else float("inf")

    StepCache.share = share  # type: ignore[method-assign]


@contextmanager
def visiting(density: float | None) -> Iterator[None]:
    """Sparse attention takes so many blocks of each head, whatever it finds, and computes no head again: random heads are not
    sparse. What finding and measuring cost is spent all the same. None: as it finds."""
    found = {name: getattr(control, name) for name in ("ranked", "level_errors", "_relative")}

    def so_many(mass: Tensor, always: Tensor) -> tuple[Tensor, Tensor]:
        assert density is not None
        rank, counts = found["ranked"](mass, always)
        counts[..., :DENSE] = max(int(always.sum(-1).max()), round(density * mass.shape[-1]))
        return rank, counts

    def none_of(name: str) -> Any:
        return lambda *given: torch.zeros_like(found[name](*given))

    changed = {"ranked": so_many, "level_errors": none_of("level_errors"), "_relative": none_of("_relative")}
    try:
        for name, change in (changed if density is not None else {}).items():
            setattr(control, name, change)
        yield
    finally:
        for name, own in found.items():
            setattr(control, name, own)
