"""What is attacked: for each kind, sound files, and what a job does with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

import cv2
import numpy as np
import torch
from make_clips import make_clip, set_matrix
from make_heic import make_heic
from make_patches import Said, make_patches
from mutations import edited_json
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from test_media_interlace import make_interlaced
from test_media_profiles import cmyk_profile, rgb_profile
from test_media_streams import Made, make_streams
from test_weights_layouts import write_gguf
from test_weights_lycoris import loha, lokr
from test_weights_places import comfy, sentencepiece_model
from test_weights_quantised import block_fp8, convrot, marker, quanto
from tiny_checkpoints import OWN, PUBLISHED, own_checkpoint, published_checkpoint, transformer_tensors, write_guides
from tiny_onnx import answering
from tiny_sam2 import sam2_checkpoint

from wanimate.api import Animator
from wanimate.config import OutputSettings
from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputLock
from wanimate.media.decode import Damage
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames, iter_indices
from wanimate.model.transformer import AnimateTransformer
from wanimate.preprocess.detect.litert import Network
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.detect.yolo_vitpose import PublishedBackend
from wanimate.preprocess.guides import MANIFEST, load_guides
from wanimate.preprocess.masks.sam2 import Sam2Masks
from wanimate.train.adapters import AdaptedLinear, AdapterSettings, adapter_state, attach, write_lora
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import read_tensors
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.tools.inspect import find_networks, verify


@dataclass(frozen=True)
class Kind:
    """`make` writes sound files into a folder; a case damages one of them, and `use` is run on the copy."""

    make: Callable[[Path], object]
    use: Callable[[Path, str], object]


def names(folder: Path) -> list[str]:
    """Files that can be damaged, by their place in the folder."""
    return sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and not file.is_symlink()
    )


def clips(folder: Path) -> None:
    make_clip(folder / "sound.mp4", 12, size=(256, 224), sound="aac")
    make_clip(folder / "rotated.mov", 8, size=(256, 224), rotation=90)
    make_clip(folder / "lossless.mkv", 6, size=(256, 224), codec="ffv1", pixels="bgr0", options={})
    make_clip(
        folder / "vp9.webm", 6, size=(256, 224), codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}
    )
    make_clip(folder / "old.avi", 8, size=(256, 224), codec="mpeg4", options={})
    make_clip(folder / "moving.gif", 5, size=(224, 208), codec="gif", pixels="rgb8", options={})
    set_matrix(make_clip(folder / "mirrored.mp4", 6, size=(256, 224)), (0, -1, -1, 0))
    make_clip(folder / "fast.mp4", 30, 240, (256, 224))
    make_clip(folder / "stream.ts", 12, size=(256, 224), options={"preset": "ultrafast", "g": "4"})
    make_patches(folder / "hlg.mkv", Said(9, 18, 9), 10, (256, 224))
    make_patches(folder / "pq.mkv", Said(9, 16, 9, full=True), 10, (256, 224))
    make_interlaced(folder / "interlaced.mp4", list(range(24)))
    make_clip(folder / "opacity.mov", 4, size=(256, 224), codec="qtrle", pixels="argb", options={})
    quick = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    make_clip(folder / "opacity.webm", 5, size=(256, 224), codec="libvpx-vp9", pixels="yuva420p", options=quick)
    thumbnail, film = Made((64, 64), 1, "mjpeg", "yuvj420p"), Made((256, 224), 8)
    make_streams(folder / "streams.mov", thumbnail, film)
    make_streams(folder / "streams.mkv", Made((128, 112), 8, default=True), film)


def use_clip(folder: Path, name: str) -> None:
    clip = probe(folder / name, None)
    frames = list(islice(iter_frames(clip), 12))
    damage = Damage()
    list(iter_indices(clip, range(min(clip.count, 12)), damage=damage))
    assert all("\n" not in text for text in (*clip.notices, damage.told(clip) or ""))
    assert all(frame.shape == frames[0].shape for frame in frames)
    VideoFrames(folder / name).take([clip.count - 1, 0])
    out, settings = folder / "out.mp4", OutputSettings()
    with (
        OutputLock(out, settings, []) as lock,
        OutputWriter(out, Fraction(30), 64, 64, settings, clip, lock) as writer,
    ):
        writer.write(torch.zeros(6, 3, 64, 64))
        writer.finish()


def pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    eight = random.integers(0, 256, (60, 80, 4), dtype=np.uint8)
    sixteen = random.integers(0, 65536, (60, 80, 4), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, pixels in {"rgb": eight[..., :3], "rgba": eight, "grey": eight[..., 0]}.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png", exif=exif)
    rgb = Image.fromarray(np.ascontiguousarray(eight[..., :3]))
    rgb.save(folder / "a.jpg", exif=exif)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.quantize(16).save(folder / "palette.gif")
    for ending in ("bmp", "ppm", "tga", "webp", "tiff", "avif", "jp2"):
        rgb.save(folder / f"a.{ending}")
    for name in ("deep.png", "deep.tiff", "deep.jp2", "deep.ppm"):
        cv2.imwrite(str(folder / name), sixteen if name[-1] in "gf" else np.ascontiguousarray(sixteen[..., :3]))
    for name in ("p3.jpg", "p3.png", "p3.tiff", "p3.avif", "p3.webp"):
        rgb.save(folder / name, icc_profile=rgb_profile("Display P3"))
    rgb.convert("CMYK").save(folder / "inks.tiff", icc_profile=cmyk_profile())
    make_heic(folder / "a.heic", np.ascontiguousarray(eight[..., :3]), rgb_profile("Display P3"), turns=1)


def use_picture(folder: Path, name: str) -> None:
    told: list[str] = []
    loaded = load_image(folder / name, notices=told)
    assert all("\n" not in text for text in told)
    assert loaded.dtype == np.uint8
    assert loaded.ndim == 3
    assert loaded.shape[2] == 3


def guides(folder: Path) -> None:
    clip = make_clip(folder / "dance.mp4", 9, size=(64, 48), sound="aac")
    write_guides(folder / "guides", 9, replacement=True)
    from wanimate.media.files import sha256

    path = folder / "guides" / MANIFEST
    source = {"path": str(clip), "sha256": sha256(clip), "size": [64, 48], "fps": "30", "frames": list(range(9))}
    more = {"source": source, "no_person": [[1, 3]], "settings": {"fps": "30"}, "warnings": ["a warning"], "area": 512}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


@cache
def animator() -> Animator:
    return Animator.from_checkpoint(own_checkpoint(Path(os.environ["ROBUSTNESS"]) / "own"), "cpu")


def use_guides(folder: Path, name: str) -> None:
    loaded = load_guides(folder / "guides")
    loaded.pose.take([0, loaded.count - 1])
    if loaded.count * loaded.size[0] * loaded.size[1] <= 16 * 64 * 64:
        list(animator().generate(folder / "guides", folder / "out.mp4"))


def weights(folder: Path) -> None:
    own_checkpoint(folder / "own")
    published_checkpoint(folder / "published")
    (folder / "packed").mkdir()
    write_gguf(folder / "packed" / "x.gguf", transformer_tensors(PUBLISHED), "Q8_0")


def use_weights(folder: Path, name: str) -> None:
    part = Path(name).parts[0]
    for found in find_networks(folder / part):
        verify(found)
    if part == "packed":
        load_packed(folder)
        return
    loaded = load_checkpoint(folder / part, "cpu")
    loaded.prompts.encode("a person dances")
    if loaded.image is not None:
        loaded.image.encode(torch.zeros(3, 64, 64))


def quantised_files(folder: Path) -> None:
    """Markers as tensors and in the header, scales for blocks, quanto's names."""
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    turned, blocks = convrot("blocks.0.ffn.0", weight), block_fp8("blocks.0.ffn.0", weight)
    save_file(turned, folder / "rotated.safetensors")
    facts = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}
    layers = {"format_version": "1.0", "layers": {"blocks.0.ffn.0": facts}}
    header = {"format": "pt", "quantization": "int8", "_quantization_metadata": json.dumps(layers)}
    save_file({k: v for k, v in turned.items() if "comfy" not in k}, folder / "header.safetensors", header)
    marked = marker(format="float8_e4m3fn_blockwise", group_size=32)
    save_file(blocks | {"blocks.0.ffn.0.comfy_quant": marked}, folder / "blocks.safetensors")
    save_file(quanto("blocks.0.ffn.0", weight), folder / "quanto.safetensors")


