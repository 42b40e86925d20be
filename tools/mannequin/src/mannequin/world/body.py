"""From pose angles to a skinned person: degrees of freedom, forward kinematics, linear blend skinning, in batches.

Zero pose: standing, legs straight, arms hanging, thumbs forward, facing -y. Angles are radians; a positive side angle
leads away from the body on both sides, so equal values left and right are mirror images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mannequin.world.assets import Mannequins

_ARM = (
    "clavicle_up",
    "clavicle_forward",
    "arm_forward",
    "arm_side",
    "arm_twist",
    "elbow",
    "pronation",
    "wrist",
    "wrist_side",
)
_HAND = tuple(f"knuckle{i}" for i in range(1, 6)) + tuple(f"finger{i}" for i in range(1, 6)) + ("spread",)
_LEG = ("leg_forward", "leg_side", "leg_twist", "knee", "ankle", "ankle_side")
_TRUNK = ("x", "y", "z", "yaw", "pitch", "roll", "bend", "lean", "twist", "nod", "tilt", "turn", "gaze_x", "gaze_y")
DOF: tuple[str, ...] = _TRUNK + tuple(f"{name}_{side}" for side in "LR" for name in _ARM + _HAND + _LEG)
"""Names of the degrees of freedom, in order. bend, lean, twist: spine; nod, tilt, turn: neck and head."""
AT = {name: i for i, name in enumerate(DOF)}
_SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
_NECK = (("neck01", 0.2), ("neck02", 0.15), ("neck03", 0.15), ("head", 0.5))


def rotation(vector: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3] (axis times angle), Rodrigues' formula."""
    angle = vector.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    x, y, z = (vector / angle).unbind(-1)
    s, c = torch.sin(angle[..., 0]), torch.cos(angle[..., 0])
    k = 1 - c
    rows = [
        c + x * x * k, x * y * k - z * s, x * z * k + y * s,
        y * x * k + z * s, c + y * y * k, y * z * k - x * s,
        z * x * k - y * s, z * y * k + x * s, c + z * z * k,
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _frame(first: Tensor, second: Tensor) -> Tensor:
    """Orthonormal frame with columns first, second made perpendicular to it, and their cross product."""
    first = normalize(first, dim=-1)
    second = normalize(second - (second * first).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], dim=-1)


def _signed_angle(a: Tensor, b: Tensor, axis: Tensor) -> Tensor:
    """Angle that turns `a` onto `b` about `axis`."""
    return torch.atan2((torch.cross(a, b, dim=-1) * axis).sum(-1), (a * b).sum(-1))


@dataclass(frozen=True)
class _Limb:
    """Rest geometry of one arm or leg for every body: `zero` turns its first bone to hang straight down."""

    zero: Tensor  # [B, 3, 3]
    hinge: Tensor  # [B, 3] axis of elbow or knee
    bent: Tensor  # [B] rest angle about the hinge
    low: Tensor  # [B, 3] direction of the second bone


