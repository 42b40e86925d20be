"""What the user is told about a job's guides: doubts in words, and the facts of the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.errors import setting, spell
from wanimate.media.files import sha256
from wanimate.preprocess.fit import Drawing
from wanimate.preprocess.layout import Layout
from wanimate.preprocess.people.choice import HEAD_AND_SHOULDERS, LIST_PEOPLE, parse_choice
from wanimate.preprocess.performer import Performer, is_smoothed
from wanimate.preprocess.pose.face import made_out
from wanimate.preprocess.pose.keypoints import runs
from wanimate.types import Frame, Keypoints
from wanimate.versions import version_of

_SURE = 0.5
_LISTED = 10
"""A message names at most so many frames or stretches."""

Flags = npt.NDArray[np.bool_]


def doubts(keypoints: Keypoints, valid: Flags, found: Sequence[str]) -> list[str]:
    """Where the tracked person may be another, or was hardly seen.

    Args:
        keypoints, valid, found: as of `Performer`.
    """
    texts = []
    if others := [i for i, how in enumerate(found) if how == "other"]:
        texts.append(
            f"the tracked person may be somebody else from frame {_listed(others)} on; "
            f"{setting('preprocess.person')} chooses one"
        )
    if again := [i for i, how in enumerate(found) if how == "again"]:
        where = _listed(again)
        texts.append(f"the chosen person was lost and found again elsewhere, by their clothes, in frame {where}")
    unsure = np.array([how == "unsure" for how in found])
    if unsure.any():
        texts.append(
            f"somebody who looks like the chosen person is close to them in {_spans(unsure)}; the two may be mixed up "
            "from there on"
        )
    hardly = valid & (keypoints[:, HEAD_AND_SHOULDERS, 2].mean(axis=1) < _SURE)
    if hardly.any():
        texts.append(f"head and shoulders were seen with low confidence in {_spans(hardly)}")
    return texts


def told(performer: Performer, settings: PreprocessSettings) -> list[str]:
    """What the user should know of a job's performer: doubts, cuts, others in the picture, faces that were not found."""
    texts = doubts(performer.keypoints, performer.valid, performer.found)
    if performer.cuts:
        where = f"frame{'s' if len(performer.cuts) > 1 else ''} {_listed(performer.cuts)}"
        texts.append(f"the clip is cut at {where}: the performer is looked for afresh there, by their clothes")
    most = max(performer.others, default=0)
    if most and parse_choice(settings.person).is_anybody:
        first = next(i for i, others in enumerate(performer.others) if others)
        who = "another person is" if most == 1 else f"up to {most} other people are"
        texts.append(
            f"{who} in the picture (first seen in frame {first}); the largest one was followed, and "
            f"{setting('preprocess.person')} chooses another. {LIST_PEOPLE}"
        )
    return texts if settings.compat else texts + faces(performer)


def faces(performer: Performer) -> list[str]:
    """Where the face was not found although the person was."""
    alone = performer.valid & ~made_out(performer.keypoints)
    black = performer.valid & ~np.isfinite(performer.squares[:, 0])
    texts = []
    if (led := alone & ~black).any():
        texts.append(f"the face was not made out in {_spans(led)}; the face crop follows the head there")
    if black.any():
        texts.append(f"the face is turned away or hidden in {_spans(black)}; the face crop is black there")
    return texts


def missing(valid: Flags) -> str | None:
    """Which frames show nobody; None where all show somebody."""
    return None if valid.all() else f"no person was found in {_spans(~valid)}"


def empty_masks(empty: Flags) -> str | None:
    """Which frames with a person [n] have no pixel of them; None where there are none."""
    if not empty.any():
        return None
    return f"no pixel of the performer was found in {_spans(empty)}; these keep the clip's own picture"


def _listed(frames: Sequence[int]) -> str:
    """ "2, 6, 7"; of many "2, 6, ... and 5 more" """
    more = f" and {len(frames) - _LISTED} more" if len(frames) > _LISTED else ""
    return ", ".join(str(i) for i in frames[:_LISTED]) + more


def _spans(flags: Flags) -> str:
    """ "3 of 12 frames (2, 6-7)" """
    spans = runs(flags)
    ranges = ", ".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in spans[:_LISTED])
    more = f" and {len(spans) - _LISTED} more stretches" if len(spans) > _LISTED else ""
    return f"{int(flags.sum())} of {len(flags)} frames ({ranges}{more})"


def arrays(performer: Performer, drawing: Drawing) -> dict[str, npt.NDArray[Any]]:
    """The points as detected and as drawn, float32, for keypoints.npz."""
    parts = drawing.parts
    named = {
        "source": performer.keypoints,
        "body": parts.body,
        "left_hand": parts.left_hand,
        "right_hand": parts.right_hand,
        "face_squares": performer.squares,
    }
    return {name: a.astype(np.float32) for name, a in named.items()}


def manifest(layout: Layout, image: Frame, settings: PreprocessSettings) -> dict[str, Any]:
    """What the guides are made of: the clip, the picture, the settings and the versions."""
    clip = layout.clip
    return {
        "source": {
            "path": str(clip.path.resolve()),
            "sha256": sha256(clip.path),
            "size": [clip.width, clip.height],
            "fps": str(clip.fps),
            "frames": list(layout.indices),
            "times": [round(clip.times[i], 6) for i in layout.indices],
        },
        "image": {"sha256_of_pixels": _pixels_hash(image), "size": list(image.shape[1::-1])},
        "settings": settings.model_dump(mode="json"),
        "area": layout.area,
        "handles": list(layout.handles),
        "smooth": is_smoothed(settings),
        "compat": settings.compat,
        "versions": {
            "wanimate": version_of("wanimate"),
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }


def _pixels_hash(image: Frame) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).reshape(-1).data).hexdigest()


def findings(people: str, performer: Performer, drawing: Drawing, warnings: Sequence[str]) -> dict[str, Any]:
    """What was found: by which detector, where nobody is, how the skeleton was fitted, and every warning given."""
    return {
        "backend": people,
        "no_person": runs(~performer.valid),
        "no_face": runs(performer.valid & ~np.isfinite(performer.squares[:, 0])),
        "cuts": list(performer.cuts),
        "others": max(performer.others, default=0),
        "retarget": drawing.retarget,
        "warnings": [spell(text) for text in warnings],
    }
