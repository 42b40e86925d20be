"""An endless supply of training clips: people who move, with everything that a network could be told about them.

    people = load(device="cuda")
    world = World(people)
    batch = world.sample_batch(64, 17, 192, 192, seed=0)

A seed decides everything on one kind of device. Letters: n clips, F frames, H W pixels, S face side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d, normalize

from mannequin.world.appearance import push_out, sample_appearances
from mannequin.world.assets import Mannequins
from mannequin.world.augment import disturb_faces, disturb_keypoints, loosen_boxes
from mannequin.world.body import AT, Posed, Rig, skin
from mannequin.world.camera import Camera, chosen, look_at
from mannequin.world.closeups import eye_opening, near_cameras, perform_near, speak
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.motion import sample_motion
from mannequin.world.render import Picture, Quality, Subjects, render
from mannequin.world.scene import drift, sample_backgrounds, sample_lights
from mannequin.world.sticks import draw_skeletons


@dataclass(frozen=True)
class WorldBatch:
    """Clips with their ground truth.

    video: uint8 RGB [n, F, H, W, 3]; skeleton: the same shape, the product's drawing; face: uint8 RGB [n, F, S, S, 3];
    reference: uint8 RGB [n, H, W, 3]; region: uint8 [n, F, H, W] (`appearance.REGIONS`); cover: uint8 [n, F, H, W], 255 on
    the person, with soft edges; background: uint8 [n, F, H, W, 3], the scene with `inpaint_mask` black; inpaint_mask: bool
    [n, F, H, W], the person's grown box or outline; replacement: bool [n], else animation mode (reference and video
    share scene and light, and `background` is of no use). keypoints: float32 [n, F, 133, 3], x y in pixels and
    confidence 0 or 1, undisturbed; light, reference_light: [n, 9] (`scene.sample_lights`); body, face_body: [n]; appearance:
    [n, appearance.WIDTH]; expression: [n, F, E] weights 0..1 (`layout.EXPRESSIONS`); gaze: [n, F, 2] radians to the side and
    down; head: [n, F, 3] where the head looks in the picture, right and down, and how far its left side is down, -1..1;
    face_points: [n, F, 68, 2] where the face crop shows its points, -1..1 from edge to edge, hidden ones too;
    jaw: [n, F] opening 0..1; eyes: [n, F] opening (`closeups.eye_opening`); face_box: [n, F, 4] of the person's own face,
    x0 y0 x1 y1 pixels; rate: [n] frames a second.
    """

    video: Tensor
    skeleton: Tensor
    face: Tensor
    reference: Tensor
    region: Tensor
    cover: Tensor
    background: Tensor
    inpaint_mask: Tensor
    replacement: Tensor
    keypoints: Tensor
    light: Tensor
    reference_light: Tensor
    body: Tensor
    face_body: Tensor
    appearance: Tensor
    expression: Tensor
    gaze: Tensor
    head: Tensor
    face_points: Tensor
    jaw: Tensor
    eyes: Tensor
    face_box: Tensor
    rate: Tensor

    def __str__(self) -> str:
        return "WorldBatch(" + ", ".join(f"{k} {list(v.shape)}" for k, v in vars(self).items()) + ")"


@dataclass(frozen=True)
class WorldSettings:
    """What is sampled. Rates are frames a second; `other_face`: how often the face crop shows someone else;
    `relight`: how often, in replacement mode, the scene's light differs from the reference's; `wide_lights`, `white`: see
    `scene.sample_lights` and `sample_backgrounds`; `disturb`: drawn skeletons and faces get a detector's errors; `loose`: face
    crops are placed as other detectors would; `compiled`: shade through torch.compile; `plain`: the torch rasteriser even on
    CUDA."""

    face_size: int = 64
    supersample: int = 2
    replacement: float = 0.4
    relight: float = 1.0
    wide_lights: bool = False
    white: float = 0.0
    other_face: float = 0.5
    disturb: bool = True
    loose: bool = False
    compiled: bool = False
    plain: bool = False
    slowest: float = 12.0
    fastest: float = 30.0
    framings: tuple[float, float, float, float] = (0.33, 0.17, 0.38, 0.12)
    """Weights of full body, three-quarter, half body, close-up."""
    near: float = 0.0
    """Share of the clips of `closeups`, taken from all framings. At 0 a seed shows what it showed before there were any."""
    view: float = 1.0
    """Sides of the view over those of the picture, which is then the part of it around the face; references are whole."""


class Person(NamedTuple):
    """body [n], appearance [n, WIDTH] and light [n, 9] of the person of each clip."""

    body: Tensor
    appearance: Tensor
    light: Tensor


LOWER = 0.05
"""A job's face crop lies so many of its sides lower than the world's points have it: a detector's brows are lower. The packaged
performer has the eyes at 0.27 of a crop, and so have the world's people."""


