"""How well shot records tell the camera and the light: scenes of the mannequin world whose camera and light are known.

    python benchmarks/shot_records.py [--part camera|light|changes] [--performers 12]

Camera: every movement at several speeds, with a performer who moves in the frame; the performer is left out by their true
pixels (as in replacement), by an outline around their points (as in animation), or not at all. Light: illuminants of the CIE,
with something white in the scene and without. Errors are printed beside the confidence that the record states.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import shot_world as world
import torch
from hardware import described

from mannequin.world.assets import load
from mannequin.world.dice import Dice
from mannequin.world.scene import sample_backgrounds
from wanimate.preprocess.shot import camera, light
from wanimate.preprocess.shot.analysis import ShotWatch

WHITES = {
    "Planckian 1900 K": (None, None, 1900), "LED-B1": (0.4560, 0.4078, 2733), "A": (0.44757, 0.40745, 2856),
    "Planckian 3200 K": (None, None, 3200), "F11": (0.38052, 0.37713, 4000), "F2": (0.37208, 0.37529, 4230),
    "D50": (0.34567, 0.35850, 5003), "D55": (0.33242, 0.34743, 5503), "D65": (0.31271, 0.32902, 6504),
    "D75": (0.29902, 0.31485, 7504), "daylight 10000 K": (None, None, 10000),
}  # fmt: skip
"""CIE chromaticities and correlated colour temperatures; without x and y, on the locus."""
LUMA = np.array([0.2126, 0.7152, 0.0722])
HIDDEN = ("true pixels", "outline of points", "not at all")


def moves() -> Iterator[world.Move]:
    for speed in (0.06, 0.1, 0.2, 0.35):
        for way in (1, -1):
            side, up = ("Pan Right", "Tilt Down") if way > 0 else ("Pan Left", "Tilt Up")
            yield world.Move(side, "pan", way * speed)
            yield world.Move(side, "pan", way * speed, follows=True)
            yield world.Move(side, "pan", way * speed, shake=0.004)
            yield world.Move(side, "truck", way * speed)
            yield world.Move(up, "tilt", way * min(speed, 0.2))
    for speed in (0.05, 0.12, 0.25):
        for way in (1, -1):
            name = "Zoom In" if way > 0 else "Zoom Out"
            yield world.Move(name, "zoom", way * speed)
            yield world.Move(name, "dolly", way * speed)
    for degrees in (4, 10):
        for way in (1, -1):
            yield world.Move("Roll Right" if way > 0 else "Roll Left", "roll", math.radians(way * degrees))
    for hand in (0.003, 0.006, 0.012):
        yield from [world.Move("Handheld", "static", shake=hand)] * 3
    yield from [world.Move("Static", "static")] * 9


def measure_camera(performers: list[world.Performer]) -> None:
    print(f"\nClips of {world.SECONDS} s at {world.RATE} frames/s, {world.SIZE[0]}x{world.SIZE[1]}\n")
    print("| scenes | the performer is left out by | right | wrong | not known | confidence where right, wrong |")
    print("|---" * 6 + "|")
    right: dict[str, list[bool]] = defaultdict(list)
    seconds, looked = 0.0, 0
    for scenes, detail in (("with things on the wall", True), ("bare: plain, soft, or with furniture", False)):
        found: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)
        for number, move in enumerate(moves()):
            if not detail and number % 3:
                continue
            behind = world.backdrop(number + (0 if detail else 10_000), 0.8, detail)
            drawn = list(world.frames(performers[number % len(performers)], behind, move, number))
            for how in HIDDEN:
                watch = ShotWatch(world.FRAMES, Fraction(world.RATE))
                for i, (frame, cover, points) in enumerate(drawn):
                    mask = cover if how == HIDDEN[0] else None
                    watch.see(i * world.STEP, frame, points if how == HIDDEN[1] else None, mask)
                guess = camera.named(watch.shots[0].steps, world.SECONDS)
                hit = guess.value == move.name
                found[how].append((hit, guess.value is None, guess.confidence))
                seconds, looked = seconds + watch.cpu, looked + len(drawn)
                if detail and how == HIDDEN[0]:
                    right[move.kind].append(hit)
                if how != HIDDEN[2] and not hit:
                    print(f"clip {number}, {scenes}, {how}: {move} is {guess}", file=sys.stderr)
        for how, told in found.items():
            good, unknown = sum(hit for hit, _, _ in told), sum(none for _, none, _ in told)
            sure = [[c for hit, none, c in told if hit == kind and not none] for kind in (True, False)]
            means = ", ".join(f"{np.mean(values):.2f}" if values else "-" for values in sure)
            share = f"{good}/{len(told)} ({100 * good / len(told):.0f} %)"
            print(f"| {scenes} | {how} | {share} | {len(told) - good - unknown} | {unknown} | {means} |", flush=True)
    print(f"\n- by movement ({HIDDEN[0]}): " + ", ".join(f"{kind} {sum(v)}/{len(v)}" for kind, v in right.items()))
    print(
        f"- processor time: {1000 * seconds / looked:.1f} ms a looked-at frame, every {world.STEP}rd frame", flush=True
    )


def white_of(name: str) -> tuple[np.ndarray, int]:
    """Light RGB [3] of a white surface, luminance 1, and its temperature in K."""
    x, y, kelvin = WHITES[name]
    if x is None or y is None:
        rgb = light.white_at(1e6 / kelvin)
    else:
        rgb = np.maximum(world.TO_RGB @ np.array([x / y, 1, (1 - x - y) / y]), 0.01)
    return rgb / (rgb @ LUMA), kelvin


def grey_world(frame: np.ndarray, hidden: np.ndarray) -> float:
    """McCamy's temperature of the mean colour outside of the performer, in K: the plain way, for comparison."""
    xyz = np.linalg.inv(world.TO_RGB) @ world.coded_light(frame[hidden == 0] / np.float32(255)).mean(axis=0)
    x, y = xyz[:2] / xyz.sum()
    n = (x - 0.3320) / (0.1858 - y)
    return float(449 * n**3 + 3525 * n**2 + 6823.3 * n + 5520.33)


