"""Forms of reviews: what people send, and how a shot is shown to them."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from wanimate.approval.regions import Region
from wanimate.handoff.copies import Mezzanine
from wanimate.review import records as r
from wanimate.serve.approvals.releases import Gone
from wanimate.serve.reviews.desk import Right
from wanimate.serve.reviews.guests import DAYS, LONGEST
from wanimate.serve.reviews.guests import Right as GuestRight
from wanimate.serve.reviews.shots import Listed, Looked
from wanimate.serve.tables import GuestLink, Job

ShotId = Annotated[str, Path(max_length=64, description="As `id` of a shot.")]
CommentId = Annotated[str, Path(max_length=64, description="As `id` of a comment or an answer.")]
LinkId = Annotated[str, Path(max_length=64, description="As `id` of a guest link.")]
ReleaseId = Annotated[str, Path(max_length=64, description="As `id` of a release.")]
FileOf = Callable[[Job, Literal["video", "thumbnail"]], str | None]
"""The address of a job's file, as whoever asks may load it."""


class Signed(r.Form):
    """`name`: what the person calls themselves; the key's owner if it is left out. Guests gave their name already."""

    name: r.Name | None = None


class OfJob(r.Form):
    """A finished job. `alone`: it leaves its stack and begins a new one."""

    job: str = Field(max_length=64)
    alone: bool = False


class NewName(r.Form):
    """What is left out stays. `project`: what the shot is part of; "" is nothing."""

    name: Annotated[r.Name, Field(examples=["Scene 12, shot 3"])] | None = None
    project: Annotated[r.Project, Field(examples=["Spring campaign"])] | None = None


class NewComment(r.Remark):
    """A remark about a version. `name`: what the person calls themselves."""

    version: str | None = Field(default=None, max_length=64, description="Its job; the newest version if left out.")
    name: r.Name | None = None


class NewReply(Signed):
    text: r.Text


class CommentChanges(Signed):
    """`text`: by who wrote it only."""

    text: r.Text | None = None
    resolved: bool | None = None


class NewDecision(Signed):
    """`needs_review` takes back what was decided. `regions`: what an approval is for, beside those of the house's policy."""

    version: str | None = Field(default=None, max_length=64, description="Its job; the newest version if left out.")
    state: r.State
    reason: r.Reason = ""
    regions: Annotated[tuple[Region, ...], Field(max_length=50)] = ()


class Recalled(Signed):
    """`note`: how it was taken back."""

    note: r.Reason = ""


class ReleaseView(BaseModel):
    """A result that left: how, where to, by which decisions. `derived`: name and SHA-256 of what was made of it on the way."""

    object: Literal["release"] = "release"
    id: str
    at: int
    output: str
    way: str
    place: str
    regions: list[str]
    derived: list[list[str]]
    decisions: list[str]
    by: str
    state: Literal["left", "to_be_taken_back", "taken_back"]
    asked: int | None
    confirmed: int | None
    confirmed_by: str | None
    note: str | None


def release_view(gone: Gone) -> ReleaseView:
    return ReleaseView.model_validate(gone.told())


