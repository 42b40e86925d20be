"""Relighting on people the checkpoint never saw: how much of the scene's light they take on, with and without the LoRA.

    python benchmarks/relighting.py                                       # 32 scenes of 33 frames
    python benchmarks/relighting.py --scenes 4                            # a quick look
    python benchmarks/relighting.py --strengths 0 0.5 1 1.5               # more strengths
    python benchmarks/relighting.py --scenes 0 --picture docs/relighting.png

Every scene shows one held-out body with a procedural motion. The reference picture stands in another scene in another light;
the clip's scene, which holds something white as a rule, and the performer's face (someone else's) are in the scene's light.
The true render of the character in the scene is what outputs are compared with, inside of the body. Truth and outputs are
kept in --work, one file a scene, and used again while nothing they depend on has changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from animation import ANCHORS, FIRST_SEED, RecordingWorld, Store, fill_in, seeds, through_codec, world_version
from animation_measures import read_kept
from hardware import described, hashes
from torch import Tensor

from mannequin.training.pool import RELIGHT_WORLD
from mannequin.world.assets import load
from mannequin.world.dice import Dice
from mannequin.world.render import Subjects
from mannequin.world.scene import sample_backgrounds
from mannequin.world.world import Person, WorldBatch
from wanimate.conditions.build import ConditionBuilder
from wanimate.config import OutputSettings
from wanimate.finish.composite import composite, seam
from wanimate.finish.decode import to_pixels, to_unit
from wanimate.measure.light import (
    gain_error,
    light_colour,
    paint_error,
    pattern_error,
    region_colours,
    shading_error,
    tint_error,
)  # fmt: skip
from wanimate.measure.metrics import place_cutout, psnr, similarity
from wanimate.media.levels import from_levels
from wanimate.media.video import ArrayFrames
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import guided
from wanimate.types import Frames, Guides, Segment
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.relighting import find_relighting

SETTINGS = dataclasses.replace(RELIGHT_WORLD, relight=1.0, disturb=False, other_face=1.0)
SHADE = 1 / 24
"""Blur of shading in sides of the picture."""
WHITE = (0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
"""Even white light: shows what colours things have."""
SHOWN = {
    "warm, from the left": (0.9, -0.4, 0.2, 0.75, 0.55, 0.3, 0.45, 0.4, 0.38),
    "cold, from the right": (-0.9, -0.4, 0.2, 0.3, 0.5, 0.75, 0.38, 0.42, 0.48),
    "dim": (0.2, -0.7, 0.7, 0.25, 0.24, 0.22, 0.4, 0.4, 0.42),
    "bright, from above": (0.0, -0.5, 0.85, 0.8, 0.8, 0.76, 0.4, 0.4, 0.4),
}
"""Lights of the picture: direction towards it, its colour, the ambient colour."""
PICTURE_SEED = 7 * 10**12


@dataclass(frozen=True)
class Scene:
    """One clip (`WorldBatch` without the first axis) and the same people in the same poses under other lights: `albedo` in even
    white, `unlit` in the reference's. `pasted`: the reference's person moved over black, where `pasted_cover` is 255."""

    video: np.ndarray
    albedo: np.ndarray
    unlit: np.ndarray
    pasted: np.ndarray
    pasted_cover: np.ndarray
    skeleton: np.ndarray
    face: np.ndarray
    background: np.ndarray
    inpaint_mask: np.ndarray
    cover: np.ndarray
    region: np.ndarray
    reference: np.ndarray
    reference_cover: np.ndarray
    reference_region: np.ndarray
    rate: np.ndarray


class LitWorld(RecordingWorld):
    """The performer, whose face is cut out of the clip, stands in the scene's light."""

    def _faces(self, dice: Dice, person: Person, other: Person, *rest: Any) -> tuple[Tensor, Tensor]:
        return super()._faces(dice, person, other._replace(light=person.light), *rest)

    def again(self, batch: WorldBatch, light: Tensor, backdrop: Tensor) -> Frames:
        """The clip just drawn under another light [1, 9], over one picture or one a frame [.., H, W, 3] in 0..1."""
        posed, camera, _ = self.drawn[0]
        frames, height, width = batch.video.shape[1:4]
        subjects = Subjects(torch.zeros(frames, dtype=torch.long), batch.appearance, light)
        picture = self._draw(posed, camera, subjects, height, width)
        self.drawn.insert(0, (posed, camera, picture))
        return np.asarray((picture.over(backdrop) * 255).round().byte())


