"""A text that is filled up: one embedded row of zeros stands for all."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from golden import fill
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer

PARAMS = TransformerParams(
    dim=32, ffn_dim=48, num_heads=2, num_layers=2, time_width=32, text_width=8, text_length=12, image_width=16, face_width=16,
    face_slots=2, face_every=2, motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip


@torch.no_grad()
def test_rows_that_fill_up_a_text_are_kept_once() -> None:
    model = fill(AnimateTransformer(PARAMS)).eval()
    x, y, pose = torch.randn(1, 16, 3, 4, 6), torch.randn(1, 20, 3, 4, 6), torch.randn(1, 16, 2, 4, 6)
    face, image, text = torch.randn(1, 3, 5, 8, 8), torch.randn(1, 5, 16), torch.randn(1, 4, 8)
    t = torch.tensor([300])
    whole = model.prepare(F.pad(text, (0, 0, 0, 8)), image, face, pose)
    short = model.prepare(text, image, face, pose)
    assert [kv.alike for kv in whole.cross] == [1, 1]
    assert [(kv.alike, kv.k.shape[1]) for kv in short.cross] == [(8, 5), (8, 5)]
    for a, b in zip(whole.cross, short.cross, strict=True):
        for wanted, found in zip(a.text(), b.text(), strict=True):
            torch.testing.assert_close(found, wanted)
    wanted = model(x, t, y, whole)
    torch.testing.assert_close(model(x, t, y, short), wanted)
    once = replace(short, cross=tuple(kv._replace(alike=1) for kv in short.cross))
    assert (model(x, t, y, once) - wanted).abs().max() > 1e-3  # it does count how many there are