class HandOff(BaseModel):
    """What is asked of a package."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = Field(default=None, max_length=64, description="Its job; the newest version if left out.")
    mezzanine: Mezzanine = Field(default="none", description="File for the edit.")
    regions: Annotated[tuple[Region, ...], Field(max_length=50)] = ()


class NewLink(Signed):
    """A link for guests. To see the shot is always allowed."""

    label: Annotated[str, Field(max_length=r.LONGEST_NAME)] = ""
    rights: Annotated[tuple[GuestRight, ...], Field(max_length=3)] = ("view", "comment")
    days: Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)] = DAYS


class LinkView(BaseModel):
    """`works`: it is neither revoked nor expired."""

    object: Literal["guest_link"] = "guest_link"
    id: str
    label: str
    rights: list[GuestRight]
    made_by: str
    created: int
    expires: int
    revoked: int | None
    works: bool


class MadeLink(LinkView):
    """`url` is the link itself. It is shown only now."""

    url: str


def link_view(link: GuestLink, at: int) -> LinkView:
    works = link.revoked is None and link.expires > at
    names = ("id", "label", "rights", "made_by", "created", "expires", "revoked")
    return LinkView(**{name: getattr(link, name) for name in names}, works=works)


class VersionView(r.Version):
    """A version, and where its files are while they are kept."""

    video: str | None = None
    filename: str | None = None
    media_type: str | None = None
    thumbnail: str | None = None


class CommentView(r.Comment):
    """A comment, and which of it and its answers (`mine`) the one who asks may change."""

    mine: tuple[str, ...] = ()


class ShotView(BaseModel):
    """A shot as somebody sees it. `you`: what they are called. `rights`: what they may do."""

    object: Literal["shot"] = "shot"
    id: str
    name: str
    project: str = Field("", description="What it is part of. Guests are not told.")
    state: r.State
    created: int
    changed: int
    versions: list[VersionView]
    comments: list[CommentView]
    decisions: list[r.Decided]
    intact: bool
    you: str
    rights: list[Right]
    owner: str | None = None
    expires: int | None = Field(default=None, description="Of a guest: when the link ends.")


class ShotRow(BaseModel):
    """A shot in a list. `open`: comments that are not resolved."""

    object: Literal["shot"] = "shot"
    id: str
    owner: str
    name: str
    state: r.State
    created: int
    changed: int
    versions: int
    open: int
    thumbnail: str | None


def row_view(row: Listed, file_of: FileOf) -> ShotRow:
    shot = row.shot
    thumbnail = None if row.newest is None else file_of(row.newest, "thumbnail")
    return ShotRow(
        id=shot.id, owner=shot.owner, name=shot.name, state=r.State(shot.state), created=shot.created,
        changed=shot.changed, versions=row.versions, open=row.open, thumbnail=thumbnail,
    )  # fmt: skip


def shot_view(found: Looked, you: str, rights: frozenset[Right], file_of: FileOf) -> ShotView:
    """For who has a key."""
    shot = found.shot
    order: tuple[Right, ...] = ("view", "comment", "decide", "manage")
    return ShotView(
        id=shot.id, owner=shot.owner, name=shot.name, project=shot.project, state=shot.state, created=shot.created,
        changed=shot.changed, versions=[_version(one, found, file_of) for one in shot.versions],
        comments=[_comment(one, found) for one in shot.comments], decisions=list(shot.decisions), intact=shot.intact,
        you=you, rights=[right for right in order if right in rights],
    )  # fmt: skip


def guest_view(found: Looked, you: str, rights: frozenset[Right], file_of: FileOf, expires: int) -> ShotView:
    """For a guest: without records, which name keys and other guests, and without the owner."""
    told = shot_view(found, you, rights, file_of)
    decisions = [one.model_copy(update={"record": {}}) for one in told.decisions]
    return told.model_copy(update={"owner": None, "project": "", "decisions": decisions, "expires": expires})


def _version(version: r.Version, found: Looked, file_of: FileOf) -> VersionView:
    job = found.jobs.get(version.job)
    told = version.model_dump()
    if job is None or "video" not in job.result:
        return VersionView(**told)
    suffix = job.result["video"].rpartition("/")[2].partition(".")[2]
    filename = f"{job.id}.{suffix}"
    return VersionView(
        **told, video=file_of(job, "video"), filename=filename, thumbnail=file_of(job, "thumbnail"),
        media_type=mimetypes.guess_type(filename)[0] or "application/octet-stream",
    )  # fmt: skip


def _comment(comment: r.Comment, found: Looked) -> CommentView:
    ids = [comment.id, *(reply.id for reply in comment.replies)]
    return CommentView(**comment.model_dump(), mine=tuple(one for one in ids if one in found.mine))
