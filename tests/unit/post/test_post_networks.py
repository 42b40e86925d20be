"""The networks beside the programs that they were published for, and the reader of their files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from post_pictures import picture

from golden import read_npz
from wanimate.post import models
from wanimate.post.interpolate.network import Rife
from wanimate.post.upscale.ncnn import read_layers
from wanimate.post.upscale.networks import Span, Srvgg

VALUES = read_npz("post/networks.npz")


@pytest.mark.parametrize(("name", "kind", "key"), [(models.SPAN, Span, "span"), (models.DRAWN, Srvgg, "drawn")])
def test_enlarging_networks_are_those_of_ncnn(name: str, kind: type[Span] | type[Srvgg], key: str) -> None:
    network = kind.of(read_layers(models.read(f"{name}.param"), models.read(f"{name}.bin"))).eval()
    with torch.inference_mode():
        made = network(torch.from_numpy(picture(40, 32))[None])[0].numpy()
    assert np.abs(made[:, :24, :24] - VALUES[f"{key}_corner"]).max() < 1e-5
    assert np.abs(made[:, 52:76, 68:92] - VALUES[f"{key}_middle"]).max() < 1e-5
    assert np.abs(made.mean((1, 2)) - VALUES[f"{key}_mean"]).max() < 1e-5


def test_rife_is_the_published_one() -> None:
    network = Rife.of(models.read(models.RIFE)).eval()
    a, b = (torch.from_numpy(picture(128, 64, shift))[None] for shift in (0, 3))
    for share, key in ((0.5, "rife_half"), (0.2, "rife_fifth")):
        with torch.inference_mode():
            made = network(a, b, share)[0]
        assert np.abs(made[:, 20:44, 40:72].numpy() - VALUES[key]).max() < 1e-5
        assert np.abs(made.mean((1, 2)).numpy() - VALUES[f"{key}_mean"]).max() < 1e-5


PARAM = """7767517
4 4
Input in 0 1 a
MemoryData m 0 1 b 0=1 1=1 2=3
Convolution c 1 1 a d 0=1 1=1 4=0 5=1 6=3
PReLU p 1 1 d e 0=2
"""
MEMORY, HALVES, BIAS, SLOPES = [1.0, 2.0, 3.0], [0.5, -0.25, 4.0], [7.0], [0.1, 0.2]


def ncnn_file(tag: int = 0x01306B47) -> bytes:
    weights = struct.pack("<3e2x", *HALVES) if tag else struct.pack("<3f", *HALVES)
    return struct.pack("<3fI", *MEMORY, tag) + weights + struct.pack("<f2f", *BIAS, *SLOPES)


@pytest.mark.parametrize("tag", [0x01306B47, 0])
def test_ncnn_files_are_read(tag: int) -> None:
    layers = read_layers(PARAM.encode(), ncnn_file(tag))
    assert [layer.kind for layer in layers] == ["Input", "MemoryData", "Convolution", "PReLU"]
    assert [[tensor.flatten().tolist() for tensor in layer.tensors] for layer in layers] == [
        [], [MEMORY], [HALVES, BIAS], [pytest.approx(SLOPES)],
    ]  # fmt: skip
    assert layers[2].tensors[0].shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("param", "data", "rule"),
    [
        (PARAM, ncnn_file() + b"\0\0\0\0", "4 bytes are left over"),
        (PARAM, ncnn_file()[:-1], "ends too early"),
        (PARAM, ncnn_file()[:12] + b"\1\2\3\4" + ncnn_file()[16:], "unknown type 0x4030201"),
        ("7767516\n" + PARAM[8:], ncnn_file(), "not an ncnn network"),
        (PARAM + "PReLU q 1 1 e f 0=2\n", ncnn_file(), "not as many layers"),
    ],
)
def test_other_ncnn_files_are_refused(param: str, data: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_layers(param.encode(), data)


def test_networks_refuse_each_others_files() -> None:
    span, drawn = (read_layers(models.read(f"{n}.param"), models.read(f"{n}.bin")) for n in (models.SPAN, models.DRAWN))
    with pytest.raises(ValueError, match="not a SPAN network"):
        Span.of(drawn)
    with pytest.raises(ValueError, match="not an SRVGG network"):
        Srvgg.of(span)
    with pytest.raises(ValueError, match="other shapes"):
        Span.of(layer for i, layer in enumerate(span) if i != 6)