def render(world: LitWorld, seed: int, frames: int, size: tuple[int, int]) -> Scene:
    batch = world.sample_batch(1, frames, *size, seed, held_out=True)
    posed, camera, portrait = world.drawn[1]
    points = camera.project(posed.keypoints)[0, :, :2].numpy()
    reference_cover = (portrait.cover[0] * 255).round().byte().numpy()
    placed = [similarity(points[ANCHORS], p[ANCHORS, :2]) for p in batch.keypoints[0].numpy()]
    black = np.zeros_like(batch.reference[0].numpy())
    pasted, covered = (
        place_cutout(picture, reference_cover / 255, black, placed)
        for picture in (batch.reference[0].numpy(), np.full_like(black, 255))
    )
    nothing = torch.zeros(1, 1, 1, 3)
    albedo, unlit = (world.again(batch, light, nothing) for light in (torch.tensor([WHITE]), batch.reference_light))
    own = {
        n: getattr(batch, n)[0].numpy()
        for n in ("video", "skeleton", "face", "background", "inpaint_mask", "cover", "region")
    }
    return Scene(
        **own, albedo=albedo, unlit=unlit, pasted=pasted, pasted_cover=covered[..., 0], reference=batch.reference[0].numpy(),
        reference_cover=reference_cover, reference_region=portrait.region[0].numpy(), rate=np.array(float(batch.rate[0])),
    )  # fmt: skip


def guides_of(scene: Scene) -> Guides:
    mask = np.repeat(np.uint8(255) * scene.inpaint_mask[..., None], 3, axis=-1)
    rate = Fraction(float(scene.rate)).limit_denominator(1000)
    return Guides(
        "replacement", rate, ArrayFrames(scene.skeleton), ArrayFrames(scene.face), scene.reference,
        ArrayFrames(scene.background), ArrayFrames(mask),
    )  # fmt: skip


