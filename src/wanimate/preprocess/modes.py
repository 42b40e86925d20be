"""What the two modes do differently: the pictures of a job frame, the reference picture, and warnings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from typing import Any, Protocol

import cv2
import numpy as np

from wanimate.config import PreprocessSettings
from wanimate.media.image import MIN_SIDE
from wanimate.media.resize import AREA, cover, published_resize
from wanimate.media.video import iter_indices
from wanimate.preprocess import report
from wanimate.preprocess.detect.base import Measured
from wanimate.preprocess.fit import Drawing, face_crops, on_character, own_proportions
from wanimate.preprocess.layout import Layout, Size
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.preprocess.masks.explain import MaskSheet
from wanimate.preprocess.masks.shape import MaskShape, as_picture, scene, shape_mask
from wanimate.preprocess.performer import Performer
from wanimate.preprocess.pose import retarget
from wanimate.preprocess.pose.keypoints import runs
from wanimate.preprocess.shot.analysis import ShotWatch
from wanimate.types import Frame, Keypoints

DIFFERENT = 1.4
"""Proportions that differ by this factor make a character stretched to the performer's bones look wrong."""
_GROWTH, _ROUNDS = 0.03, 3
"""An outline grows by this part of the short side unless told otherwise, in at most so many rounds (dev/LOG.md, 2026-11-27)."""


class ModeWork(Protocol):
    """One job's work that depends on the mode."""

    @property
    def character(self) -> Frame | None:
        """The picture in which the character is detected; None where nobody needs it."""
        ...

    nobody: str
    """The warning where that picture shows nobody."""

    def doubts(self, performer: Performer, character: Keypoints | None) -> list[str]:
        """Warnings before the drawing. `character`: points [133, 3] in pixels of the picture, None where nobody is."""
        ...

    def drawing(self, performer: Performer, measured: Measured | None) -> Drawing:
        """The skeletons of all frames. `measured`: the character's proportions, None where nobody is."""
        ...

    def pictures(self, performer: Performer, drawing: Drawing, watch: ShotWatch | None) -> Iterator[tuple[Frame, ...]]:
        """For each job frame the pictures that `GuidesWriter.write` takes. The clip is read along, and shown to `watch`."""
        ...

    def closing(self, performer: Performer) -> tuple[list[str], dict[str, Any]]:
        """Warnings and facts for the manifest that only `pictures` could tell."""
        ...

    def reference(self) -> Frame:
        """The character's picture as the guides hold it."""
        ...


class Animation:
    """The character moves in its own picture, whose aspect decides the output size."""

    nobody = "no person was found in the character image: the performer's own proportions are kept"

    def __init__(self, layout: Layout, image: Frame, settings: PreprocessSettings) -> None:
        self._layout, self._image, self._settings = layout, image, settings
        # Filled with a small centre crop, or letterboxed as published.
        self._fitted = published_resize(image, layout.area) if settings.compat else cover(image, *layout.size)

    @property
    def character(self) -> Frame | None:
        return None if self._settings.retarget == "off" else self._fitted

    def doubts(self, performer: Performer, character: Keypoints | None) -> list[str]:
        message = report.missing(performer.valid)
        return [] if message is None else [message]

    def drawing(self, performer: Performer, measured: Measured | None) -> Drawing:
        return on_character(performer, self._layout, measured, self._settings)

    def pictures(self, performer: Performer, drawing: Drawing, watch: ShotWatch | None) -> Iterator[tuple[Frame, ...]]:
        layout = self._layout
        frames = map(layout.seen_frame, iter_indices(layout.clip, layout.indices))
        shown = frames if watch is None else watch.seeing(frames, performer.keypoints, performer.valid)
        for i, face in enumerate(face_crops(shown, performer, layout, self._settings)):
            yield drawing.skeleton(i, layout.size), face

    def closing(self, performer: Performer) -> tuple[list[str], dict[str, Any]]:
        return [], {}

    def reference(self) -> Frame:
        return self._image if self._settings.compat else self._fitted