class Rig:
    """Rest axes of all bodies, and the way from angles to bone transforms."""

    def __init__(self, people: Mannequins) -> None:
        self.people = people
        self._arms = {side: self._limb("upperarm01", "lowerarm01", "wrist", side, None) for side in "LR"}
        lateral = people.joints.new_tensor([1.0, 0.0, 0.0])
        self._legs = {side: self._limb("upperleg01", "lowerleg01", "foot", side, lateral) for side in "LR"}
        self._hands = {side: self._hand(side) for side in "LR"}
        feet = [people.bone(f"{name}.{side}") for name in ("foot", "toe1-1", "toe5-1") for side in "LR"]
        self._feet = torch.tensor(feet, device=people.device)
        self._floor = people.rest[..., 2].amin(dim=1)  # [B]

    def _head(self, name: str) -> Tensor:
        return self.people.joints[:, self.people.bone(name)]

    def _limb(self, first: str, second: str, end: str, side: str, axis: Tensor | None) -> _Limb:
        a, b, c = (self._head(f"{name}.{side}") for name in (first, second, end))
        upper, lower = normalize(b - a, dim=-1), normalize(c - b, dim=-1)
        down = upper.new_tensor([0.0, 0.0, -1.0]).expand_as(upper)
        if axis is None:
            rest = _frame(upper, torch.cross(upper, lower, dim=-1))
            zero = _frame(down, upper.new_tensor([-1.0, 0.0, 0.0]).expand_as(upper)) @ rest.mT
        else:
            rest = _frame(upper, axis.expand_as(upper))
            zero = _frame(down, axis.expand_as(upper)) @ rest.mT
        hinge = rest[..., 1]
        return _Limb(zero, hinge, _signed_angle(upper, lower, hinge), lower)

    def _hand(self, side: str) -> dict[str, Tensor]:
        """Axes of a hand: along the fingers, across towards the thumb, out of the palm, and each finger's curl axis."""
        wrist, index, middle, little = (
            self._head(f"{n}.{side}") for n in ("wrist", "finger2-1", "finger3-1", "finger5-1")
        )
        frame = _frame(middle - wrist, index - little)
        along, across = frame[..., 0], frame[..., 1]
        palm = frame[..., 2] if side == "L" else -frame[..., 2]
        axes = {"along": along, "across": across, "palm": palm}
        for finger in range(1, 6):
            base, tip = self._head(f"finger{finger}-1.{side}"), self._head(f"finger{finger}-3.{side}")
            towards = palm if finger > 1 else normalize(palm - across, dim=-1)
            axes[f"curl{finger}"] = normalize(torch.cross(tip - base, towards, dim=-1), dim=-1)
        arm = self._arms[side]
        flat = across - (across * arm.low).sum(-1, keepdim=True) * arm.low
        neutral = torch.cross(arm.hinge, arm.low, dim=-1)
        axes["supine"] = _signed_angle(flat, neutral, arm.low)
        return axes

    def bones(self, body: Tensor, pose: Tensor, grounded: bool = True) -> tuple[Tensor, Tensor]:
        """Bone transforms, as rotation [N, J, 3, 3] and translation [N, J, 3]: x -> R x + t from the rest pose.

        Args:
            body: [N] indices of bodies; pose: [N, len(DOF)]; grounded: put the lowest foot on z = 0 before `z` is added.
        """
        turns = self._rotations(body, pose)
        joints = self.people.joints[body]
        angle, place = torch.empty_like(turns), torch.empty_like(joints)
        angle[:, 0], place[:, 0] = turns[:, 0], joints[:, 0]
        for child, parent in self.people.levels:
            before = angle[:, parent]
            angle[:, child] = before @ turns[:, child]
            step = (joints[:, child] - joints[:, parent]).unsqueeze(-1)
            place[:, child] = place[:, parent] + (before @ step).squeeze(-1)
        shift = pose[:, :3].clone()
        if grounded:
            height = joints[:, self._feet, 2] - self._floor[body][:, None]
            shift[:, 2] -= (place[:, self._feet, 2] - height).amin(dim=1)
        place = place + shift[:, None]
        return angle, place - (angle @ joints.unsqueeze(-1)).squeeze(-1)

    def _rotations(self, body: Tensor, pose: Tensor) -> Tensor:
        """Rotation of every bone in the axes of the rest pose, relative to its parent, [N, J, 3, 3]."""
        vectors: list[Tensor] = []
        index: dict[str, int] = {}

        def value(name: str) -> Tensor:
            return pose[:, AT[name]]

        def add(key: str, vector: Tensor) -> None:
            index[key] = len(vectors)
            vectors.append(vector)

        def about(key: str, axis: Tensor, angle: Tensor) -> None:
            add(key, axis[body] * angle[:, None])

        zero = torch.zeros_like(pose[:, 0])
        add("yaw", torch.stack([zero, zero, value("yaw")], -1))
        add("root", torch.stack([value("pitch"), value("roll"), zero], -1))
        add("spine", torch.stack([value("bend"), value("lean"), value("twist")], -1) / len(_SPINE))
        for bone, share in _NECK:
            add(bone, torch.stack([value("nod"), value("tilt"), value("turn")], -1) * share)
        add("eye", torch.stack([value("gaze_y"), zero, value("gaze_x")], -1))
        for side, out in (("L", 1.0), ("R", -1.0)):
            arm, leg, hand = self._arms[side], self._legs[side], self._hands[side]
            forward, sideways = value(f"arm_forward_{side}"), value(f"arm_side_{side}")
            lift = (torch.hypot(forward, sideways) - 0.7).clamp_min(0) * 0.22  # the shoulder follows a raised arm
            up = value(f"clavicle_up_{side}") + lift
            add(f"clavicle{side}", torch.stack([zero, -out * up, -out * value(f"clavicle_forward_{side}")], -1))
            add(f"swing{side}", torch.stack([-forward, -out * sideways, zero], -1))
            add(f"twist{side}", torch.stack([zero, zero, -out * value(f"arm_twist_{side}")], -1))
            about(f"elbow{side}", arm.hinge, value(f"elbow_{side}") - arm.bent[body])
            roll = out * value(f"pronation_{side}") + hand["supine"][body]
            about(f"roll{side}", arm.low, roll)
            about(f"halfroll{side}", arm.low, roll * 0.5)
            about(f"wrist{side}", torch.cross(hand["along"], hand["palm"], dim=-1), value(f"wrist_{side}"))
            about(f"wrist_side{side}", torch.cross(hand["along"], hand["across"], dim=-1), value(f"wrist_side_{side}"))
            for finger, fan in zip(range(1, 6), (0.0, 1.0, 0.1, -0.8, -1.6), strict=True):
                knuckle, bend = value(f"knuckle{finger}_{side}"), value(f"finger{finger}_{side}")
                axis = hand[f"curl{finger}"]
                about(f"f{finger}1{side}", axis, knuckle)
                about(f"f{finger}2{side}", axis, bend)
                about(f"f{finger}3{side}", axis, bend * 0.65)
                sideward = torch.cross(hand["along"], hand["across"], dim=-1)
                about(f"fan{finger}{side}", sideward, value(f"spread_{side}") * fan)
            forward, sideways = value(f"leg_forward_{side}"), value(f"leg_side_{side}")
            add(f"hip{side}", torch.stack([-forward, -out * sideways, zero], -1))
            add(f"hiptwist{side}", torch.stack([zero, zero, -out * value(f"leg_twist_{side}")], -1))
            about(f"knee{side}", leg.hinge, value(f"knee_{side}") - leg.bent[body])
            about(f"straight{side}", leg.hinge, -leg.bent[body])
            ankle = [-value(f"ankle_{side}"), -out * value(f"ankle_side_{side}"), zero]
            add(f"ankle{side}", torch.stack(ankle, -1))
        turned = rotation(torch.stack(vectors, dim=1))

        def get(key: str) -> Tensor:
            return turned[:, index[key]]

        people = self.people
        out_turns = torch.eye(3, device=pose.device).expand(len(pose), len(people.bones), 3, 3).clone()

        def put(bone: str, matrix: Tensor) -> None:
            out_turns[:, people.bone(bone)] = matrix

        put("root", get("yaw") @ get("root"))
        for bone in _SPINE:
            put(bone, get("spine"))
        for bone, _ in _NECK:
            put(bone, get(bone))
        for side in "LR":
            put(f"eye.{side}", get("eye"))
            put(f"clavicle.{side}", get(f"clavicle{side}"))
            zero_arm, zero_leg = self._arms[side].zero[body], self._legs[side].zero[body]
            put(f"upperarm01.{side}", get(f"swing{side}") @ get(f"twist{side}") @ zero_arm)
            put(f"lowerarm01.{side}", get(f"elbow{side}"))
            put(f"lowerarm02.{side}", get(f"halfroll{side}"))
            put(f"wrist.{side}", get(f"roll{side}") @ get(f"wrist{side}") @ get(f"wrist_side{side}"))
            for finger in range(1, 6):
                put(f"finger{finger}-1.{side}", get(f"fan{finger}{side}") @ get(f"f{finger}1{side}"))
                put(f"finger{finger}-2.{side}", get(f"f{finger}2{side}"))
                put(f"finger{finger}-3.{side}", get(f"f{finger}3{side}"))
            put(f"upperleg01.{side}", get(f"hip{side}") @ get(f"hiptwist{side}") @ zero_leg)
            put(f"lowerleg01.{side}", get(f"knee{side}"))
            put(f"foot.{side}", (zero_leg @ get(f"straight{side}")).mT @ get(f"ankle{side}"))
        return out_turns