def measure_light(performers: list[world.Performer], scenes: int) -> None:
    print(f"\n{scenes} scenes under {len(WHITES)} illuminants\n")
    print(
        "| scenes | grey-world within 10 % | within 10 % | within 20 % | median error | sure over 0.85: share, within 10 % |"
    )
    print("|---" * 6 + "|")
    for name, share in (("with something white", 0.8), ("of any colours, no white thing", 0.0)):
        errors, plain, sure = [], [], []
        by: dict[str, list[float]] = defaultdict(list)
        for number in range(scenes):
            who = performers[number % len(performers)]
            coded = scene_of(who, number, share)
            for kind in WHITES:
                white, kelvin = white_of(kind)
                frame, cover = lit(coded[0], coded[1], white, number), coded[1]
                watch = ShotWatch(1, Fraction(world.RATE))
                watch.see(0, frame, who.points[number % len(who.points)])
                found = light.temperature(watch.shots[0].tally)
                errors.append(math.inf if found.value is None else found.value / kelvin - 1)
                by[kind].append(errors[-1])
                plain.append(abs(grey_world(frame, cover) / kelvin - 1))
                sure.append(found.confidence)
        e, certain = np.abs(errors), np.array(sure) > 0.85
        row = " | ".join(f"{100 * part.mean():.0f} %" for part in (np.array(plain) < 0.1, e < 0.1, e < 0.2))
        right = f"{100 * certain.mean():.0f} %, {100 * (e[certain] < 0.1).mean():.0f} %"
        print(f"| {name} | {row} | {100 * np.median(e):.1f} % | {right} |", flush=True)
        told = ", ".join(f"{kind} {100 * (np.abs(v) < 0.1).mean():.0f} %" for kind, v in by.items())
        print(f"\nby illuminant, {name}: {told}\n", file=sys.stderr)


