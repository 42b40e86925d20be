"""How close a generated clip is to a true one: pictures, joints, mouth, colours, steadiness.

Frames are uint8 RGB [n, H, W, 3]; a `weight` or `mask` is [n, H, W], 0..1 or bool. Every function says what its number is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.types import Frame, Frames

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Weight = npt.NDArray[np.floating] | Mask

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


def psnr(ours: Frames, truth: Frames, weight: Weight | None = None) -> float:
    """Peak signal to noise ratio in dB of the mean squared error over all (weighted) pixels, channels and frames."""
    error = np.square(ours.astype(np.float64) - truth).mean(-1)
    mean = float(np.average(error, weights=None if weight is None else weight.astype(np.float64)))
    return float(10 * np.log10(255**2 / max(mean, 1e-10)))


def ssim(ours: Frames, truth: Frames, weight: Weight | None = None) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 pixels, sigma 1.5, mean over channels and pixels."""
    values = np.stack([_ssim_map(a, b) for a, b in zip(ours, truth, strict=True)])
    return float(np.average(values, weights=None if weight is None else weight.astype(np.float64)))


def _ssim_map(ours: Frame, truth: Frame) -> Array:
    def blur(x: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(x, (_SSIM_WINDOW,) * 2, _SSIM_SIGMA, borderType=cv2.BORDER_REFLECT_101))

    a, b = ours.astype(np.float64), truth.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(-1))


def pck(
    found: npt.NDArray[np.floating], truth: npt.NDArray[np.floating], counted: Mask, size: float, within: float = 0.1
) -> tuple[int, int]:
    """Percentage of correct keypoints, as (correct, counted).

    Args:
        found, truth: [n, J, 2] pixels; a joint that was not found is NaN and is wrong.
        counted: joints that take part, [n, J]. size: of the person in pixels. within: share of `size` a joint may be off.
    """
    off = np.linalg.norm(found - truth, axis=-1)
    correct = np.nan_to_num(off, nan=np.inf) <= within * size
    return int((correct & counted).sum()), int(counted.sum())


def correlation(ours: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Pearson correlation of two curves over the moments where both are known (not NaN); 0 if one of them is flat."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def mouth_opening(mesh: npt.NDArray[np.floating]) -> float:
    """Gap between the inner lips over the height of the face, from the 468 points of the face mesh [468, 2 or 3]."""
    lips, face = (float(np.linalg.norm(mesh[i, :2] - mesh[j, :2])) for i, j in ((13, 14), (10, 152)))
    return lips / max(face, 1e-6)


def eye_opening(mesh: npt.NDArray[np.floating]) -> float:
    """Gap between the lids over the width of the eye, mean of both eyes, from the points of the face mesh [468, 2 or 3]."""
    ratios = []
    for outer, inner, *lids in ((33, 133, 159, 145, 158, 153), (263, 362, 386, 374, 385, 380)):
        width = float(np.linalg.norm(mesh[outer, :2] - mesh[inner, :2]))
        gaps = [float(np.linalg.norm(mesh[lids[i], :2] - mesh[lids[i + 1], :2])) for i in (0, 2)]
        ratios.append(sum(gaps) / 2 / max(width, 1e-6))
    return sum(ratios) / 2


def colour_error(
    ours: Frames,
    region: npt.NDArray[np.uint8],
    reference: Frame,
    reference_region: npt.NDArray[np.uint8],
    codes: Sequence[int],
    least: int = 60,
) -> float:
    """CIE76 colour difference of the median colours of each region (clothes, hair), mean over regions; NaN without any.

    Args:
        region: where the regions truly are in the frames, [n, H, W]; reference_region: in the reference, [H, W].
        codes: regions that count. least: pixels a region needs in the reference and in the frames.
    """
    errors = []
    for code in codes:
        mine, theirs = ours[region == code], reference[reference_region == code]
        if len(mine) >= least and len(theirs) >= least:
            errors.append(float(np.linalg.norm(lab(np.median(mine, 0)) - lab(np.median(theirs, 0)))))
    return float(np.mean(errors)) if errors else float("nan")


def lab(rgb: Array) -> Array:
    """CIE L*a*b* of one colour, RGB in 0..255 (sRGB)."""
    pixel = (rgb / 255).astype(np.float32)[None, None]
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0], dtype=np.float64)


def flicker(frames: Frames, mask: Mask) -> float:
    """Mean absolute second difference in time, in levels of 255, where `mask` [n, H, W] holds in all three frames."""
    x = frames.astype(np.int16)
    second = np.abs(x[2:] - 2 * x[1:-1] + x[:-2]).mean(-1)
    still = mask[2:] & mask[1:-1] & mask[:-2]
    return float(second[still].mean()) if still.any() else float("nan")


def steps(frames: Frames, mask: Mask | None = None) -> Array:
    """Mean absolute change from each frame to the next, in levels of 255, [n - 1]; within `mask` of both frames."""
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(-1)
    if mask is None:
        return np.asarray(change.mean((1, 2)))
    both = mask[1:] & mask[:-1]
    return np.asarray((change * both).sum((1, 2)) / np.maximum(both.sum((1, 2)), 1))


def seam(changes: npt.NDArray[np.floating], joins: Sequence[int], reach: int = 3) -> float:
    """How much larger the steps into the frames `joins` are than the `reach` steps on each side, in levels; mean.

    `changes` is what `steps` gives; a join is the index of a segment's first new frame.
    """
    own = {j - 1 for j in joins}
    excess = []
    for at in sorted(own):
        around = [i for i in range(max(0, at - reach), min(len(changes), at + reach + 1)) if i not in own]
        if around:
            excess.append(float(changes[at] - np.mean(changes[around])))
    return float(np.mean(excess)) if excess else float("nan")


def similarity(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> Array:
    """The turn, scale and shift that takes points [n, 2] closest to others (Umeyama 1991), as a matrix [2, 3]."""
    a, b = source.astype(np.float64), target.astype(np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    za, zb = ((x - m)[:, 0] + 1j * (x - m)[:, 1] for x, m in ((a, mean_a), (b, mean_b)))
    factor = np.vdot(za, zb) / max(float(np.vdot(za, za).real), 1e-12)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([turn, mean_b - turn @ mean_a])


def place_cutout(
    picture: Frame, cover: npt.NDArray[np.floating], background: Frame, matrices: Sequence[Array]
) -> Frames:
    """A person cut out of `picture` (cover 0..1), moved by each matrix [2, 3] and laid over `background`."""
    height, width = background.shape[:2]
    layer = np.dstack([picture * cover[..., None], 255 * cover]).astype(np.float32)
    frames = []
    for matrix in matrices:
        moved = cv2.warpAffine(layer, matrix, (width, height), flags=cv2.INTER_LINEAR)
        alpha = moved[..., 3:] / 255
        frames.append(np.clip(moved[..., :3] + (1 - alpha) * background + 0.5, 0, 255).astype(np.uint8))
    return np.stack(frames)