def _frame_person(
    dice: Dice, framing: Tensor, height_m: Tensor, head: Tensor, aim: Tensor, height: int, width: int
) -> Camera:
    """Cameras [n] that show a person: full body, down to the knees, to the hips, or head and shoulders.

    Args:
        height_m: [n] standing; head: [n] mean height of the nose, lower than standing in squats; aim: [n, 2] place.
    """
    low = torch.tensor([-0.04, 0.27, 0.50, 0.72], device=dice.device)[framing] + dice.normal(0.02)
    high = torch.tensor([1.04, 1.06, 1.06, 1.05], device=dice.device)[framing]
    fill = torch.where(framing == 0, dice.uniform(0.75, 0.98), dice.uniform(0.85, 1.0))
    tall = (high - low) * height_m / fill
    narrow = width / height  # keep the shoulders in narrow frames
    tall = torch.maximum(tall, torch.tensor(0.55 / narrow, device=dice.device) * (1 - 0.3 * (framing == 3)))
    focal_ratio = torch.exp(dice.uniform(math.log(1.1), math.log(3.2)))  # focal length / picture height
    distance = tall * focal_ratio
    spare = tall - (high - low) * height_m
    sunk = (head - 0.93 * height_m) * torch.where(framing == 0, 0.3, 1.0)
    centre_z = (high + low) / 2 * height_m + spare * dice.uniform(-0.35, 0.5) + sunk
    room = (tall * narrow - 0.5 * height_m).clamp_min(0) * 0.5
    target = torch.stack(
        [aim[:, 0] + dice.uniform(-1, 1) * room * 0.6 + dice.normal(0.03), aim[:, 1], centre_z], dim=-1
    )
    focal = focal_ratio * height
    centre = torch.tensor([width / 2, height / 2], device=dice.device).expand(dice.count, 2)
    return look_at(target, distance, dice.normal(0.07), dice.normal(0.04), dice.normal(0.015), focal, centre)


def _around(dice: Dice, camera: Camera, point: Tensor, height: int, width: int) -> Camera:
    """The part of each camera's view [n] that has its point [n, 3] within a tenth of the picture's side from the middle."""
    size = torch.tensor([width, height], device=dice.device)
    corner = camera.project(point.unsqueeze(1))[:, 0, :2] - size * (0.5 + dice.uniform(-0.1, 0.1, 2))
    return camera.cropped(torch.cat((corner, corner + size), dim=-1), width, height)


def _spread(camera: Camera, frames: int) -> Camera:
    """One camera a clip -> one a frame, clip by clip."""
    return Camera(
        *(t.repeat_interleave(frames, dim=0) for t in (camera.rotation, camera.eye, camera.focal, camera.centre))
    )


def _head(posed: Posed, camera: Camera) -> Tensor:
    """See `WorldBatch.head`, [N, 3]."""
    side = normalize(posed.keypoints[:, 1] - posed.keypoints[:, 2], dim=-1)  # from the right eye to the left one
    looks = (camera.rotation[:, :2] @ posed.head_forward.unsqueeze(-1)).squeeze(-1)
    return torch.cat((looks, (camera.rotation[:, 1] * side).sum(-1, keepdim=True)), dim=-1)


def face_boxes(points: Tensor, visible: Tensor | None = None) -> Tensor:
    """Face boxes of clips, steady in size (preprocess spec, section 10, without cutting at the frame's border).

    Args:
        points: [n, F, 68, 2] pixels. visible: unused frames are False, [n, F].

    Returns:
        [n, F, 4]: x0, y0, x1, y1.
    """
    low, high = points.amin(2), points.amax(2)
    size = (high - low).mean(1, keepdim=True)
    middle = (low + high) / 2
    if points.shape[1] > 2:
        padded = torch.cat([middle[:, :1], middle, middle[:, -1:]], dim=1)
        middle = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    scaled = size * math.sqrt(1.3)
    extra = scaled - size
    x0 = middle[..., 0] - scaled[..., 0] / 2
    y0 = middle[..., 1] - size[..., 1] / 2 - extra[..., 1] * 0.75
    return torch.stack([x0, y0, x0 + scaled[..., 0], y0 + scaled[..., 1]], dim=-1)