def use_quantised(folder: Path, name: str) -> None:
    tensors = read_tensors(folder / name)
    assert all(tensor.is_floating_point() for key, tensor in tensors.items() if key.endswith(".weight"))
    for found in find_networks(folder / name):
        found.described()


def damage_quantised(folder: Path, random: Random) -> str:
    """A marker, a scale or the header's word of them exchanged, in a file that is whole; returns its name."""
    path = random.choice(sorted(folder.glob("*.safetensors")))
    with safe_open(path, "pt") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    layers = "_quantization_metadata"
    marks = [key for key in sorted(tensors) if key.endswith("comfy_quant")]
    if layers in header and random.random() < 0.6:
        header[layers] = edited_json(header[layers].encode(), random).decode("utf-8", "replace")
    elif marks and random.random() < 0.6:
        text = edited_json(bytes(tensors[marks[0]].tolist()), random)
        tensors[marks[0]] = torch.tensor(list(text), dtype=torch.uint8)
    else:
        key = random.choice(sorted(tensors))
        tensor = tensors.pop(key)
        odd = [
            tensor.flatten(),
            tensor[..., None],
            tensor.flatten()[:1],
            tensor.flatten()[:0],
            torch.full_like(tensor.float(), torch.nan),
        ]
        odd += [
            tensor.float().to(kind) for kind in (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32, torch.bool)
        ]
        if random.random() < 0.8:
            tensors[random.choice((key, key, key, f"{key}_2", f"{key}_inv"))] = random.choice(odd).clone()
    save_file(tensors, path, header)
    return path.name


def comfy_folders(folder: Path) -> None:
    published = published_checkpoint(folder / "published")
    comfy(folder / "models", published, sentencepiece_model())
    shutil.rmtree(published)


