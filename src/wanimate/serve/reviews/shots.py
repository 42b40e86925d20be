"""Shots: found, looked at, named, and stacked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.approval.standing import Asked, standing
from wanimate.review import chain
from wanimate.review import records as r
from wanimate.serve.approvals.house import Approvals
from wanimate.serve.approvals.origin import origin_of_version
from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.reviews import stacks
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.tables import Job, Shot, ShotComment, ShotDecision, ShotVersion, now, storable


@dataclass(frozen=True)
class Looked:
    """A shot as somebody sees it. `jobs`: those of its versions whose files are kept. `mine`: comments that they wrote."""

    shot: r.Shot
    jobs: Mapping[str, Job]
    mine: frozenset[str]


@dataclass(frozen=True)
class Listed:
    """A row of a list. `open`: comments that are not resolved. `newest`: the job of the newest version, while it is kept."""

    shot: Shot
    versions: int
    open: int
    newest: Job | None


@dataclass(frozen=True)
class Wanted:
    """Which shots. `before`: (changed, id) of the last row of the page before. `everybody`: of all owners."""

    state: r.State | None = None
    search: str = ""
    everybody: bool = False
    limit: int = 50
    before: tuple[int, str] | None = None
    project: str | None = None


class Shots:
    """Every method raises ServiceError: 404 for what is not there or is somebody else's, 403 for a right that is missing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def look(self, who: Reviewer, shot_id: str) -> Looked:
        with self._desk.database.read() as session:
            return looked(session, who, self._desk.opened(session, who, shot_id), self._desk.approvals)

    def listed(self, who: Reviewer, owner: str, wanted: Wanted) -> Sequence[Listed]:
        """Shots, the last changed first; `limit` + 1 where there are more. `owner`: whose, unless all are wanted."""
        with self._desk.database.read() as session:
            rows = session.scalars(self._chosen(who, owner, wanted).limit(wanted.limit + 1)).all()
            ids = [shot.id for shot in rows]
            counted = sa.select(ShotVersion.shot_id, sa.func.count()).group_by(ShotVersion.shot_id)
            versions = _pairs(session, counted.where(ShotVersion.shot_id.in_(ids)))
            left = ShotComment.shot_id.in_(ids), ShotComment.parent.is_(None), ShotComment.resolved.is_(None)
            said = sa.select(ShotComment.shot_id, sa.func.count()).where(*left).group_by(ShotComment.shot_id)
            still_open = _pairs(session, said)
            ordered = sa.select(ShotVersion).where(ShotVersion.shot_id.in_(ids)).order_by(ShotVersion.number)
            newest = {version.shot_id: version.job_id for version in session.scalars(ordered)}
            jobs = {job.id: job for job in session.scalars(sa.select(Job).where(Job.id.in_(newest.values())))}
        return [
            Listed(shot, versions.get(shot.id, 0), still_open.get(shot.id, 0), _kept(jobs.get(newest.get(shot.id, ""))))
            for shot in rows
        ]

    def _chosen(self, who: Reviewer, owner: str, wanted: Wanted) -> sa.Select[Shot]:
        chosen = sa.select(Shot).order_by(Shot.changed.desc(), Shot.id.desc())
        if not (wanted.everybody and who.owner is None):
            chosen = chosen.where(Shot.owner == owner)
        if wanted.state is not None:
            chosen = chosen.where(Shot.state == wanted.state)
        if wanted.project is not None:
            chosen = chosen.where(Shot.project == storable(wanted.project))
        if wanted.search:
            texts = (Shot.name, Shot.id)
            found = (text.icontains(storable(wanted.search), autoescape=True) for text in texts)
            chosen = chosen.where(sa.or_(*found))
        if wanted.before is not None:
            changed, shot_id = wanted.before
            later = sa.and_(Shot.changed == changed, Shot.id < shot_id)
            chosen = chosen.where(sa.or_(Shot.changed < changed, later))
        return chosen

    def of_job(self, who: Reviewer, job_id: str, alone: bool = False) -> str:
        """The id of the shot that a finished job is a version of. `alone`: take it off its stack, to begin a new one."""
        with self._desk.database.write() as session:
            job = self._job(session, who, job_id)
            known = session.get(ShotVersion, job.id)
            if known is None:
                shot = stacks.stack(session, job, self._desk.settings.keep_reviewed)
                assert shot is not None  # it has a video
                known = session.get_one(ShotVersion, job.id)
            if alone:
                self._apart(session, who, job, known)
            return known.shot_id

    def _apart(self, session: Session, who: Reviewer, job: Job, version: ShotVersion) -> None:
        self._may_manage(who)
        count = sa.select(sa.func.count()).where(ShotVersion.shot_id == version.shot_id)
        if session.scalar(count) == 1:
            return
        left = self._desk.opened(session, who, version.shot_id, "manage", lock=True)
        root = job.id if left.root != job.id else f"{job.id[:40]}_{now():x}"
        shot = stacks.begin(session, job, root)
        if shot.id == left.id:
            return
        stacks.move(session, version, shot)
        self._desk.changed(session, who, shot, "stack", job.id)

    def put(self, who: Reviewer, shot_id: str, job_id: str) -> None:
        """Stack a finished job by hand, on top. It leaves the stack that it was on."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "manage", lock=True)
            job = self._job(session, who, job_id)
            if job.owner != shot.owner:
                raise ServiceError(409, "InvalidParameter", "A shot has versions of one owner.", "job")
            known = session.get(ShotVersion, job.id)
            if known is None and not stacks.add(session, shot, job):
                raise ServiceError(409, "InvalidParameter", f"A shot has at most {stacks.MOST} versions.", "job")
            if known is not None and known.shot_id != shot.id:
                self._desk.opened(session, who, known.shot_id, "manage", lock=True)
                stacks.move(session, known, shot)
            self._desk.changed(session, who, shot, "stack", job.id)

    def name(self, who: Reviewer, shot_id: str, name: str | None = None, project: str | None = None) -> None:
        """Give a shot a name, and put it into a project ("": into none). What is None stays."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "manage", lock=True)
            given = {key: value for key, value in (("name", name), ("project", project)) if value is not None}
            for key, value in given.items():
                setattr(shot, key, value)
            self._desk.changed(session, who, shot, "name", None, **given)

    def _job(self, session: Session, who: Reviewer, job_id: str) -> Job:
        job = _kept(session.get(Job, storable(job_id)))
        if job is None or who.owner not in (None, job.owner) or who.shot is not None:
            raise missing("job")
        if "video" not in job.result:
            raise ServiceError(409, "InvalidParameter", "That job has made no video.", "job")
        return job

    def _may_manage(self, who: Reviewer) -> None:
        if "manage" not in who.rights:
            raise ServiceError(403, "AccessDenied", "The right to manage is missing here.")


