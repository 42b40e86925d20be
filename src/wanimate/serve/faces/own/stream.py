"""Events of jobs as server-sent events. A client that comes back with `Last-Event-ID` goes on where it dropped.

A stream holds no thread: a short query runs in one, and between two the event loop sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from wanimate.serve.database import is_away
from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.events import EventStream, server_sent
from wanimate.serve.faces.common import Reader, TheService
from wanimate.serve.faces.own.forms import Answers, JobId, refusals
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.tables import Key, State, now

router = APIRouter(tags=["events"])
PACE, HEARTBEAT, RECONNECT = 0.4, 15.0, 2000
"""Seconds between two looks, seconds between two signs of life, and milliseconds after which a browser comes back."""
_AT_ONCE = 500
_LARGEST = 2**53
_FINAL = frozenset(state.value for state in State if state.final)
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}

LastSeen = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=20, description="The last `id` that was seen.")
]
After = Annotated[
    int | None, Query(ge=0, le=_LARGEST, description="As `Last-Event-ID`, for clients that cannot set it.")
]
STREAM: Answers = {200: {"content": {"text/event-stream": {}}, "description": "Events: `id`, `event` and JSON `data`."}}


@router.get(
    "/jobs/{job_id}/events", summary="Events of a job", response_class=StreamingResponse,
    responses={**refusals(404, 429), **STREAM, 204: {"description": "The job is finished, and all events were seen."}},
)  # fmt: skip
async def of_job(
    service: TheService, caller: Reader, job_id: JobId, last_seen: LastSeen = None, after: After = None
) -> Response:
    """All that happened to the job, then what happens. It ends behind `succeeded`, `failed`, `cancelled` or `deleted`."""
    job = await run_sync(service.job, caller, job_id)
    seen = last_seen_of(last_seen, after) or 0
    events = EventStream(service.database, None, job_id, seen)
    if seen and State(job.state).final and not await run_sync(EventStream(service.database, None, job_id, seen).new):
        return Response(status_code=204)  # a browser would come back for ever
    return await answer(service, caller.key_id, events, lambda: _gone(service, caller, job_id), ends=True)


@router.get(
    "/events", summary="Events of all of the owner's jobs", response_class=StreamingResponse,
    responses={**refusals(429), **STREAM},
)  # fmt: skip
async def of_owner(
    service: TheService, caller: Reader, last_seen: LastSeen = None, after: After = None,
    everybody: Annotated[bool, Query(description="Of all owners, for admins.")] = False,
) -> Response:  # fmt: skip
    """What happens from now on, or behind the last event that was seen."""
    owner = None if everybody and caller.is_admin else caller.owner
    events = await run_sync(EventStream, service.database, owner, None, last_seen_of(last_seen, after))
    return await answer(service, caller.key_id, events, lambda: _gone(service, caller, None))


def last_seen_of(header: str | None, query: int | None) -> int | None:
    """The last event that the client knows; None where it says nothing."""
    if header is None or not header.strip():
        return query
    if not (header.strip().isascii() and header.strip().isdecimal()) or int(header) > _LARGEST:
        raise wrong("Last-Event-ID", "Last-Event-ID: it is no id that an event had.")
    return int(header)


async def answer(
    service: Service, who: str, events: EventStream, gone: Callable[[], str | None], ends: bool = False
) -> Response:
    """A stream of events.

    Args:
        who: the key or the link, which may have so many streams.
        gone: asked now and then; what the stream ends with where its job, key or link is gone, else None.
        ends: it ends with the last event of a job.

    Raises:
        ServiceError: 429, 503.
    """
    service.streams.check(who)
    return StreamingResponse(_told(service, who, events, gone, ends), media_type="text/event-stream", headers=_HEADERS)


async def _told(
    service: Service, who: str, events: EventStream, gone: Callable[[], str | None], ends: bool
) -> AsyncIterator[str]:
    streams = service.streams
    with streams.held(who):
        yield f"retry: {RECONNECT}\n\n"
        sent = looked = time.monotonic()
        while not streams.closing:
            try:
                fresh = await run_sync(events.new, _AT_ONCE, limiter=streams.queries)
                if not fresh and time.monotonic() - looked > HEARTBEAT / 3:
                    looked = time.monotonic()
                    end = await run_sync(gone, limiter=streams.queries)
                    if end is not None:
                        yield end
                        return
            except Exception as error:
                if not is_away(error):
                    raise
                fresh = ()
            for piece in server_sent(fresh):
                sent = time.monotonic()
                yield piece
            if ends and any(told.kind in _FINAL for told in fresh):
                return
            if time.monotonic() - sent > HEARTBEAT:
                sent = time.monotonic()
                yield ": the stream is open\n\n"
            if len(fresh) < _AT_ONCE:
                await asyncio.sleep(PACE)


def _gone(service: Service, caller: Caller, job_id: str | None) -> str | None:
    """What a stream ends with where its job or its key is gone; None while it goes on."""
    with service.database.read() as session:
        key = session.get(Key, caller.key_id)
        if key is None or key.revoked is not None or (key.expires is not None and key.expires < now()):
            return ": the key is not valid any more\n\n"
    if job_id is not None:
        try:
            service.job(caller, job_id)
        except ServiceError:
            return f'event: deleted\ndata: {{"job": "{job_id}"}}\n\n'
    return None
