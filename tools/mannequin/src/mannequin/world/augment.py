"""What detectors and cameras do to the guides: keypoints that are off, drop out or jitter; face crops that differ."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from mannequin.world.dice import Dice

WHOLE = ((0, 5), (91, 112), (112, 133))
"""The head's points and each hand's, which detectors place together: the way they look is told by a few pixels between them."""


def disturb_keypoints(dice: Dice, keypoints: Tensor) -> Tensor:
    """Keypoints [n, F, 133, 3] as a detector would give them: a constant offset a joint, slow drift, jitter, drop-outs."""
    n, frames, count, _ = keypoints.shape
    body = keypoints[:, :, :17, :2]
    size = (body.amax(2) - body.amin(2)).amax(-1).mean(1).view(n, 1, 1, 1)  # pixels
    strength = dice.uniform(0.0, 1.0, 1, 1, 1)
    offset = dice.normal(0.009, 1, count, 2)
    offset[:, :, 91:] = dice.normal(0.0025, 1, 42, 2)
    offset[:, :, :5] = dice.normal(0.0022, 1, 5, 2)
    for start, stop in WHOLE:
        offset[:, :, start:stop] += dice.normal(0.006, 1, 1, 2)
    jitter = dice.normal(0.0016, frames, count, 2)
    for start, stop in WHOLE:
        jitter[:, :, start:stop] *= 0.5
    if frames > 2:  # smoothed as the product smooths it
        jitter[:, 1:-1] = (jitter[:, :-2] + 2 * jitter[:, 1:-1] + jitter[:, 2:]) / 4
    stretch = 1 + dice.normal(0.015, 1, 1, 2) * strength
    middle = body.mean((1, 2)).view(n, 1, 1, 2)
    moved = middle + (keypoints[..., :2] - middle) * stretch + (offset + jitter) * size * strength
    confidence = keypoints[..., 2].clone()
    hand_lost = dice.chance(0.08, 2)
    hand_flicker = dice.chance(0.12, 1, 2) & dice.chance(0.3, frames, 2)
    for i, start in enumerate((91, 112)):
        keep = ~(hand_lost[:, i : i + 1] | hand_flicker[:, :, i])
        confidence[:, :, start : start + 21] *= keep.unsqueeze(-1)
    feet_lost = dice.chance(0.06, 1, 1)
    confidence[:, :, 17:23] *= ~feet_lost
    legs_lost = dice.chance(0.03, 1, 1)
    confidence[:, :, 13:23] *= ~legs_lost
    blank = dice.chance(0.01, frames, 1) & dice.chance(0.2, 1, 1)  # a frame in which nobody was found
    confidence *= ~blank
    return torch.cat([moved, confidence.unsqueeze(-1)], dim=-1)


def loosen_boxes(dice: Dice, box: Tensor) -> Tensor:
    """Face boxes [n, F, 4] as other detectors and other faces would have them: a quarter narrower, as the published boxes are,
    up to a tenth larger, smaller or aside. Faces lie up to 12 % of the box higher or lower, 2.5 % higher on average: the face
    mesh has the eyes of a real one at 0.24 of a job's crop.
    """
    frames = box.shape[1]
    middle, size = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
    narrow = dice.chance(0.25, frames) * dice.uniform(0.1, 0.3, frames)
    size = size * torch.stack((1 - narrow, torch.ones_like(narrow)), -1)
    size = size * torch.exp(dice.normal(0.08, frames, 1)) * torch.exp(dice.normal(0.04, frames, 2))
    moved = torch.stack((dice.normal(0.04, frames), dice.uniform(-0.095, 0.145, frames)), -1)
    middle = middle + moved * size
    return torch.cat((middle - size / 2, middle + size / 2), -1)


def disturb_faces(dice: Dice, face: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Face crops [n, F, S, S, 3] in 0..1 through another camera: colour, contrast, blur, noise, a small turn and shift.

    Points [n, F, P, 2], -1..1 from edge to edge of the crop, go where the turn and the shift take them.
    """
    n, frames, size, _, _ = face.shape
    picture = face.permute(0, 1, 4, 2, 3).flatten(0, 1)
    small = max(2, size // 2)
    rough = avg_pool2d(picture, size // small)
    rough = torch.nn.functional.interpolate(rough, size=(size, size), mode="bilinear", align_corners=False)
    blur = (dice.uniform(0, 1) * dice.chance(0.4)).repeat_interleave(frames).view(-1, 1, 1, 1)
    picture = picture * (1 - blur) + rough * blur
    angle, zoom, shift = dice.normal(0.05), 1 + dice.normal(0.05), dice.normal(0.04, 2)
    c, s = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack([torch.stack([c, -s, shift[:, 0]], -1), torch.stack([s, c, shift[:, 1]], -1)], dim=1)
    grid = affine_grid(matrix.repeat_interleave(frames, 0), [n * frames, 3, size, size], align_corners=False)
    picture = grid_sample(picture, grid, padding_mode="border", align_corners=False)
    picture = picture.unflatten(0, (n, frames))
    points = torch.linalg.solve(matrix[:, None, :, :2], (points - shift.view(n, 1, 1, 2)).mT).mT
    gain = (1 + dice.normal(0.12, 1, 3, 1, 1)) * (1 + dice.normal(0.12, 1, 1, 1, 1))
    lift = dice.normal(0.05, 1, 1, 1, 1)
    picture = picture * gain + lift
    grey = picture.mean(2, keepdim=True)
    saturation = torch.where(dice.chance(0.1), torch.zeros(n, device=face.device), dice.uniform(0.6, 1.2)).view(
        n, 1, 1, 1, 1
    )
    picture = grey + (picture - grey) * saturation
    noise = dice.normal(1.0, frames, 3, size, size) * (dice.chance(0.3) * dice.uniform(0, 0.05)).view(n, 1, 1, 1, 1)
    return (picture + noise).clamp(0, 1).permute(0, 1, 3, 4, 2), points