def looked(session: Session, who: Reviewer, shot: Shot, approvals: Approvals) -> Looked:
    """All of a shot, in one transaction."""
    ordered = sa.select(ShotVersion).where(ShotVersion.shot_id == shot.id).order_by(ShotVersion.number)
    versions = session.scalars(ordered).all()
    wanted = sa.select(Job).where(Job.id.in_([one.job_id for one in versions]))
    jobs = {job.id: job for job in session.scalars(wanted) if _kept(job) is not None}
    said = sa.select(ShotComment).where(ShotComment.shot_id == shot.id).order_by(ShotComment.at, ShotComment.id)
    comments = session.scalars(said).all()
    decided = sa.select(ShotDecision).where(ShotDecision.shot_id == shot.id).order_by(ShotDecision.seq)
    decisions = session.scalars(decided).all()
    progress = _progress(session, versions, decisions, approvals)
    found = r.Shot(
        id=shot.id, owner=shot.owner, name=shot.name, project=shot.project, state=r.State(shot.state),
        created=shot.created, changed=shot.changed,
        versions=tuple(_version(one, one.job_id in jobs, progress[one.job_id]) for one in versions),
        comments=comments_of(comments), decisions=tuple(one for row in decisions if (one := decided_of(row)) is not None),
        intact=not chain.faults([one.record for one in decisions], shot.head),
    )  # fmt: skip
    return Looked(found, jobs, frozenset(one.id for one in comments if one.identity == who.identity))


def comments_of(rows: Sequence[ShotComment]) -> tuple[r.Comment, ...]:
    """Comments with their replies, both oldest first."""
    replies: dict[str, list[r.Reply]] = {}
    for row in rows:
        if row.parent is not None:
            one = r.Reply(id=row.id, author=row.author, role=row.role, at=row.at, text=row.said["text"])
            replies.setdefault(row.parent, []).append(one)
    return tuple(
        r.Comment(
            **row.said, id=row.id, job=row.job_id, author=row.author, role=row.role, at=row.at, resolved=row.resolved,
            resolved_by=row.resolved_by, replies=tuple(replies.get(row.id, ())),
        )
        for row in rows if row.parent is None
    )  # fmt: skip


def decided_of(row: ShotDecision) -> r.Decided | None:
    """None for a row that is no record any more; `Shot.intact` says so."""
    try:
        record = chain.read(row.record)
    except ValueError:
        return None
    return r.Decided(
        seq=row.seq, job=record.job, state=record.state, name=record.by.name, role=record.by.role,
        at=chain.milliseconds(record.at), reason=record.reason, output_sha256=record.output_sha256, digest=row.digest,
        record=record.model_dump(mode="json"),
    )  # fmt: skip


def _progress(
    session: Session, versions: Sequence[ShotVersion], decisions: Sequence[ShotDecision], approvals: Approvals
) -> dict[str, r.Progress]:  # fmt: skip
    """How far each version is approved, by the decisions of its own shot."""
    house, at = approvals.house, approvals.clock()
    records = list[chain.Record]()
    with suppress(ValueError):  # `intact` tells of what is no record
        records += [chain.read(one.record) for one in decisions]
    found = dict[str, r.Progress]()
    for one in versions:
        origin = origin_of_version(session, one)
        mine = [record for record in records if record.job == one.job_id]
        stands = standing([mine], one.digest or "", Asked(house.policy, at, origin.maker))
        held = house.path is not None and origin.is_held(house.policy.held)
        found[one.job_id] = r.Progress(
            held=held, given=len(stands.counted), needed=house.policy.approvals, missing=stands.missing,
            expires=stands.expires,
        )  # fmt: skip
    return found


def _version(row: ShotVersion, is_kept: bool, approval: r.Progress) -> r.Version:
    facts = row.facts
    return r.Version(
        job=row.job_id, number=row.number, name=facts["name"], state=r.State(row.state), added=row.added,
        mode=facts["mode"], seed=facts["seed"], frames=facts["frames"], rate=facts["fps"], size=facts["size"],
        sha256=row.digest, kept=is_kept, approval=approval,
    )  # fmt: skip


def _kept(job: Job | None) -> Job | None:
    """A job, unless it has expired."""
    return None if job is None or (job.expires is not None and job.expires < now()) else job


def _pairs(session: Session, wanted: sa.Select[str, int]) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(wanted)}
