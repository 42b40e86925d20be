"""Forecasts of GPUs that are not at hand: right where they can be held against a measurement, and within what people have."""

from __future__ import annotations

import pytest

from wanimate.config import RuntimeSettings, Speed
from wanimate.errors import InputError
from wanimate.runtime.planning import cards
from wanimate.runtime.planning.cards import CARDS, PRODUCTS, SIZES, _row, card_named, datasheet
from wanimate.runtime.planning.plan import SPARE, WORKSPACE
from wanimate.runtime.planning.sizes import GIB, TURBO_ERROR

MEASURED: dict[tuple[str, Speed], float] = {("720p", "exact"): 9.954, ("720p", "fast"): 6.317, ("480p", "fast"): 1.662}
"""Seconds a step on one H200 (benchmarks/results/speed_h200_2026-11-29.md)."""


def test_a_card_is_found_by_the_names_that_people_use() -> None:
    assert [card_named(name).name for name in ("4090", "rtx-4090", "RTX 4090", "a10g", "h200")] == [
        "RTX 4090", "RTX 4090", "RTX 4090", "A10G", "H200",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"Give one of A10G, RTX 3090, RTX 4090, RTX 5090, H100, H200"):
        card_named("4099")


def test_datasheets_say_where_they_are_from_and_what_is_not_sure() -> None:
    for card in CARDS:
        found = datasheet(card)
        assert card.source in found["source"]
        assert "forecast" in found["note"]
        assert ("not sure" in found) == bool(card.unsure)
    assert "nothing was measured on this card" in datasheet(card_named("4090"))["note"]
    assert "nothing was measured" not in datasheet(card_named("H200"))["note"]


def test_rates_are_those_of_the_kernels_that_a_card_has() -> None:
    ampere, ada, hopper = (card_named(name) for name in ("3090", "4090", "H200"))
    few = card_named("A10G")  # float16 sums are no quicker there, so that bfloat16 may be as good
    assert few.rates("fast").attention >= few.rates("exact").attention
    for card in (ampere, ada):  # keys in int8, values in float16
        assert card.rates("fast").products > 1.5 * card.rates("exact").products
        assert card.rates("fast").attention > 1.4 * card.rates("exact").attention
        assert card.rates("fast").attention < card.fp16 * 1e12
    assert ada.rates("fast").products == (ada.fp8 or 0) * PRODUCTS["fp8"] * 1e12
    assert hopper.rates("fast").attention > 1.4 * hopper.rates("exact").attention


def test_turbo_is_forecast_with_the_memory_of_leaving_attention_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned as a job is; that the seconds do not count it is said."""

    class Seen(Exception):
        pass

    def planned(nets: object, work: object, settings: RuntimeSettings, machine: object) -> None:
        raise Seen(settings.attention_error)

    monkeypatch.setattr(cards, "make_plan", planned)
    monkeypatch.setattr(cards, "published_networks", lambda weights: None)
    errors: dict[Speed, float] = {"exact": 0.0, "fast": 0.0, "turbo": TURBO_ERROR}
    for speed, error in errors.items():
        with pytest.raises(Seen) as seen:
            _row(card_named("4090"), SIZES["720p"], speed)
        assert seen.value.args == (error,)
    assert "with all of attention" in datasheet(card_named("4090"))["turbo"]


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.slow) for what in MEASURED])
def test_the_forecast_of_the_card_that_was_measured_is_what_was_measured(what: tuple[str, Speed]) -> None:
    size, speed = what
    found = _row(card_named("H200"), SIZES[size], speed)
    assert found["seconds a step"] == pytest.approx(MEASURED[what], rel=0.05)
    assert found["placement"].startswith("blocks resident")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A10G", "RTX 3090", "RTX 4090"])
@pytest.mark.parametrize("speed", ["fast", "turbo"])
def test_cards_of_24_gib_hold_720p_in_eight_bits(name: str, speed: Speed) -> None:
    """Within 22.5 GiB of the card, what the allocator needs included, and within 32 GiB of the host."""
    card = card_named(name)
    assert card.room == 22.5 * GIB
    found = _row(card, SIZES["720p"], speed)
    assert found["weights"] == ("int8" if card.fp8 is None else "fp8")
    assert SPARE * found["GPU GiB"] * GIB + WORKSPACE <= 22.5 * GIB
    assert found["host GiB"] <= 32


@pytest.mark.slow
def test_what_does_not_fit_is_said() -> None:
    """In bfloat16 the blocks alone take 32 GiB of the host."""
    from dataclasses import replace

    small = replace(card_named("RTX 3090"), memory=6)
    found = _row(small, SIZES["720p"], "exact")
    assert found["seconds a step"] is None
    assert "the job needs at least" in found["placement"]
