"""True frames of held-out people through a VAE: are the faces found, do mouths and eyes still open and shut?

    python benchmarks/vae_faces.py --vae build/train/vae                   # 12 clips of 17 frames: three minutes
    python benchmarks/vae_faces.py --vae src/wanimate/weights/embedded/mannequin

The detectors are those of `wanimate preprocess`. No transformer can do better than what is printed here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from animation_measures import Detectors
from hardware import described

from mannequin.training.clip_latents import to_video
from mannequin.training.vae import load_trained_vae
from mannequin.training.vae_report import HeldOut, detail_masks, psnr, through
from wanimate.finish.decode import to_pixels, to_unit
from wanimate.measure.metrics import correlation

LEAST_RANGE, MEASURABLE = 0.05, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="folder of a VAE's training, or a checkpoint folder")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--near", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=Path, help="folder of the detector models")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    detectors = Detectors(args.models)
    codec = load_trained_vae(args.vae, torch.device("cpu"))
    rows = []
    for part in range(args.clips):  # one by one: less memory
        batch = HeldOut(1, args.frames, args.side, args.near).draw(torch.device("cpu"), part)
        true = to_video(batch.video)
        decoded = through(codec, true)
        boxes, truths = batch.face_box[0].numpy(), {"jaw": batch.jaw[0].numpy(), "eyes": batch.eyes[0].numpy()}
        row = {f"{name} psnr": psnr(decoded, true, mask) for name, mask in detail_masks(batch).items()}
        row |= {f"{name} range": float(truth.std()) for name, truth in truths.items()}
        for name, video in (("true", batch.video[0].numpy()), ("vae", to_pixels(to_unit(decoded[0])))):
            found = detectors.expressions(video, boxes)
            row[f"{name} faces"] = float(np.mean(~np.isnan(found[:, 0])))
            row[f"{name} jaw"] = correlation(found[:, 0], truths["jaw"])
            row[f"{name} eyes"] = correlation(found[:, 1], truths["eyes"])
        rows.append(row)
        print(part, {k: round(v, 3) for k, v in row.items()}, flush=True)
    lines = ["# True frames through a VAE", "", *described("cpu", args.threads), f"- {args.vae}, {args.clips} clips of "
             f"{args.frames} frames of {args.side}x{args.side}, share {args.near} from near", "", *table(rows)]  # fmt: skip
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


def table(rows: list[dict[str, float]]) -> list[str]:
    """Markdown: means over the clips."""

    def mean(key: str, among: list[dict[str, float]] = rows) -> float:
        values = [row[key] for row in among if not np.isnan(row[key])]
        return float(np.mean(values)) if values else float("nan")

    lines = ["| | through the VAE | true frames |", "|---|---|---|"]
    lines += [
        f"| PSNR of {label}, dB | {mean(f'{name} psnr'):.2f} | |"
        for name, label in (("all", "pictures"), ("face", "faces"), ("hands", "hands"))
    ]
    lines.append(f"| faces found | {mean('vae faces'):.3f} | {mean('true faces'):.3f} |")
    for name in ("jaw", "eyes"):
        fit = [r for r in rows if r[f"{name} range"] >= LEAST_RANGE and r[f"true {name}"] >= MEASURABLE]
        lines.append(f"| {name}, correlation ({len(fit)} clips) | " + " | ".join(
            f"{mean(f'{video} {name}', fit):.3f}" for video in ("vae", "true")) + " |")  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