class Bench:
    """One checkpoint with its relighting LoRA at several strengths; each output is made once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.store = args, Store(args.work)
        people = load(device="cpu")
        people = dataclasses.replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0])
        self.world = LitWorld(people, SETTINGS)
        self.checkpoint: Checkpoint = load_checkpoint(args.checkpoint, args.device, torch.float32)
        fill_in(args, self.checkpoint)
        file = args.lora or find_relighting(args.checkpoint)
        if file is None:
            raise SystemExit(f"{args.checkpoint} holds no relighting LoRA: give one with --lora")
        lora = match_lora(read_lora(file), self.checkpoint.transformer)
        self.models = {s: with_loras(self.checkpoint.transformer, [(lora, s)] if s else []) for s in args.strengths}
        self.weights = [hashes(self.checkpoint), file.stat().st_mtime_ns]
        self.source = {"frames": args.frames, "size": args.size, "world": [world_version(), vars(SETTINGS)]}
        self.size = tuple(int(x) for x in args.size.split("x"))
        self.on = self.checkpoint.device.type
        self.seconds: list[float] = []

    def numbers(self) -> list[int]:
        return seeds(self.world, self.args.scenes, FIRST_SEED)

    def scene(self, number: int) -> Scene:
        file = self.store.path("lit", seed=number, **self.source)
        if not file.is_file():
            np.savez_compressed(file, **vars(render(self.world, number, self.args.frames, self.size)))
        return read_kept(Scene, file)

    def outputs(self, number: int, scene: Scene) -> dict[float, Frames]:
        """What the network makes of a scene at every strength, before compositing."""
        how = {k: getattr(self.args, k) for k in ("steps", "guidance")}
        how |= {"noise": self.args.seed, "weights": self.weights, "on": self.on, **self.source}
        files = {s: self.store.path("relit", seed=number, strength=s, **how) for s in self.models}
        if missing := [s for s, f in files.items() if not f.is_file()]:
            for strength, frames in self.made(guides_of(scene), missing).items():
                np.savez_compressed(files[strength], made=frames)
        return {s: np.asarray(np.load(f)["made"]) for s, f in files.items()}

    @torch.inference_mode()
    def made(self, guides: Guides, strengths: Sequence[float]) -> dict[float, Frames]:
        """One segment with the same noise for every strength; its conditions are encoded once."""
        c, started = self.checkpoint, time.perf_counter()
        text, negative = c.prompts.encode(""), c.prompts.encode("", negative=True)
        builder = ConditionBuilder(
            guides, c.vae, c.image, text, negative, face_size=c.face_size, device=c.device, chunk=4
        )
        conditions = builder.build(Segment(0, 0, guides.count, 0), None)
        noise = torch.randn(16, *conditions.y.shape[1:], generator=torch.Generator().manual_seed(self.args.seed))
        noise = noise.to(c.device)
        found, defaults = {}, c.config.defaults
        for strength in strengths:
            network = guided(self.models[strength], conditions, self.args.guidance)
            states = denoise(network, noise, defaults.solver, self.args.steps, defaults.shift)
            *_, last = (s.latents for s in states)
            found[strength] = to_pixels(to_unit(c.vae.decode(last[None, :, 1:], 4)[0].float().clamp(-1, 1)))
        self.seconds.append(time.perf_counter() - started)
        return found


Row = dict[str, float]


def measure(scene: Scene, videos: dict[str, Frames]) -> dict[str, Row]:
    """All numbers of one scene. `pasted` counts where it covers the body; its regions' colours are the reference picture's."""
    body = scene.cover > 250
    sigma = SHADE * max(body.shape[1:])
    albedo, truth = (region_colours(v, scene.region, body) for v in (scene.albedo, scene.video))
    true_light = light_colour(truth, albedo)
    still = scene.reference_cover[None] > 250
    rows = {}
    for name, video in videos.items():
        inside = body & (scene.pasted_cover > 250) if name == "pasted" else body
        pasted = (scene.reference[None], scene.reference_region[None], still)
        colours = region_colours(*pasted) if name == "pasted" else region_colours(video, scene.region, body)
        light = light_colour(colours, albedo)
        rows[name] = {
            "light": gain_error(light, true_light), "tint": tint_error(light, true_light),
            "shading": shading_error(video, scene.video, inside, sigma), "paint": paint_error(colours, truth),
            "pattern": pattern_error(video, scene.video, inside, sigma), "psnr": psnr(video, scene.video, inside),
        }  # fmt: skip
    return rows


COLUMNS = {
    "light": "light colour, %", "tint": "its tint, degrees", "shading": "shading, %", "paint": "paint, CIE76",
    "pattern": "pattern, levels", "psnr": "body PSNR, dB",
}  # fmt: skip
EXPLAINED = [
    "Means over scenes, inside of the true body. Light colour: the body's mean colour over its albedo's, region by region",
    "(clothes, skin, hair), is the light that falls on it; mean over channels of |ln(ours / true)|. Tint: the angle between",
    "the two. Shading: root mean square of ln(ours / true) of the brightness blurred within the body (1/24 of the picture's",
    "side), less its mean over the clip. Paint: difference of the regions' mean colours after one gain a channel. Pattern:",
    "mean absolute difference after each channel has the true one's blurred brightness. All of them: `wanimate.measure.light`.",
    "Pasted: the reference's person placed by the similarity that fits nose, shoulders and hips, measured where it covers the",
    "body. In the reference's light: the true render of every pose, lit as the reference is. Removed: one minus the mean error",
    "over that of strength 0. The inpaint mask is the true person's, grown: outline, blocks or box by turns.",
]


def named(strength: float) -> str:
    return f"LoRA at {strength:g}" if strength else "no LoRA"


def table(rows: Sequence[dict[str, Row]], strengths: Sequence[float]) -> list[str]:
    labels = {
        **{named(s): named(s) for s in strengths}, "pasted": "reference pasted unlit",
        "unlit": "true poses in the reference's light", "codec": "true frames through our VAE",
    }  # fmt: skip
    mean = {n: {k: float(np.mean([r[n][k] for r in rows])) for k in COLUMNS} for n in labels}
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, label in labels.items():
        lines.append(f"| {label} | " + " | ".join(f"{mean[name][k]:.2f}" for k in COLUMNS) + " |")
    lit = [s for s in strengths if s]
    if 0 in strengths and lit:
        lines += [
            "",
            "| share of the error removed | light colour | tint | shading | scenes with a better light colour |",
        ]
        lines.append("|---|---|---|---|---|")
    for s in lit if 0 in strengths else []:
        shares = [1 - mean[named(s)][k] / mean["no LoRA"][k] for k in ("light", "tint", "shading")]
        better = sum(r[named(s)]["light"] < r["no LoRA"]["light"] for r in rows)
        lines.append(
            f"| {named(s)} | " + " | ".join(f"{100 * x:.0f} %" for x in shares) + f" | {better} of {len(rows)} |"
        )
    return lines


def picture(bench: Bench, out: Path) -> None:
    """One character and clip in four lights: without the LoRA, with it at 1, true render; the reference on the left."""
    world, (width, height), strengths = bench.world, bench.size, (0.0, 1.0)
    seed = bench.args.picture_seed
    batch = world.sample_batch(1, bench.args.frames, width, height, seed, held_out=True)
    clip = world.drawn[0]
    reference = batch.reference[0].numpy()
    cells = [[np.zeros_like(reference), reference, np.zeros_like(reference)]]
    for light in SHOWN.values():
        lamp = torch.tensor([light])
        lamp = torch.cat([torch.nn.functional.normalize(lamp[:, :3]), lamp[:, 3:]], 1)
        world.drawn[0] = clip
        scene = sample_backgrounds(Dice(1, torch.Generator().manual_seed(seed)), lamp, height, width, SETTINGS.white)
        truth = world.again(batch, lamp, scene)
        inpaint_mask = batch.inpaint_mask[0].numpy()
        background = np.where(inpaint_mask[..., None], np.uint8(0), truth)
        mask = np.repeat(np.uint8(255) * inpaint_mask[..., None], 3, axis=-1)
        parts = (ArrayFrames(x) for x in (background, mask))
        guides = Guides(
            "replacement", Fraction(24), ArrayFrames(batch.skeleton[0].numpy()), ArrayFrames(batch.face[0].numpy()), reference,
            *parts,
        )  # fmt: skip
        made = bench.made(guides, strengths)
        moment, feather = len(truth) // 2, OutputSettings().feather
        shown = [to_pixels(composite(from_levels(made[s]), background, seam(mask, feather)))[moment] for s in strengths]
        cells.append([*shown, truth[moment]])
    grid = np.concatenate([np.concatenate(column, axis=0) for column in cells], axis=1)
    grid = cv2.resize(grid, (grid.shape[1] * 5 // 6, grid.shape[0] * 5 // 6), interpolation=cv2.INTER_AREA)
    high = len(grid) // 3
    for row, words in enumerate(("without", "with relighting", "true render")):
        place = (6, high * row + (16 if row != 1 else high - 8))
        cv2.putText(grid, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), grid[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{out}: {out.stat().st_size // 1024} KiB; lights from the left: {', '.join(SHOWN)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--lora", type=Path, help="default: the checkpoint's relighting LoRA")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--frames", type=int, default=33, help="what the embedded checkpoint was trained on")
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, help="the checkpoint's own if left out; likewise:")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0, help="of the diffusion noise")
    parser.add_argument("--picture", type=Path, help="also write a picture of one character in four lights")
    parser.add_argument("--picture-seed", type=int, default=PICTURE_SEED, help="who is in it")
    parser.add_argument(
        "--device", default="cpu", help="of the networks; scenes are drawn on the processor, so that they are the same"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/relighting"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/relighting_DEVICE_DATE.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    bench, rows = Bench(args), []
    for number in bench.numbers():
        scene = bench.scene(number)
        videos = {named(s): v for s, v in bench.outputs(number, scene).items()}
        codec = through_codec(bench.checkpoint, scene.video)
        rows.append(measure(scene, videos | {"pasted": scene.pasted, "unlit": scene.unlit, "codec": codec}))
        print(len(rows), {n: round(r["light"], 1) for n, r in rows[-1].items()}, flush=True)
    if rows:
        spent = (
            f"{np.mean(bench.seconds):.1f} s a scene to generate"
            if bench.seconds
            else "outputs kept from an earlier run"
        )
        lines = [
            "# Relighting", "", *described(args.device, args.threads),
            f"- {len(rows)} scenes of {args.frames} frames at {args.size}, {args.steps} steps, guidance {args.guidance:g}, "
            f"held-out bodies; {spent}",
            f"- checkpoint {bench.checkpoint.config.name}",
            *(f"  - {name} {digest[:16]}" for name, digest in hashes(bench.checkpoint).items()), "",
            *table(rows, args.strengths), "", *EXPLAINED,
        ]  # fmt: skip
        text = "\n".join(lines) + "\n"
        out = args.out or Path(__file__).parent / "results" / f"relighting_{bench.on}_{date.today()}.md"
        out.write_text(text)
        print(text, out, sep="\n")
    if args.picture:
        picture(bench, args.picture)


if __name__ == "__main__":
    main()
