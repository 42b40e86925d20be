"""What to do about a shot's light before a job: relight, grade by hand, or split the clip, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Action = Literal["relight", "grade", "split"]

DRIFT, WARMTH = 0.25, 0.1
"""Stops, and the share of its colour temperature, by which the light of a shot changes at most where it counts as steady."""
CLIPPED_WHITE, CLIPPED_BLACK = 0.02, 0.2
"""Shares of pixels that may be clipped."""
_LISTED = 5


class Advice(BaseModel):
    """`action`: relight (the relighting LoRA fits), grade (match the character by hand, without it), or split (cut the clip
    into its shots first)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: Action
    reasons: list[str]

    @property
    def text(self) -> str:
        """As a job tells it."""
        return f"{_WORDS[self.action]}: {'; '.join(self.reasons)}"


_WORDS: dict[Action, str] = {
    "relight": "the relighting LoRA fits this light", "grade": "grade this by hand, without the relighting LoRA",
    "split": "split the clip into its shots first",
}  # fmt: skip


def advice_of_shot(values: Mapping[str, Any]) -> Advice:
    """What to do about one shot.

    Args:
        values: by field; None where nothing is known.
    """

    def known(field: str) -> float:
        found = values.get(field)
        return float(found) if isinstance(found, (int, float)) else 0.0

    reasons = []
    if known("drift") > DRIFT:
        reasons.append(f"the light changes by {known('drift'):.1f} stops within the shot")
    if (kelvin := known("temperature")) and known("temperatureDrift") > WARMTH * kelvin:
        reasons.append(f"its colour changes by {known('temperatureDrift'):.0f} K within the shot")
    if values.get("mixed") is True:
        reasons.append("light of different colours mixes")
    if known("white") > CLIPPED_WHITE:
        reasons.append(f"{100 * known('white'):.0f} % of the picture is clipped white")
    if known("black") > CLIPPED_BLACK:
        reasons.append(f"{100 * known('black'):.0f} % of the picture is clipped black")
    if reasons:
        return Advice(action="grade", reasons=reasons)
    if values.get("drift") is None:
        return Advice(
            action="relight", reasons=["nothing says that the light changes, but too little of it could be followed"]
        )
    return Advice(action="relight", reasons=[f"the light is steady ({known('drift'):.2f} stops) and hardly clipped"])


def advice_of_clip(cuts: Sequence[int], shots: Sequence[Advice]) -> Advice:
    """What to do about a clip of one shot or several."""
    if not cuts:
        return shots[0]
    more = f" and {len(cuts) - _LISTED} more" if len(cuts) > _LISTED else ""
    where = ", ".join(str(cut) for cut in cuts[:_LISTED]) + more
    reasons = [f"it is cut at frame{'s' if len(cuts) > 1 else ''} {where}, and each shot has its own light"]
    if graded := [str(i) for i, one in enumerate(shots, start=1) if one.action == "grade"]:
        reasons.append(f"grade shot{'s' if len(graded) > 1 else ''} {', '.join(graded)} by hand")
    return Advice(action="split", reasons=reasons)
