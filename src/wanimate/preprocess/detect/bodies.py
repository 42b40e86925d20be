"""Bodies and their faces in a picture: looked for afresh, or followed from one picture to the next.

A pose network can lock onto an upside-down body with full confidence, and its score does not reveal it (preprocess spec,
section 17). So every body has to be supported by the network's own heat maps and to agree with its face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wanimate.preprocess.detect.checks import (
    APART,
    CLOSE,
    MIN_SCORE,
    SUPPORTED,
    SURE,
    head_angle,
    head_square,
    is_body,
    looks_away,
    noses_apart,
    plausible,
)
from wanimate.preprocess.detect.landmarks import Mesh, Networks, Pose, face_square, person_square
from wanimate.preprocess.detect.litert import Picture, Square, Vectors
from wanimate.preprocess.detect.tiles import tiles
from wanimate.preprocess.pose.keypoints import BODY, VALID_CONFIDENCE
from wanimate.types import Keypoints

# A standing body, seen from its face: the hips are 4.5 face widths below it, the circle around the body 14 wide.
_HIPS_BELOW, _BODY_SIDE = 4.5, 14.0
_CROWD = 8
"""At most so many faces, and so many bodies, are measured of a crowd."""
_TURNS = (0.0, math.pi / 2, -math.pi / 2, math.pi)
_LEAN = math.radians(45)
"""Someone who is followed may have rotated by so much since the frame before."""
_ROTATED, _MOVED, _LOOKS = math.radians(10), 0.08, 4
"""Beyond these radians, or this share of its square, a body is looked at again, as often as the third says."""
_TOWARDS = 0.3
"""A body claims to look at the camera, or away from it, beyond this `Pose.face_towards`."""
# Scales and rotations in which people seen from behind are known as such, if not in their own square.
_OTHER_LOOKS = ((0.85, 0.0), (0.9, -0.3), (0.8, 0.3), (1.0, -0.3), (1.0, 0.3))
_WITH_FACE = 1.15
"""Of two looks at one person the one with a face counts as so much larger."""
_OF_BODY = 1.15
"""A square around a known person's points, in spans from the hips to the farthest of them and back."""


@dataclass(frozen=True)
class Body:
    """One person: body and face; `found` as of `PersonPose`."""

    pose: Pose
    mesh: Mesh | None
    found: str


