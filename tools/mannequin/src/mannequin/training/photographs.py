"""Rendered faces as photographs would show them: skin, beards, glasses, light, things in front, lenses, codecs.

What a face does stays as it is: nothing moves its mouth, lids or gaze. Every face draws its own effects.
Letters: N faces, S their side. Pictures are RGB in 0..1 [N, 3, S, S] within this module; places are -1..1 from edge to edge
of a crop; points are the 68 of `WorldBatch.face_points`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mannequin.world.dice import Dice

SIDES = (1.0, 0.75, 1.0, 0.5)
"""Pixels that the camera gave a face, over those of its crop, dealt out in turn."""


Effect = Callable[..., Tensor]
"""(dice, pictures, maybe points) -> pictures."""


@torch.no_grad()
def photographed(pictures: Tensor, points: Tensor | None, share: float, generator: torch.Generator) -> Tensor:
    """Faces [N, 3, S, S] in [-1, 1], of which a share 0..1, picked at random, is turned into photographs.

    Args:
        points: [N, 68, 2], or None: nobody then gets a beard or glasses. generator: of the pictures' device.
    """

    def photograph(dice: Dice, faces: Tensor, *where: Tensor) -> Tensor:
        photo = skin(dice, faces / 2 + 0.5)
        for worn, often in ((beard, 0.3), (glasses, 0.35)) if where else ():
            photo = some(dice, often, worn, photo, *where)
        photo = some(dice, 0.5, shine, light(dice, photo))
        for often, width in ((0.2, 0.02), (0.2, 0.02), (0.12, 0.1), (0.12, 0.25)):
            photo = some(dice, often, partial(thing, width=width), photo)
        photo = tones(dice, framing(dice, photo))
        return camera(dice, some(dice, 0.65, lens, photo)) * 2 - 1

    known = (pictures,) if points is None else (pictures, points)
    return some(Dice(len(pictures), generator), share, photograph, *known)


def some(dice: Dice, share: float, effect: Effect, pictures: Tensor, *points: Tensor) -> Tensor:
    """Pictures, a share of which, picked at random, has gone through an effect. The others cost no time."""
    count = round(share * len(pictures))
    if count == 0:
        return pictures
    chosen = torch.randperm(len(pictures), generator=dice.generator, device=dice.device)[:count]
    changed = effect(Dice(count, dice.generator), pictures[chosen], *(p[chosen] for p in points))
    return pictures.index_copy(0, chosen, changed)


def skin(dice: Dice, photo: Tensor) -> Tensor:
    """Pores, blotches, freckles and wrinkles."""
    side = photo.shape[-1]
    fine, middle, broad = (noise(dice, side, cells) for cells in (1.0, 0.35, 0.08))
    grain = fine * rarely(dice, 0.6, 0, 0.05) + middle * rarely(dice, 0.6, 0, 0.06) + broad * rarely(dice, 0.5, 0, 0.1)
    spots = torch.sigmoid(6 * (middle - 1.7)) * rarely(dice, 0.25, 0.1, 0.4)
    folds = torch.where(maps(dice.chance(0.5)), noise(dice, side, 0.06, 0.4), noise(dice, side, 0.4, 0.06))
    folds = torch.exp(-8 * folds.square()) * rarely(dice, 0.2, 0.03, 0.12)
    photo = photo * ((1 + grain) * (1 - folds))
    return (photo * torch.cat([1 - spots * dark for dark in (0.5, 0.8, 1.0)], 1)).clamp(0, 1)


def beard(dice: Dice, photo: Tensor, points: Tensor) -> Tensor:
    """Stubble, beards and moustaches. The lips stay bare."""
    side = photo.shape[-1]
    mouth, wide = points[:, 48:60].mean(1), (points[:, 54] - points[:, 48]) / 2
    chin, lip = points[:, 8], points[:, 51]
    cheeks = (points[:, 13] - points[:, 3]) / 2
    down = chin - mouth
    across, along = within(side, mouth + 0.2 * down, cheeks * vectors(dice.uniform(0.5, 1.0)), down * 1.05)
    jaw = torch.sigmoid(10 * (1 - across.square() - along.square())) * torch.sigmoid(8 * (along + 0.35))
    above = lip - points[:, 33]
    across, along = within(side, points[:, 33] + 0.55 * above, wide * 1.1, above * 0.5)
    upper = torch.sigmoid(6 * (1 - across.square() - along.square()))
    open_ = (points[:, 57] - lip) / 2
    across, along = within(side, mouth, wide * 1.05, open_ * 1.15)
    bare = torch.sigmoid(10 * (across.square() + along.square() - 1))
    worn = maps(dice.chance(0.6)) * jaw + maps(dice.chance(0.6)) * upper
    hairs = torch.sigmoid(2 * noise(dice, side, 1.0) + dice.uniform(-1, 3).view(-1, 1, 1, 1))
    amount = worn.clamp(0, 1) * bare * hairs * maps(dice.uniform(0.2, 0.95))
    colour = colours(dice.colour()) * maps(dice.uniform(0.05, 0.6))
    return photo + (colour - photo) * amount * in_front(points)


def glasses(dice: Dice, photo: Tensor, points: Tensor) -> Tensor:
    """Frames of many shapes with reflections and a tint."""
    side = photo.shape[-1]
    eyes = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    apart = eyes[1] - eyes[0]
    down = points[:, 48:60].mean(1) - (eyes[0] + eyes[1]) / 2
    wide, tall = vectors(dice.uniform(0.34, 0.47)), vectors(dice.uniform(0.17, 0.34))
    power, thick = maps(dice.uniform(2.0, 5.0)), maps(dice.uniform(0.008, 0.045))
    top = maps(dice.chance(0.25))  # without a rim below
    worn = maps(dice.uniform(0.6, 1.0)) * in_front(points)
    colour = colours(dice.colour()) * maps(torch.where(dice.chance(0.6), dice.uniform(0, 0.25), dice.uniform(0.2, 1)))
    tint = rarely(dice, 0.3, 0, 0.35)
    glare = rarely(dice, 0.6, 0.1, 0.7)
    glint, length = dice.uniform(-0.8, 0.8, 2), dice.uniform(0.15, 0.6, 2)
    drop = vectors(dice.uniform(-0.03, 0.1)) * down
    rims = torch.zeros_like(photo[:, :1])
    for sign, eye, ear in ((-1, eyes[0], points[:, 0]), (1, eyes[1], points[:, 16])):
        middle = eye + drop
        across, along = within(side, middle, apart * wide, down * tall)
        edge = ((across.abs() + 1e-4) ** power + (along.abs() + 1e-4) ** power) ** (1 / power)
        inner = torch.sigmoid(side / 8 * (1 - edge))
        scale = maps(torch.minimum(apart.norm(dim=-1) * wide[:, 0], down.norm(dim=-1) * tall[:, 0]))
        rim = line((edge - 1) * scale, thick, side) * (1 - top * torch.sigmoid(8 * along))
        temple = segment(side, middle + sign * apart * wide, middle + (ear - middle) * vectors(dice.uniform(0.8, 1.1)))
        bridge = segment(side, middle - sign * apart * wide, (eyes[0] + eyes[1]) / 2 + drop)
        rims = torch.stack((rims, rim, line(temple, thick, side), line(bridge, thick, side))).amax(0)
        mark = (across - maps(glint[:, 0]) + 0.5 * (along - maps(glint[:, 1]))) / maps(length[:, 0])
        reach = (along - maps(glint[:, 1])) / maps(length[:, 1])
        bright = torch.exp(-2 * (mark.square() + reach.square())) * inner * glare * worn
        photo = photo * (1 - inner * tint * worn * (1 - colour))
        photo = photo + (1 - photo) * bright
    return photo + (colour - photo) * rims * worn


def light(dice: Dice, photo: Tensor) -> Tensor:
    """Light from a side with a colour, and cast shadows with wavy edges."""
    side = photo.shape[-1]
    x, y = places(photo.shape[-1], photo)
    strength = colours(dice.normal(0.3, 1) + dice.normal(0.07, 3))
    photo = photo * torch.exp(strength * along_a_line(dice, x, y))
    for often in (0.35, 0.2):
        edge = along_a_line(dice, x, y) + noise(dice, side, 0.05) * maps(dice.uniform(0, 0.25))
        sharp = maps(torch.exp(dice.uniform(math.log(3), math.log(40))))
        shade = torch.sigmoid(sharp * (edge - maps(dice.uniform(0, 0.9))))
        photo = photo * (1 - shade * rarely(dice, often, 0.15, 0.65))
    return photo.clamp(0, 1)


def shine(dice: Dice, photo: Tensor) -> Tensor:
    """Bright spots on oily or wet skin."""
    x, y = places(photo.shape[-1], photo)
    bright = photo.mean(1, keepdim=True)
    for _ in range(3):
        at, size = dice.uniform(-0.7, 0.7, 2), maps(torch.exp(dice.uniform(math.log(0.03), math.log(0.25))))
        spot = torch.exp(-((x - maps(at[:, 0])).square() + (y - maps(at[:, 1])).square()) / size.square())
        photo = photo + spot * bright * rarely(dice, 0.6, 0.1, 0.9)
    return photo.clamp(0, 1)


def thing(dice: Dice, photo: Tensor, width: float) -> Tensor:
    """A strand of hair, a bar or a soft blob about so wide. Wide ones stay beside the middle of the face."""
    x, y = places(photo.shape[-1], photo)
    broad = width > 0.05
    angle, turn = dice.uniform(0, 2 * math.pi), dice.uniform(0, math.pi)
    radius, length = maps(dice.uniform(0.5 * width, 1.5 * width)), dice.uniform(0.1, 1.2)
    middle = torch.stack((torch.cos(angle), torch.sin(angle)), -1) * vectors(dice.uniform(0.6 if broad else 0.2, 1.2))
    u, v = x - maps(middle[:, 0]), y - maps(middle[:, 1])
    c, s = maps(torch.cos(turn)), maps(torch.sin(turn))
    u, v = u * c + v * s, v * c - u * s
    v = v + maps(dice.normal(0.3)) * u.square()
    distance = ((u.abs() - maps(length)).clamp_min(0).square() + v.square()).sqrt()
    cover = torch.sigmoid((radius - distance) / maps(dice.uniform(0.006, 0.03))) * maps(dice.uniform(0.6, 1.0))
    skin_like = photo.mean((2, 3), keepdim=True) * maps(dice.uniform(0.6, 1.3))
    colour = torch.where(maps(dice.chance(0.4 if broad else 0.0)), skin_like, colours(dice.colour()))
    colour = colour * (1 - 0.5 * (distance / radius).clamp(0, 1).square())
    return (photo + (colour - photo) * cover).clamp(0, 1)


def framing(dice: Dice, photo: Tensor) -> Tensor:
    """Other detectors' boxes: shift, zoom, aspect; hardly a turn, which would be a tilted head; faces of other shapes."""
    side = photo.shape[-1]
    zoom, angle = torch.exp(dice.normal(0.09)), dice.normal(0.025)
    squeeze = torch.exp(dice.normal(0.07))
    c, s, shift = torch.cos(angle) * zoom, torch.sin(angle) * zoom, dice.normal(0.08, 2)
    rows = (c * squeeze, -s, shift[:, 0]), (s, c / squeeze, shift[:, 1])
    grid = F.affine_grid(torch.stack([torch.stack(row, -1) for row in rows], 1), list(photo.shape), align_corners=False)
    warp = dice.normal(0.012, 2, 5, 5)
    warp = F.interpolate(warp, size=(side, side), mode="bicubic", align_corners=False)
    return F.grid_sample(photo, grid + warp.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)


