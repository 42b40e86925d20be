"""How well a scene of the mannequin world tells the light in it: what a relighting LoRA can learn there at best.

    python benchmarks/light_from_scenes.py

A small network guesses the light on a body from a scene's colours outside of a hole in the middle (quantiles, the brightest
places, an 8 x 8 miniature). Its error on unseen scenes beside that of another scene's light, which is what a character keeps
whose light is not changed, bounds the share of the light-colour error that relighting can remove. The reference's own light
has to be guessed from its picture just so, to tell paint from light: the last column counts both guesses. About two minutes.
"""

from __future__ import annotations

import argparse

import torch
from hardware import described
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mannequin.world.dice import Dice
from mannequin.world.scene import sample_backgrounds, sample_lights

WORLDS = {
    "plain lights, scenes in any colour": (False, 0.0), "wide lights, scenes in any colour": (True, 0.0),
    "wide lights, something white (the LoRA's world)": (True, 0.8),
}  # fmt: skip
SIDE = 24
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def draw(count: int, wide: bool, white: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features [count, C] of scenes, and the logarithm of the light [count, 3] on a body that faces the camera."""
    dice = Dice(count, torch.Generator().manual_seed(seed))
    light = sample_lights(dice, wide)
    scene = sample_backgrounds(dice, light, SIDE, SIDE, white)
    seen = torch.ones(SIDE, SIDE, dtype=torch.bool)
    seen[SIDE // 6 :, 7 * SIDE // 24 : 17 * SIDE // 24] = False
    colours = scene[:, seen]
    logs = (colours + 0.02).log()
    brightest = colours.gather(1, colours.sum(-1).topk(12, 1).indices.unsqueeze(-1).expand(-1, -1, 3)).mean(1)
    quantiles = torch.quantile(logs, torch.tensor(SHARES), dim=1).permute(1, 0, 2).flatten(1)
    small = adaptive_avg_pool2d((scene * seen[..., None]).permute(0, 3, 1, 2), 8).flatten(1)
    features = torch.cat([logs.mean(1), logs.std(1), quantiles, (brightest + 0.02).log(), small], 1)
    return features, (0.78 * light[:, 6:9] + 0.58 * light[:, 3:6]).log()


def errors(wide: bool, white: float, train: int, steps: int) -> tuple[float, float, float, float]:
    """Mean |ln ratio| in percent of another scene's light, of the mean light, of the guess, and of the ratio of two guesses."""
    x, y = draw(train, wide, white, 1)
    unseen, truth = draw(2000, wide, white, 2)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(x.shape[1], 192), nn.SiLU(), nn.Dropout(0.2), nn.Linear(192, 128), nn.SiLU(), nn.Linear(128, 3)
    )
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        chosen = torch.randint(0, train, (256,))
        loss = (net((x[chosen] - mean) / spread) - y[chosen]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        guess = net.eval()((unseen - mean) / spread)
    change = guess - guess.roll(1, 0) + truth.roll(1, 0)
    a, b, c, d = (100 * (v - truth).abs().mean().item() for v in (truth.roll(1, 0), y.mean(0), guess, change))
    return a, b, c, d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=10000, help="scenes the guess is learnt from")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("\n".join(described("cpu", args.threads)), "")
    head = (
        "error of the light, % | another scene's | the mean | guessed from the scene | removed | both guessed | removed"
    )
    print(f"| {head} |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, (wide, white) in WORLDS.items():
        other, mean, *guesses = errors(wide, white, args.train, args.steps)
        shares = " | ".join(f"{guess:.1f} | {100 * (1 - guess / other):.0f} %" for guess in guesses)
        print(f"| {name} | {other:.1f} | {mean:.1f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