class Bodies:
    """Finds bodies with the six networks."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def main(self, picture: Picture, deep: bool) -> Body | None:
        """The largest person.

        `deep`: where the picture shows nobody, look at it turned and in tiles, too.
        """
        people = list(self._upright(picture))
        sure = [body for body in people if body.mesh is not None or body.pose.support >= SURE]
        if not sure and deep:
            people += self._turned(picture)
            sure = people or list(self._in_tiles(picture))
        return max(sure or people, key=_prominence, default=None)

    def everybody(self, picture: Picture, deep: bool, known: Body | None = None) -> list[Body]:
        """All people, some of them perhaps twice, without the one who is known already. `deep`: see `main`."""
        people = list(self._upright(picture, known))
        if deep and not people and known is None:
            people = list(self._turned(picture)) or list(self._in_tiles(picture))
        return people

    def follow(self, picture: Picture, before: Body) -> Body | None:
        """The same person in the next picture; None where they cannot be told from there."""
        start = before.pose.next
        best = self._networks.body(picture, start)
        for _ in range(_LOOKS):
            if best.support < SUPPORTED or not _left(start, best.next):
                break
            start = best.next
            best = max(best, self._networks.body(picture, start), key=lambda pose: pose.support)
        if best.support < SURE:
            for where in self._near(picture, best, before):
                best = max(best, self._networks.body(picture, where), key=lambda pose: pose.support)
                if best.support >= SURE:
                    break
        if not is_body(best):
            return None
        mesh = self._face(picture, best, before)
        if mesh is None and looks_away(before.pose):
            best = self._from_behind(picture, best)
        return Body(best, mesh, "track")

    def at(self, picture: Picture, person: Keypoints) -> Body | None:
        """The body whose points [133, 3] are known in this very picture."""
        pose = self._networks.body(picture, _around(person))
        pose = max(pose, self._networks.body(picture, pose.next), key=lambda p: p.support)
        return Body(pose, self._face(picture, pose, None), "track") if is_body(pose) else None

    def _near(self, picture: Picture, best: Pose, before: Body) -> Iterator[Square]:
        yield best.next
        if before.mesh is not None:
            mesh = self._networks.face(picture, before.mesh.next)
            if mesh.score >= MIN_SCORE:
                yield _below(mesh)
        old = before.pose.next
        for lean in (_LEAN, -_LEAN):
            yield Square(old.x, old.y, old.side, old.angle + lean)

    def _upright(self, picture: Picture, known: Body | None = None) -> Iterator[Body]:
        yield from self._seen(picture, picture.whole(), known)

    def _turned(self, picture: Picture) -> Iterator[Body]:
        whole = picture.whole()
        for turn in _TURNS[1:]:
            yield from self._seen(picture, Square(whole.x, whole.y, whole.side, turn), None)

    def _in_tiles(self, picture: Picture) -> Iterator[Body]:
        for left, top, side in tiles(picture.width, picture.height):
            tile = Square(left + side / 2, top + side / 2, side)
            for body in self._without_face(picture, tile, None):
                if body.pose.support >= SURE:
                    yield body

    def _seen(self, picture: Picture, where: Square, known: Body | None) -> Iterator[Body]:
        faces = sorted(self._networks.find_faces(picture, where), key=lambda f: -f.area)[:_CROWD]
        for face in faces:
            if known is not None and _holds(head_square(known.pose), face.box[:2]):
                continue
            mesh = self._networks.face(picture, face_square(face))
            if mesh.score >= MIN_SCORE and (pose := self._twice(picture, _below(mesh))) and is_body(pose, mesh):
                yield Body(pose, mesh, "face")
        yield from self._without_face(picture, where, known)

    def _without_face(self, picture: Picture, where: Square, known: Body | None) -> Iterator[Body]:
        """Bodies of the person detector; a face is looked for on each."""
        for person in self._networks.find_people(picture, where)[:_CROWD]:
            square = person_square(person)
            if known is not None and _near_by(square, known.pose.next):
                continue
            best = self._twice(picture, square)
            for turn in _TURNS[1:]:
                if best.support >= SURE:
                    break
                other = self._twice(picture, Square(square.x, square.y, square.side, square.angle + turn))
                best = max(best, other, key=lambda pose: pose.support)
            if is_body(best):
                mesh = self._face(picture, best, None)
                yield Body(best if mesh is not None else self._from_behind(picture, best), mesh, "detector")

    def _from_behind(self, picture: Picture, pose: Pose) -> Pose:
        """A body without a face that claims to look at the camera, as seen from behind if that is as likely.

        Seen from behind, people are taken for their mirror image now and then. Other squares tell.
        """
        if pose.face_towards < _TOWARDS:
            return pose
        old = pose.next
        for scale, lean in _OTHER_LOOKS:
            other = self._networks.body(picture, Square(old.x, old.y, old.side * scale, old.angle + lean))
            if other.face_towards < -_TOWARDS and is_body(other):
                return other
        return pose

    def _twice(self, picture: Picture, where: Square) -> Pose:
        """The body in a square, looked at once more in the square that the first pass asks for."""
        pose = self._networks.body(picture, where)
        if pose.score < MIN_SCORE:
            return pose
        again = self._networks.body(picture, pose.next)
        return again if again.score >= MIN_SCORE and again.support >= pose.support - 0.1 else pose

    def _face(self, picture: Picture, pose: Pose, before: Body | None) -> Mesh | None:
        """The face of a known body: tracked with its head, else looked for around it.

        Where a face is more than a quarter of its width off the body's nose, it is looked for anew.
        """
        best: Mesh | None = None
        if before is not None and before.mesh is not None:
            best = self._fitting(pose, self._networks.face(picture, _moved(before.mesh.next, pose, before.pose)), None)
            if best is not None and noses_apart(pose, best) <= CLOSE:
                return best
        for face in self._networks.find_faces(picture, head_square(pose)):
            best = self._fitting(pose, self._networks.face(picture, face_square(face)), best)
        return best

    def _fitting(self, pose: Pose, mesh: Mesh, best: Mesh | None) -> Mesh | None:
        """The one of two faces that fits the body better."""
        apart = noses_apart(pose, mesh)
        if mesh.score < MIN_SCORE or apart > APART or not plausible(pose, mesh):
            return best
        return mesh if best is None or apart < noses_apart(pose, best) else best


def _below(mesh: Mesh) -> Square:
    """The square of the body under a face."""
    down = mesh.down / np.hypot(*mesh.down)
    hips = mesh.centre + down * _HIPS_BELOW * mesh.width
    return Square.at(hips, _BODY_SIDE * mesh.width, float(np.arctan2(-down[0], down[1])))


def _moved(square: Square, pose: Pose, before: Pose) -> Square:
    """A square on the head, carried along with it."""
    step = pose.points[0, :2] - before.points[0, :2]
    turn = head_angle(pose) - head_angle(before)
    return Square(square.x + float(step[0]), square.y + float(step[1]), square.side, square.angle + turn)


def _left(square: Square, wanted: Square) -> bool:
    """Whether a body has rotated or moved so far in its square that it is worth looking at it in a better one."""
    turn = (wanted.angle - square.angle + math.pi) % (2 * math.pi) - math.pi
    return abs(turn) > _ROTATED or math.hypot(wanted.x - square.x, wanted.y - square.y) > _MOVED * square.side


def _around(person: Keypoints) -> Square:
    body = person[BODY]
    hips, neck = body[[11, 12], :2].mean(axis=0), body[[5, 6], :2].mean(axis=0)
    seen = body[body[:, 2] >= VALID_CONFIDENCE, :2]
    reach = float(np.hypot(*(seen - hips).T).max())
    up = neck - hips
    return Square.at(hips, 2 * _OF_BODY * reach, float(np.arctan2(up[0], -up[1])))


def _near_by(square: Square, other: Square) -> bool:
    """Whether two squares are around one person: their middles, the hips, are close."""
    return math.hypot(square.x - other.x, square.y - other.y) < square.side / 8


def _holds(square: Square, point: Vectors) -> bool:
    x, y = square.to_square(point)
    return bool(0.2 < x < 0.8 and 0.2 < y < 0.8)


def _prominence(body: Body) -> tuple[bool, float]:
    """Sure people before others, then the largest; where both look at one person, the one with the face."""
    return body.pose.support >= SURE, body.pose.next.side * (_WITH_FACE if body.mesh is not None else 1.0)