def tones(dice: Dice, photo: Tensor) -> Tensor:
    """Exposure and white balance for the skin, gamma, contrast, colour cast, saturation; some are grey.

    Cameras expose a face well; the world's lights often leave it dark or in a colour that no skin has.
    """
    side = photo.shape[-1]
    middle = slice(side // 4, max(side // 4 + 1, 3 * side // 4))
    own = photo[:, :, middle, middle].mean((2, 3)).clamp_min(0.02)
    usual = torch.exp(dice.normal(0.08, 3)) * dice.uniform(0.25, 0.65, 1)
    usual = usual * torch.stack([torch.full_like(usual[:, 0], of_skin) for of_skin in (1.3, 1.0, 0.8)], -1)
    amount = dice.chance(0.9) * dice.uniform(0.4, 1.0)
    photo = photo * colours(((usual / own).log() * vectors(amount)).exp().clamp(0.4, 6))
    gain = torch.exp(dice.normal(0.12, 1) + dice.normal(0.07, 3))
    photo = (photo * colours(gain)).clamp(1e-4, 1) ** maps(torch.exp(dice.normal(0.25)))
    curve = photo.square() * (3 - 2 * photo)
    photo = photo + (curve - photo) * maps(dice.uniform(-0.5, 0.9))
    grey = luma(photo)
    photo = grey + (photo - grey) * maps(torch.where(dice.chance(0.1), 0.0, dice.uniform(0.35, 1.4)))
    black, white = maps(dice.uniform(-0.06, 0.12)), maps(dice.uniform(0.85, 1.08))
    return (black + (white - black) * photo).clamp(0, 1)


def lens(dice: Dice, photo: Tensor) -> Tensor:
    """Blur, motion blur or sharpening: a kernel of 7x7 of its own for each face."""
    reach = torch.arange(-3, 4, device=photo.device, dtype=photo.dtype)
    v, u = reach.view(1, 7, 1), reach.view(1, 1, 7)
    turn = dice.uniform(0, math.pi, 1, 1)
    c, s = torch.cos(turn), torch.sin(turn)
    kind = dice.uniform(0, 1, 1, 1)
    sharpened, moved = kind < 0.45, kind > 0.77
    wide = torch.where(sharpened, dice.uniform(0.6, 1.2, 1, 1), dice.uniform(0.5, 1.6, 1, 1))
    long = torch.where(moved, dice.uniform(1.2, 3.0, 1, 1), wide)
    wide = torch.where(moved, 0.5, wide)
    kernel = torch.exp(-0.5 * (((u * c + v * s) / long).square() + ((v * c - u * s) / wide).square()))
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    amount = torch.where(sharpened, -dice.uniform(0.2, 1.2, 1, 1), 1.0)
    kernel = kernel * amount
    kernel[:, 3, 3] += 1 - amount[:, 0, 0]
    side = photo.shape[-1]
    padded = F.pad(photo, (3, 3, 3, 3), mode="replicate")
    out = torch.zeros_like(photo)
    for i in range(7):
        for j in range(7):
            out.addcmul_(padded[:, :, i : i + side, j : j + side], maps(kernel[:, i, j]))
    return out.clamp(0, 1)


def camera(dice: Dice, photo: Tensor) -> Tensor:
    """The pixels of a far face, a sensor's noise, a codec's blocks."""
    side, count = photo.shape[-1], len(photo)
    parts = photo.split(max(1, -(-count // len(SIDES))))
    own = [Dice(len(part), dice.generator) for part in parts]
    taken = []
    for one, part, share in zip(own, parts, SIDES, strict=False):
        small = max(16, round(side * share / 16) * 16)
        if small != side:
            part = F.interpolate(part, size=(small, small), mode="bilinear", align_corners=False, antialias=True)
        dark = 1.2 - 0.6 * part
        part = part + one.normal(1.0, 3, small, small) * rarely(one, 0.4, 0, 0.04) * dark
        part = part + one.normal(1.0, 1, small, small) * rarely(one, 0.3, 0, 0.04) * dark
        part = compressed(part, torch.exp(one.uniform(math.log(0.15), math.log(1.6))))
        if small != side:
            part = F.interpolate(part, size=(side, side), mode="bilinear", align_corners=False)
        taken.append(part)
    return torch.cat(taken).clamp(0, 1)


def compressed(photo: Tensor, strength: Tensor) -> Tensor:
    """Through a codec of 8x8 cosine blocks with chroma at half size; at strength [N] 1 a fair photograph of the web.

    The side is a multiple of 16. Steps of the quantiser rise with frequency, as those of ITU-T T.81, annex K, do.
    """
    bright = luma(photo)
    tint = F.avg_pool2d(torch.cat((photo[:, 2:] - bright, photo[:, :1] - bright), 1), 2)
    bright = _quantised(bright, strength, 0.045, 0.02)
    tint = F.interpolate(_quantised(tint, strength, 0.06, 0.04), scale_factor=2.0, mode="bilinear", align_corners=False)
    blue, red = bright + tint[:, :1], bright + tint[:, 1:]
    return torch.cat((red, (bright - 0.299 * red - 0.114 * blue) / 0.587, blue), 1)


def _quantised(planes: Tensor, strength: Tensor, first: float, rise: float) -> Tensor:
    n, channels, side, _ = planes.shape
    k = torch.arange(8, device=planes.device, dtype=planes.dtype)
    cosines = torch.cos((2 * k + 1) * k.unsqueeze(1) * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    both = torch.kron(cosines, cosines)
    step = (first + rise * (k.unsqueeze(1) + k)).flatten() * strength.view(n, 1, 1, 1)
    blocks = planes.view(n, channels, side // 8, 8, side // 8, 8).transpose(3, 4).reshape(n, channels, -1, 64)
    blocks = torch.round(blocks @ both.T / step) * step @ both
    return blocks.view(n, channels, side // 8, side // 8, 8, 8).transpose(3, 4).reshape(planes.shape)


def luma(photo: Tensor) -> Tensor:
    """[N, 1, S, S]."""
    return 0.299 * photo[:, :1] + 0.587 * photo[:, 1:2] + 0.114 * photo[:, 2:]


def maps(values: Tensor) -> Tensor:
    """A value a face, [N], as [N, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def vectors(values: Tensor) -> Tensor:
    return values.view(-1, 1)


def colours(values: Tensor) -> Tensor:
    """A colour a face, [N, 3], as [N, 3, 1, 1]."""
    return values.view(-1, 3, 1, 1)


def rarely(dice: Dice, chance: float, low: float, high: float) -> Tensor:
    """A strength in low..high with this chance, else 0: [N, 1, 1, 1]."""
    return maps(dice.chance(chance) * dice.uniform(low, high))


def noise(dice: Dice, side: int, down: float, across: float | None = None) -> Tensor:
    """Smooth noise of about unit size, [N, 1, S, S]; `down` and `across`: cells over pixels, 0..1."""
    cells = max(2, round(side * down)), max(2, round(side * (down if across is None else across)))
    coarse = dice.normal(1.0, 1, *cells)
    return F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)


def places(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """x [1, 1, 1, S] and y [1, 1, S, 1] of pixels."""
    at = (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1
    return at.view(1, 1, 1, side), at.view(1, 1, side, 1)


def along_a_line(dice: Dice, x: Tensor, y: Tensor) -> Tensor:
    """How far pixels lie in a direction that each face draws, [N, 1, S, S]."""
    angle = maps(dice.uniform(0, 2 * math.pi))
    return torch.cos(angle) * x + torch.sin(angle) * y


def within(side: int, middle: Tensor, right: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in the frame that two vectors [N, 2] make around a place [N, 2]: two maps [N, 1, S, S]."""
    x, y = (at - maps(own) for at, own in zip(places(side, middle), middle.unbind(1), strict=True))
    area = right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]
    area = torch.where(area.abs() < 1e-3, 1e-3, area)
    across = (x * maps(down[:, 1]) - y * maps(down[:, 0])) / maps(area)
    along = (y * maps(right[:, 0]) - x * maps(right[:, 1])) / maps(area)
    return across.clamp(-50, 50), along.clamp(-50, 50)


def segment(side: int, start: Tensor, stop: Tensor) -> Tensor:
    """Distance of pixels from the line between two places [N, 2], [N, 1, S, S]."""
    x, y = (at - maps(own) for at, own in zip(places(side, start), start.unbind(1), strict=True))
    dx, dy = maps(stop[:, 0] - start[:, 0]), maps(stop[:, 1] - start[:, 1])
    share = ((x * dx + y * dy) / (dx.square() + dy.square()).clamp_min(1e-6)).clamp(0, 1)
    return ((x - share * dx).square() + (y - share * dy).square()).sqrt()


def line(distance: Tensor, thick: Tensor, side: int) -> Tensor:
    """How much of a line covers pixels at a signed distance from its middle, 0..1."""
    return torch.sigmoid((thick - distance.abs()) * side)


def in_front(points: Tensor) -> Tensor:
    """1 for faces that are seen from the front, 0 from behind, and between from the side: [N, 1, 1, 1]."""
    right, left = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    apart, down = left - right, points[:, 48:60].mean(1) - (left + right) / 2
    area = apart[:, 0] * down[:, 1] - apart[:, 1] * down[:, 0]
    return maps((area / down.square().sum(-1).clamp_min(1e-3) * 4).clamp(0, 1))
