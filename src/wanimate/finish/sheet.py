"""The contact sheet of a result: driver, skeleton, face and output at sampled times."""

from __future__ import annotations

from wanimate.media.sheet import contact_sheet
from wanimate.media.video import iter_indices
from wanimate.types import Clip, Frame, Guides


def sheet_of(guides: Guides, clip: Clip | None, columns: list[int], shown: dict[int, Frame], title: str) -> Frame:
    """Driver, skeleton, face and output at the same moments."""
    rows: list[tuple[str, list[Frame]]] = []
    frames = guides.manifest.get("source", {}).get("frames")
    if clip is not None and frames:
        rows.append(("driver", list(iter_indices(clip, [frames[i] for i in columns]))))
    rows.append(("skeleton", list(guides.pose.take(columns))))
    rows.append(("face", list(guides.face.take(columns))))
    if guides.background is not None:
        rows.append(("scene", list(guides.background.take(columns))))
    rows.append(("output", [shown[i] for i in columns]))
    times = [float(i / guides.fps) for i in columns]
    return contact_sheet(rows, times, title)