class Replacement:
    """The character takes the performer's place in the clip, which decides the output size (sections 3.1 and 12).

    Skeleton, scene and inpaint mask lie on a frame of output size where they lie in the clip.
    """

    nobody = "no person was found in the character image: it may not fit the performer's pose"

    def __init__(
        self,
        layout: Layout,
        image: Frame,
        settings: PreprocessSettings,
        masks: MaskBackend,
        sheet: MaskSheet | None = None,
    ) -> None:
        """`sheet`: is shown every mask, and written at the end."""
        self._layout, self._image, self._settings, self._masks, self._sheet = layout, image, settings, masks, sheet
        self._shape = mask_shape(settings, layout.size)
        self._empty, self._covered = np.zeros(layout.count, dtype=bool), 0.0

    @property
    def character(self) -> Frame | None:
        return self._image

    def doubts(self, performer: Performer, character: Keypoints | None) -> list[str]:
        texts = []
        if character is not None:
            height, width = self._image.shape[:2]
            factor = retarget.mismatch(
                performer.keypoints, performer.valid, self._layout.seen, character, (width, height)
            )
            if factor >= DIFFERENT:
                texts.append(
                    f"the proportions of character and performer differ by a factor of {factor:.1f}: the character is "
                    "drawn with the performer's"
                )
        if (message := report.missing(performer.valid)) is not None:
            texts.append(f"{message}; these keep the clip's own picture")
        return texts

    def drawing(self, performer: Performer, measured: Measured | None) -> Drawing:
        placed = self._layout.output_points(performer.steady)
        return own_proportions(placed, self._layout.size, self._settings.compat)

    def pictures(self, performer: Performer, drawing: Drawing, watch: ShotWatch | None) -> Iterator[tuple[Frame, ...]]:
        layout, valid = self._layout, performer.valid
        originals, again = tee(map(layout.seen_frame, iter_indices(layout.clip, layout.indices)))
        faces = face_crops(originals, performer, layout, self._settings)
        placed = layout.output_points(performer.steady)
        masked = self._masks.follow(map(layout.output_frame, again), placed, valid, performer.cuts)
        for i, (face, (frame, outline)) in enumerate(zip(faces, masked, strict=True)):
            inpaint = shape_mask(outline, self._shape)
            self._empty[i] = not inpaint.any()
            self._covered += float(inpaint.mean())
            if watch is not None:
                watch.see(i, frame, placed[i] if valid[i] else None, outline)
            if self._sheet is not None:
                self._sheet.add(i, frame, outline, inpaint)
            pose = drawing.skeleton(i, layout.size) if valid[i] else np.zeros_like(frame)
            yield pose, face, scene(frame, inpaint), as_picture(inpaint)

    def closing(self, performer: Performer) -> tuple[list[str], dict[str, Any]]:
        if self._sheet is not None:
            self._sheet.write(float(self._layout.fps))
        message = report.empty_masks(self._empty & performer.valid)
        given = self._settings.mask
        facts = {
            "backend": self._masks.name, "given": None if given is None else str(given), "shape": vars(self._shape),
            "empty": runs(self._empty), "mean_share": self._covered / self._layout.count,
        }  # fmt: skip
        return [] if message is None else [message], {"mask": facts}

    def reference(self) -> Frame:
        return self._image if self._settings.compat else small(self._image, self._layout.size)


def mask_shape(settings: PreprocessSettings, size: Size) -> MaskShape:
    """The inpaint mask's shape in frames of (width, height) `size`: the outline, a grid, or with `compat` the published box.

    Unless told otherwise, small frames get fewer rounds than the published three: a scene is worth more than a wide margin.
    """
    rounds = settings.iterations
    if rounds is None:
        fitting = round(_GROWTH * min(size) / max(settings.k // 2, 1))
        rounds = _ROUNDS if settings.compat else min(max(fitting, 1), _ROUNDS)
    if settings.compat:
        return MaskShape(rounds, settings.k, settings.w_len or 1, settings.h_len or 1)
    return MaskShape(rounds, settings.k, settings.w_len, settings.h_len)


def small(image: Frame, size: Size) -> Frame:
    """The picture, scaled down to fit into (width, height) `size` where it is larger; averaged, so that nothing aliases.

    Its short side stays at least as long as a picture's has to be, so that the guides can be read.
    """
    height, width = image.shape[:2]
    scale = max(min(size[0] / width, size[1] / height), MIN_SIDE / min(width, height))
    if scale >= 1:
        return image
    new = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(image, new, interpolation=AREA), dtype=np.uint8)