def use_comfy_folders(folder: Path, name: str) -> None:
    file = folder / "models" / "diffusion_models" / "animate_14B.safetensors"
    loaded = load_checkpoint(file, "cpu")
    loaded.prompts.encode("a person dances")
    assert loaded.image is not None
    loaded.image.encode(torch.zeros(3, 64, 64))


def load_packed(folder: Path) -> None:
    from wanimate.weights.checkpoint import load_transformer
    from wanimate.weights.locate import CheckpointConfig, open_transformer

    place = folder / "packed"
    load_transformer(open_transformer(place), CheckpointConfig(name="x"), place, torch.float32)


def adapters(folder: Path) -> dict[str, AdaptedLinear]:
    torch.manual_seed(0)
    return attach(AnimateTransformer(OWN), AdapterSettings(rank=2, alpha=2.0))


def loras(folder: Path) -> None:
    state = adapter_state(adapters(folder))
    write_lora(state, AdapterSettings(rank=2, alpha=2.0), folder / "own.safetensors", torch.float16, {})
    (folder / "peft").mkdir()
    save_file(state, folder / "peft" / "adapter_model.safetensors")
    (folder / "peft" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "use_rslora": True, "r": 2}))
    torch.save({"state_dict": state}, folder / "zipped.ckpt")
    model, module = AnimateTransformer(OWN), "blocks.0.self_attn.q"
    down, up, rows = torch.randn(2, OWN.dim), torch.randn(OWN.dim, 2), torch.ones(OWN.dim, 1)
    dora = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up, f"{module}.dora_scale": rows}
    save_file(dora, folder / "dora.safetensors")
    for name, tensors in {"lokr": lokr(model, "low")[0], "loha": loha(model)[0]}.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors")
    torch.save(state, folder / "older.pt", _use_new_zipfile_serialization=False)


def use_lora(folder: Path, name: str) -> None:
    path = folder / (name if not name.startswith("peft") else "peft/adapter_model.safetensors")
    model = AnimateTransformer(OWN)
    with_loras(model, [(match_lora(read_lora(path), model, partial=True), 1.0)], fuse=True)


def detectors(folder: Path) -> None:
    models = find()
    for name in ("face_landmark.tflite", "selfie_segmentation.tflite"):
        shutil.copy(models / name, folder / name)
    (folder / "det").mkdir()
    (folder / "pose2d").mkdir()
    (folder / "det" / "yolov10m.onnx").write_bytes(answering((1, 3, 640, 640), (1, 2, 6)))
    (folder / "pose2d" / "vitpose_h_wholebody.onnx").write_bytes(answering((1, 3, 256, 192), (1, 133, 8, 6)))
    sam2_checkpoint(folder / "sam2")


def use_detector(folder: Path, name: str) -> None:
    if name.endswith(".tflite"):
        network = Network(folder / name)
        network(np.zeros((network.size, network.size, 3), np.float32))
    elif name.endswith(".onnx"):
        PublishedBackend.load(folder, compat=True).detect(np.zeros((240, 240, 3), np.uint8))
    else:
        Sam2Masks(folder / "sam2", device="cpu")


def resumed(folder: Path, resume: bool, steps: int) -> None:
    made = adapters(folder)
    weights = [w for adapter in made.values() for w in (adapter.lora_A, adapter.lora_B)]

    def measure(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.stack([(w * w).sum() for w in weights]).sum() * x,)

    config = LoraTraining(steps=steps, save_every=2)
    for _ in train_adapters(config, made, measure, lambda number: (torch.ones(()),), folder, resume):
        pass


def training(folder: Path) -> None:
    resumed(folder, False, 4)
    for name in ("log.jsonl", "loss.png"):
        (folder / name).unlink()


def use_training(folder: Path, name: str) -> None:
    resumed(folder, True, 6)


def damage_training(folder: Path, random: Random) -> None:
    """One value of the state exchanged, in a file that is whole."""
    path = folder / "state.pt"
    state = torch.load(path, weights_only=True)
    odd = [
        None,
        -1,
        2**70,
        float("nan"),
        "x",
        [],
        {},
        torch.zeros(3),
        torch.full((1,), float("inf")),
        torch.zeros(1).expand(2**40),
    ]
    place = state
    while True:
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], (dict, list)) and place[key] and random.random() < 0.8:
            place = place[key]
            continue
        if isinstance(place, list):
            place[key] = random.choice(odd)
        elif random.random() < 0.3:
            del place[key]
        else:
            place[key] = random.choice(odd)
        break
    torch.save(state, path)


KINDS: dict[str, Kind] = {
    "media": Kind(clips, use_clip),
    "pictures": Kind(pictures, use_picture),
    "guides": Kind(guides, use_guides),
    "weights": Kind(weights, use_weights),
    "quantised": Kind(quantised_files, use_quantised),
    "folders": Kind(comfy_folders, use_comfy_folders),
    "loras": Kind(loras, use_lora),
    "detectors": Kind(detectors, use_detector),
    "training": Kind(training, use_training),
}
