"""Retention: what has expired goes, and files whose row is gone."""

from __future__ import annotations

import sqlalchemy as sa

from wanimate.library import places
from wanimate.library.entries import needed_contents
from wanimate.serve.service import Service
from wanimate.serve.storage import StorageAway
from wanimate.serve.tables import DAY, Creation, Event, GuestSession, Hook, Job, PageSession, State, Upload, Worker, now

_AT_ONCE = 100
_WORKER_KEPT = 3_600_000
_ORPHAN = 3600.0
"""Seconds after which a file without a row is nobody's: rows come after files."""


def sweep(service: Service) -> int:
    """Remove expired jobs and uploads with their files. Returns how many rows. Any number of processes may do it."""
    at = now()
    removed = 0
    with service.database.read() as session:
        jobs = session.scalars(sa.select(Job).where(Job.expires < at).limit(_AT_ONCE)).all()
        busy = sa.select(Job.facts).where(Job.state.in_((State.PENDING, State.RUNNING)))
        used = {name for facts in session.scalars(busy) for name in facts.get("uploads", {}).values()}
        uploads = session.scalars(sa.select(Upload).where(Upload.expires < at).limit(_AT_ONCE)).all()
    for job in jobs:
        service.forget(job)
        removed += 1
    for upload in uploads:
        if upload.stored in used:
            continue
        try:
            service.storage.remove(upload.stored)
        except StorageAway:
            continue
        with service.database.write() as session:
            session.execute(sa.delete(Upload).where(Upload.id == upload.id))
        removed += 1
    with service.database.write() as session:
        session.execute(sa.delete(Creation).where(Creation.expires < at))
        session.execute(sa.delete(PageSession).where(PageSession.expires < at))
        session.execute(sa.delete(GuestSession).where(GuestSession.expires < at))
        session.execute(sa.delete(Hook).where(Hook.delivered < at - DAY))
        session.execute(sa.delete(Worker).where(Worker.seen < at - _WORKER_KEPT))
        session.execute(sa.delete(Event).where(Event.job_id.not_in(sa.select(Job.id))))
    return removed + sweep_orphans(service) + sweep_library(service)


def sweep_orphans(service: Service, older_than: float = _ORPHAN) -> int:
    """Remove files, older than some seconds, of jobs whose row is gone. Returns how many."""
    old = now() / 1000 - older_than
    removed = 0
    for prefix in ("jobs", "guides"):
        found: dict[str, list[str]] = {}
        for stored in service.storage.list(prefix):
            if stored.modified < old:
                found.setdefault(stored.name.split("/")[1], []).append(stored.name)
        with service.database.read() as session:
            known = set(session.scalars(sa.select(Job.id).where(Job.id.in_(found)))) if found else set()
            held = {str(name).split("/")[1] for name in session.scalars(sa.select(Job.guides)) if name}
        for owner, names in found.items():
            if owner in known or owner in held:
                continue
            for name in names:
                service.storage.remove(name)
                removed += 1
    return removed


def sweep_library(service: Service, older_than: float = _ORPHAN) -> int:
    """Remove files, older than some seconds, of the library that no entry and no job has, and guides that no job has used for
    long. Returns how many."""
    stored = service.storage.list(places.ROOT)
    if not stored:
        return 0
    at = now() / 1000
    contents = {places.content_of(one.name) for one in stored}
    used: dict[str, float] = {}
    for one in stored:
        place = places.guides_at(one.name)
        if place is not None:
            used[place] = max(used.get(place, 0.0), one.modified)
    with service.database.read() as session:
        needed = needed_contents(session, contents)
        held = set(session.scalars(sa.select(Job.guides).where(Job.guides.startswith(f"{places.ROOT}/"))))
    removed = 0
    for one in stored:
        place = places.guides_at(one.name)
        nobodys = places.content_of(one.name) not in needed and one.modified < at - older_than
        unused = place is not None and place not in held and used[place] < at - service.settings.keep_guides * 3600
        if nobodys or unused:
            service.storage.remove(one.name)
            removed += 1
    return removed