@dataclass(frozen=True)
class Posed:
    """Skinned people: vertices and unit normals [N, V, 3], keypoints [N, 133, 3], head_forward [N, 3]."""

    vertices: Tensor
    normals: Tensor
    keypoints: Tensor
    head_forward: Tensor


def skin(
    rig: Rig, body: Tensor, pose: Tensor, expression: Tensor, push: Tensor | None = None, grounded: bool = True
) -> Posed:
    """Pose bodies.

    Args:
        body: [N] indices; pose: [N, len(DOF)]; expression: [N, E] weights; push: [N, V] metres along the rest normal
        (hair, loose clothes), or None.
    """
    people = rig.people
    angle, offset = rig.bones(body, pose, grounded)
    matrix = torch.cat([angle, offset.unsqueeze(-1)], dim=-1).flatten(2).mT  # [N, 12, J]
    rest, normal = people.rest[body], people.normals[body]
    if push is not None:
        rest = rest + normal * push.unsqueeze(-1)
    rest = rest.index_add(1, people.moved, torch.einsum("ne,emd->nmd", expression, people.expressions))
    blended = matrix @ people.skin.T  # [N, 12, V]
    vertices, normals = _apply(blended, rest), normalize(_apply(blended, normal, turn_only=True), dim=-1)
    key_rest = people.key_rest[body] + torch.einsum("ne,ekd->nkd", expression, people.key_expressions)
    keypoints = _apply(matrix @ people.key_skin.T, key_rest)
    forward = -angle[:, people.bone("head"), :, 1]
    return Posed(vertices, normals, keypoints, forward)


def _apply(blended: Tensor, points: Tensor, turn_only: bool = False) -> Tensor:
    """Row-major 3x4 matrices [N, 12, V] on points [N, V, 3]."""
    x, y, z = points.unbind(-1)
    rows = []
    for r in range(3):
        a, b, c, d = (blended[:, 4 * r + i] for i in range(4))
        rows.append(a * x + b * y + c * z if turn_only else a * x + b * y + c * z + d)
    return torch.stack(rows, dim=-1)