def scene_of(who: world.Performer, number: int, white: float) -> tuple[np.ndarray, np.ndarray]:
    """(code values in neutral light [h, w, 3], where the performer is [h, w]) of one frame."""
    dice = Dice(1, torch.Generator().manual_seed(world.FIRST_SEED + 10**7 + number))
    width, height = world.SIZE
    behind = sample_backgrounds(dice, torch.tensor([world.NEUTRAL]), height, width, white)[0].numpy()
    drawn = who.pictures[number % len(who.pictures)]
    cover = drawn[..., 3:]
    return drawn[..., :3] + behind * (1 - cover), (cover[..., 0] > 0.02).astype(np.uint8)


def lit(coded: np.ndarray, cover: np.ndarray, white: np.ndarray, seed: int) -> np.ndarray:
    """A frame in light of another colour, with a little noise."""
    shining = world.light_coded(world.coded_light(coded) * (0.8 * white).astype(np.float32))
    noise = np.random.default_rng(seed).normal(0, 0.006, coded.shape)
    return ((shining + noise).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def measure_changes(performers: list[world.Performer], scenes: int) -> None:
    """Light that gains `drift` stops a second while the camera pans, and light of two colours."""
    found: dict[float, list[float]] = defaultdict(list)
    mixes: dict[bool, list[bool]] = defaultdict(list)
    for number in range(scenes):
        who = performers[number % len(performers)]
        behind = world.backdrop(5000 + number, 0.8, detail=True)
        move = world.Move("Pan Right", "pan", 0.1) if number % 2 else world.Move("Static", "static")
        for drift in (0.0, 0.1, 0.4):
            watch = ShotWatch(world.FRAMES, Fraction(world.RATE))
            for i, (frame, cover, _) in enumerate(world.frames(who, behind, move, number, level=0.5, drift=drift)):
                watch.see(i * world.STEP, frame, None, cover)
            shot = watch.shots[0]
            stops = light.drifts(light.changes(shot.changes), None, 1.0)["drift"].value
            if stops is not None:
                found[drift].append(stops)
        coded, cover = scene_of(who, number, 0.8)
        two = np.linspace(-1, 1, coded.shape[1])[None, :, None]
        share = 1 / (1 + np.exp(-6 * two))
        for truth in (False, True):
            white = white_of("A")[0] * (1 - share) + white_of("D65")[0] * share if truth else white_of("A")[0]
            watch = ShotWatch(1, Fraction(world.RATE))
            watch.see(0, lit(coded, cover, white, number), who.points[number % len(who.points)])
            mixes[truth].append(light.mixed(watch.shots[0].tally).value is True)
    length = world.SECONDS - world.STEP / world.RATE
    for drift, stops in found.items():
        error = np.abs(np.array(stops) - drift * length)
        told = f"told {np.mean(stops):.2f}, error at most {error.max():.2f} ({len(stops)} of {scenes} clips)"
        print(f"- drift of {drift * length:.2f} stops: {told}")
    right, false = (100 * np.mean(mixes[truth]) for truth in (True, False))
    print(f"- light of two colours (A and D65): told in {right:.0f} % of {scenes} scenes; falsely in {false:.0f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("camera", "light", "changes"), help="only this part")
    parser.add_argument("--performers", type=int, default=12)
    parser.add_argument("--scenes", type=int, default=60, help="of the part light")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("\n".join(described("cpu", 1)))
    began, people = time.process_time(), load()
    performers = [world.performer(people, number) for number in range(args.performers)]
    if args.part in (None, "camera"):
        measure_camera(performers)
    if args.part in (None, "light"):
        measure_light(performers, args.scenes)
    if args.part in (None, "changes"):
        measure_changes(performers, args.scenes // 2)
    print(f"\n{time.process_time() - began:.0f} s of processor time, drawing included")


if __name__ == "__main__":
    main()