def job_boxes(box: Tensor) -> Tensor:
    """Where a job cuts faces out, [n, F, 4] from the boxes of `face_boxes`: squares of the longer side (preprocess spec,
    section 18.4)."""
    middle, side = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]).amax(-1, keepdim=True)
    left, low = middle[..., :1] - side / 2, middle[..., 1:] + side * (0.5 + LOWER)
    return torch.cat((left, low - side, left + side, low), dim=-1)


class World:
    """Samples batches from one set of bodies. Not shared between threads."""

    def __init__(self, people: Mannequins, settings: WorldSettings | None = None) -> None:
        self.people, self.settings = people, settings or WorldSettings()
        self.rig = Rig(people)

    @torch.no_grad()
    def sample_batch(
        self, n: int, frames: int, width: int, height: int, seed: int | torch.Generator = 0, held_out: bool = False
    ) -> WorldBatch:
        """Draw n clips.

        Args:
            frames, width, height: size of every clip. seed: an integer, or a generator of the world's device that goes
            on from call to call. held_out: only bodies that are never drawn otherwise.
        """
        s, people, device = self.settings, self.people, self.people.device
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator(device).manual_seed(seed)
        dice = Dice(n, generator)
        first, last = (people.trained, len(people.rest)) if held_out else (0, people.trained)
        bodies = dice.integer(first, last), dice.integer(first, last)
        replacement = dice.chance(s.replacement)
        person, other = (Person(body, sample_appearances(dice), sample_lights(dice, s.wide_lights)) for body in bodies)
        body, appearance, light = person
        apart = replacement & dice.chance(s.relight)
        reference_light = torch.where(apart.unsqueeze(1), sample_lights(dice, s.wide_lights), light)
        rate = dice.uniform(s.slowest, s.fastest)
        times = torch.arange(frames, device=device) / rate.unsqueeze(1)
        pose, expression = sample_motion(dice, times, recorded=(people.clips, people.clip_lengths))
        still, still_face = sample_motion(dice, torch.zeros(n, 1, device=device), calm=True)
        near = torch.zeros(n, dtype=torch.bool, device=device)
        if s.near:
            near = dice.chance(s.near)
            lively = near | dice.chance(0.5)
            pose, expression = perform_near(dice, times, pose, near), speak(dice, times, expression, lively)
            at_rest = torch.zeros(n, 1, device=device)
            still = perform_near(dice, at_rest, still, near, calm=True)
            still_face = speak(dice, at_rest, still_face, near, calm=True)

        tall = people.rest[body, :, 2].amax(1) - people.rest[body, :, 2].amin(1)
        posed = self._pose(body, appearance, pose, expression)
        standing = self._pose(body, appearance, still, still_face)
        noses = posed.keypoints[:, 0].unflatten(0, (n, frames))
        heights, nose = noses[..., 2], noses.mean(1)
        framing = dice.pick(list(s.framings))
        leaves = (heights.amax(1) - heights.amin(1) > 0.12 * tall) & (framing > 1)  # squats don't fit a close view
        framing = torch.where(leaves, 0, framing)
        high, wide = round(s.view * height), round(s.view * width)
        camera = _frame_person(dice, framing, tall, heights.mean(1), pose[:, :, :2].mean(1), high, wide)
        same_framing = dice.chance(0.75)
        looser = torch.minimum(framing, dice.pick(list(s.framings)))  # a reference shows no less than the clip
        still_framing = torch.where(same_framing, framing, looser)
        still_nose = standing.keypoints[:, 0]
        still_camera = _frame_person(
            dice, still_framing, tall, still_nose[:, 2], still[:, :, :2].mean(1), height, width
        )
        if s.near:
            camera = chosen(near, near_cameras(dice, nose, high, wide), camera)
            wider = 1 + torch.where(dice.chance(0.2), dice.uniform(0.5, 2.0), dice.uniform(0.0, 0.4))
            still_camera = chosen(near, near_cameras(dice, still_nose, height, width, wider), still_camera)

        if s.view > 1:
            camera = _around(dice, camera, nose, height, width)
        views = _spread(camera, frames)
        owner = torch.arange(n, device=device).repeat_interleave(frames)
        picture = self._draw(posed, views, Subjects(owner, appearance, light), height, width)
        scene = sample_backgrounds(dice, light, height, width, s.white)
        other_scene = sample_backgrounds(dice, reference_light, height, width, s.white)
        moving = replacement & dice.chance(0.4)
        backdrop = drift(dice, scene, frames, moving)
        video = picture.over(backdrop.flatten(0, 1)).unflatten(0, (n, frames))

        portrait = self._draw(
            standing, still_camera, Subjects(torch.arange(n, device=device), appearance, reference_light), height, width
        )
        behind = torch.where(replacement.view(-1, 1, 1, 1), other_scene, scene)
        reference = portrait.over(behind)

        flat = views.project(posed.keypoints)[..., :2].unflatten(0, (n, frames))
        confidence = self._confidence(dice, posed, views, flat, height, width)
        keypoints = torch.cat([flat, confidence.unsqueeze(-1)], dim=-1)
        drawn = disturb_keypoints(dice, keypoints) if s.disturb else keypoints
        box = face_boxes(flat[:, :, 23:91])
        face, face_points, face_body = self._faces(dice, person, other, pose, expression, camera, backdrop)
        cover = picture.cover.unflatten(0, (n, frames))
        inpaint_mask = _inpaint_masks(dice, cover)
        kept = torch.where(inpaint_mask.unsqueeze(-1), torch.zeros_like(backdrop), video)
        return WorldBatch(
            video=_bytes(video),
            skeleton=draw_skeletons(drawn, width, height),
            face=face,
            reference=_bytes(reference),
            region=picture.region.unflatten(0, (n, frames)),
            cover=_bytes(cover),
            background=_bytes(kept),
            inpaint_mask=inpaint_mask,
            replacement=replacement,
            keypoints=keypoints,
            light=light,
            reference_light=reference_light,
            body=body,
            face_body=face_body,
            appearance=appearance,
            expression=expression,
            gaze=pose[:, :, [AT["gaze_x"], AT["gaze_y"]]],
            head=_head(posed, views).unflatten(0, (n, frames)),
            face_points=face_points,
            jaw=expression[:, :, list(EXPRESSIONS).index("jaw")],
            eyes=eye_opening(posed.keypoints, people.key_rest[body].repeat_interleave(frames, dim=0)).view(n, frames),
            face_box=box,
            rate=rate,
        )

    def _pose(self, body: Tensor, appearance: Tensor, pose: Tensor, expression: Tensor) -> Posed:
        frames = pose.shape[1]
        who = body.repeat_interleave(frames)
        push = push_out(self.people, appearance).repeat_interleave(frames, dim=0)
        return skin(self.rig, who, pose.flatten(0, 1), expression.flatten(0, 1), push)

    def _draw(self, posed: Posed, camera: Camera, subjects: Subjects, height: int, width: int) -> Picture:
        s = self.settings
        return render(self.people, posed, camera, subjects, height, width, Quality(s.supersample, s.plain, s.compiled))

    def _confidence(self, dice: Dice, posed: Posed, camera: Camera, flat: Tensor, height: int, width: int) -> Tensor:
        """1 for points a detector would find, else 0: [n, F, 133]."""
        n, frames, _, _ = flat.shape
        size = flat.new_tensor([width, height])
        margin = 0.04 * size
        seen = ((flat > -margin) & (flat < size + margin)).all(-1)
        away = (posed.head_forward * camera.rotation[:, 2]).sum(-1).unflatten(0, (n, frames)) > 0.35
        honest = dice.chance(0.5, 1)  # some detectors guess the hidden eyes and nose
        hidden = (away & honest).unsqueeze(-1)
        facial = torch.zeros(133, dtype=torch.bool, device=flat.device)
        facial[0:3] = True
        seen &= ~(hidden & facial)
        facial[0:3] = False
        facial[23:91] = True
        seen &= ~(away.unsqueeze(-1) & facial)
        for start in (91, 112):  # a hand is found as a whole or not at all
            most = seen[..., start : start + 21].float().mean(-1, keepdim=True) > 0.6
            seen[..., start : start + 21] &= most
        return seen.float()

    def _faces(
        self,
        dice: Dice,
        person: Person,
        other: Person,
        pose: Tensor,
        expression: Tensor,
        camera: Camera,
        backdrop: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Face crops uint8 [n, F, S, S, 3], of someone else in `other_face` of the clips, `face_points`, whose they are [n]."""
        s, (n, frames) = self.settings, backdrop.shape[:2]
        swapped = dice.chance(s.other_face)
        someone = torch.where(swapped, other.body, person.body)
        appearance = torch.where(swapped.unsqueeze(1), other.appearance, person.appearance)
        light = torch.where(swapped.unsqueeze(1), other.light, person.light)
        posed = self._pose(someone, appearance, pose, expression)
        views = _spread(camera, frames)
        flat = views.project(posed.keypoints[:, 23:91])[..., :2].unflatten(0, (n, frames))
        box = job_boxes(face_boxes(flat))
        box = (loosen_boxes(dice, box) if s.loose else box).flatten(0, 1)
        if s.disturb:  # detectors' boxes are a little off, always alike within a clip
            size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
            off = dice.normal(0.025, 4).repeat_interleave(frames, dim=0)
            box = box + off * size
        crop = views.cropped(box, s.face_size, s.face_size)
        owner = torch.arange(n, device=someone.device).repeat_interleave(frames)
        picture = self._draw(posed, crop, Subjects(owner, appearance, light), s.face_size, s.face_size)
        behind = _cut(backdrop, box, s.face_size)
        face = picture.over(behind).unflatten(0, (n, frames))
        box = box.view(n, frames, 1, 4)
        points = (flat - box[..., :2]) / (box[..., 2:] - box[..., :2]) * 2 - 1
        if s.disturb:
            face, points = disturb_faces(dice, face, points)
        return _bytes(face), points, someone


def _cut(backdrop: Tensor, box: Tensor, size: int) -> Tensor:
    """The scene behind face boxes, [N, size, size, 3] from [n, F, h, w, 3] and boxes [N, 4]."""
    picture = backdrop.flatten(0, 1).permute(0, 3, 1, 2)
    height, width = picture.shape[2:]
    grid = (torch.arange(size, device=box.device) + 0.5) / size
    x = (box[:, 0:1] + (box[:, 2:3] - box[:, 0:1]) * grid) / width * 2 - 1
    y = (box[:, 1:2] + (box[:, 3:4] - box[:, 1:2]) * grid) / height * 2 - 1
    where = torch.stack([x.unsqueeze(1).expand(-1, size, size), y.unsqueeze(2).expand(-1, size, size)], dim=-1)
    return grid_sample(picture, where, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)


def _inpaint_masks(dice: Dice, cover: Tensor) -> Tensor:
    """Regions to be generated in replacement mode, bool [n, F, h, w]: the grown person, as outline, blocks or box."""
    n, frames, height, width = cover.shape
    person = (cover > 0.02).float().flatten(0, 1).unsqueeze(1)
    reach = max(3, round(min(height, width) / 40) * 2 + 1)
    grown = max_pool2d(max_pool2d(person, (reach, 1), 1, (reach // 2, 0)), (1, reach), 1, (0, reach // 2))
    block = max(4, round(min(height, width) / 16))
    coarse = max_pool2d(grown, block, ceil_mode=True)
    blocks = coarse.repeat_interleave(block, 2).repeat_interleave(block, 3)[:, :, :height, :width]
    rows, columns = grown.amax(3, keepdim=True), grown.amax(2, keepdim=True)
    box = (rows.cummax(2).values * rows.flip(2).cummax(2).values.flip(2)) * (
        columns.cummax(3).values * columns.flip(3).cummax(3).values.flip(3)
    )
    kind = dice.pick([0.4, 0.3, 0.3]).repeat_interleave(frames).view(-1, 1, 1, 1)
    chosen = torch.where(kind == 0, grown, torch.where(kind == 1, blocks, box))
    return (chosen > 0.5).squeeze(1).unflatten(0, (n, frames))


def _bytes(values: Tensor) -> Tensor:
    return (values * 255 + 0.5).to(torch.uint8)
