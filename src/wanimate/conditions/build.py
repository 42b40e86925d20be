"""From guides to what a segment's network calls need. Everything constant over the job is computed once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wanimate.conditions.latents import (
    LatentCodec,
    assemble,
    known_mask,
    latent_colours,
    pack_mask,
    resize_faces,
    to_network,
)
from wanimate.conditions.places import Places, places_of
from wanimate.conditions.read import GuidesReader, SegmentFrames
from wanimate.conditions.reference import ImageEncoder, letterboxed
from wanimate.types import Conditions, Frames, Guides, Segment


class ConditionBuilder:
    """Builds each segment's `Conditions`.

    text, negative: prompt embeddings [tokens, width]; `negative` is None without guidance. `face_size` None leaves the
    faces as the guides have them. `chunk` is how many latent frames the codec encodes at once. `guides` may be
    their reader, which reads ahead already.

    colours: latents [16, T, h, w] and the mean colours behind them [3, T, h, w], of the character's picture and in replacement
    of the first segment's scene: what a preview is fitted to.

    anchored: remember where the person of a segment is (`places`), and give the frames that two segments share the clip's
    own pixels around the inpaint mask. Published: off.
    """

    def __init__(
        self,
        guides: Guides | GuidesReader,
        codec: LatentCodec,
        image_encoder: ImageEncoder | None,
        text: Tensor,
        negative: Tensor | None,
        *,
        face_size: int | None = None,
        device: torch.device | str = "cpu",
        chunk: int = 1,
        anchored: bool = False,
    ) -> None:
        self.reader = guides if isinstance(guides, GuidesReader) else GuidesReader(guides)
        self.guides, self.codec = self.reader.guides, codec
        self.text, self.negative = text.to(device), None if negative is None else negative.to(device)
        self.face_size, self.device, self.chunk = face_size, torch.device(device), chunk
        picture = letterboxed(self.guides.reference, self.guides.size).to(self.device)
        self.image_tokens = None if image_encoder is None else image_encoder.encode(picture[:, 0])
        (self.reference,) = self._encode(iter((picture,)))
        self.colours = [(self.reference, latent_colours(picture))]
        self.anchored = anchored
        self._places: tuple[Segment, Places] | None = None

    @torch.inference_mode()
    def build(self, segment: Segment, previous: Tensor | None) -> Conditions:
        """`previous`: the last `segment.overlap` output frames [3, r, H, W] in [-1, 1]; None for the first segment."""
        known = segment.overlap
        assert (previous is None) == (known == 0)
        read = self.reader.read(segment)

        wants_colours = read.background is not None and len(self.colours) == 1
        seen: list[Tensor] = []

        def videos() -> Iterator[Tensor]:
            skeletons = self._video(read.pose)
            if self.anchored:
                self._places = segment, places_of(skeletons, read.mask)
            yield skeletons
            video = self._scene(read, previous)
            if wants_colours:
                seen.append(latent_colours(video))
            yield video

        pose, scene = self._encode(videos())
        self.colours += [(scene, colours) for colours in seen]
        faces = self._video(read.face)
        if self.face_size is not None:
            faces = resize_faces(faces, self.face_size)
        person = None if read.mask is None else torch.from_numpy(read.mask[..., 0]).float() / 255
        mask = pack_mask(known_mask(segment.length, known, (pose.shape[2], pose.shape[3]), person))
        y = assemble(mask.to(self.device), scene, self.reference)
        return Conditions(y, pose, faces, self.text, self.negative, self.image_tokens)

    @torch.inference_mode()
    def places(self, segment: Segment) -> Places:
        """Where the person of a segment is; the guides are read again unless it was built last."""
        if self._places is None or self._places[0] != segment:
            read = self.reader.read(segment)
            self._places = segment, places_of(self._video(read.pose), read.mask)
        return self._places[1]

    def _scene(self, read: SegmentFrames, previous: Tensor | None) -> Tensor:
        """The condition video (model spec, section 3.3): the scene or mid grey, after the frames already made."""
        if read.background is not None:
            video = self._video(read.background)
        else:
            width, height = self.guides.size
            video = torch.zeros(3, len(read.pose), height, width, device=self.device)
        if previous is not None:
            shared = video[:, : previous.shape[1]]
            previous = previous.to(self.device)
            if self.anchored and read.mask is not None:
                hole = torch.from_numpy(read.mask[: previous.shape[1], ..., 0]).to(self.device) > 127
                previous = torch.where(hole, previous, shared)
            shared[:] = previous
        return video

    def _video(self, frames: Frames) -> Tensor:
        return to_network(frames, self.device)

    @torch.inference_mode()
    def _encode(self, videos: Iterator[Tensor]) -> list[Tensor]:
        return [latents[0].float() for latents in self.codec.encode_each((v[None] for v in videos), self.chunk)]
