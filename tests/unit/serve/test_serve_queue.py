"""The queue: who gets which job, who may write, and how jobs end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from serve_jobs import SUBMISSION, add_job, add_jobs, add_key, claimed, job_of, told

from wanimate.serve import queue as module
from wanimate.serve.database import Database
from wanimate.serve.queue import Claim, LostClaim, Queue, Report
from wanimate.serve.settings import Quotas, ServeSettings
from wanimate.serve.tables import Event, Hook, Job, Stage, State, Worker, now
from wanimate.serve.watch import Watch

BOTH = tuple(Stage)
WRITES: dict[str, Callable[[Queue, Claim], Any]] = {
    "report": lambda q, c: q.report(c, Report(fraction=0.9, events=[("step", {"step": 3})], warnings=["late"])),
    "prepared": lambda q, c: q.prepared(c, "guides/late", frames=1),
    "succeed": lambda q, c: q.succeed(c, {"video": "jobs/late/result.mp4"}, frames=1),
    "fail": lambda q, c: q.fail(c, "InternalError", "late"),
    "stopped": lambda q, c: q.stopped(c),
    "give_back": lambda q, c: q.give_back(c),
    "broken": lambda q, c: q.broken(c, "late"),
}


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database, ServeSettings())


def ready(database: Database, job_id: str) -> None:
    """The pause before a job's next attempt is over."""
    with database.write() as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(not_before=0))


# Fencing


@pytest.mark.parametrize("after", ["waiting", "another", "same worker again", "succeeded", "cancelled", "gone"])
def test_a_worker_that_wakes_up_writes_nothing(database: Database, queue: Queue, after: str) -> None:
    job_id = add_job(database)
    frozen = claimed(queue)
    queue.worker_ended("w1", "it was taken for dead")
    ready(database, job_id)
    if after in ("another", "succeeded", "cancelled"):
        other = claimed(queue, "w2")
        if after == "succeeded":
            queue.succeed(other, {"video": "jobs/good/result.mp4"})
        if after == "cancelled":
            queue.stopped(other)
    if after == "same worker again":
        claimed(queue, "w1")
    if after == "gone":
        with database.write() as session:
            session.execute(sa.delete(Job))
    everything = [sa.select(*table.__table__.columns) for table in (Job, Event, Hook)]

    def rows() -> list[Any]:
        with database.read() as session:
            return [session.execute(wanted).all() for wanted in everything]

    before = rows()
    for name, write in WRITES.items():
        with pytest.raises(LostClaim):
            write(queue, frozen)
        assert rows() == before, name


def test_the_holder_writes(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    claim = claimed(queue)
    assert (claim.attempt, claim.stage, job_of(database, job_id).state) == (1, Stage.PREPARE, State.RUNNING)
    assert not queue.report(claim, Report("detect", 0.25, 3.0, [("step", {"step": 1})], ["dark"]))
    assert not queue.report(claim, Report(warnings=["dark", "small"]))
    queue.prepared(claim, "guides/1", frames=33)
    drawing = claimed(queue, "w2", Stage.GENERATE)
    assert drawing.attempt == 2
    queue.succeed(drawing, {"video": "jobs/1/result.mp4"}, seed=7)
    job = job_of(database, job_id)
    assert (job.state, job.worker, job.fraction, job.result) == (
        State.SUCCEEDED,
        None,
        1.0,
        {"video": "jobs/1/result.mp4"},
    )
    assert job.facts == {"frames": 33, "seed": 7}
    assert job.warnings == ["dark", "small"]
    assert job.expires is not None
    assert job.ended is not None
    assert job.expires - job.ended == 24 * 3_600_000
    assert told(database, job_id) == ["scheduled", "claimed", "step", "prepared", "claimed", "succeeded"]


# Order


def test_one_worker_serves_owners_in_turn(database: Database, queue: Queue) -> None:
    """Also where nobody else works, so that the number of jobs in work says nothing."""
    add_jobs(database, 4, owner="ann", order_key=1)
    add_jobs(database, 2, owner="bob", order_key=2)
    served = []
    for _ in range(6):
        claim = claimed(queue)
        served.append(claim.job.owner)
        queue.fail(claim, "X", "done with")
    assert served == ["ann", "bob", "ann", "bob", "ann", "ann"]


def test_each_stage_has_turns_of_its_own(database: Database, queue: Queue) -> None:
    """Ann's many jobs are all prepared; bob's come later, and wait behind one of hers only."""
    for owner, count in (("ann", 3), ("bob", 2)):
        add_jobs(database, count, owner=owner)
        for _ in range(count):
            queue.prepared(claimed(queue, "p"), "guides/1")
    served = []
    for _ in range(5):
        claim = claimed(queue, "g", Stage.GENERATE)
        served.append(claim.job.owner)
        queue.succeed(claim, {})
    assert served == ["ann", "bob", "ann", "bob", "ann"]


def test_owners_with_fewer_jobs_in_work_come_first(database: Database, queue: Queue) -> None:
    add_jobs(database, 3, owner="ann", order_key=1)
    add_jobs(database, 2, owner="bob", order_key=2)
    assert [claimed(queue, f"w{i}").job.owner for i in range(5)] == ["ann", "bob", "ann", "bob", "ann"]


def test_priority_goes_before_everything(database: Database, queue: Queue) -> None:
    add_jobs(database, 2, owner="ann")
    late = add_job(database, owner="ann", priority=5, order_key=now() + 1000)
    low = add_job(database, owner="bob", priority=-1, order_key=0)
    claims = [claimed(queue, f"w{i}") for i in range(4)]
    assert claims[0].job_id == late
    assert claims[3].job_id == low


def test_held_jobs_wait(database: Database, queue: Queue) -> None:
    held = add_job(database, held=True)
    assert queue.claim("w1", BOTH) is None
    with database.write() as session:
        session.execute(sa.update(Job).values(held=False))
    assert claimed(queue).job_id == held


def test_a_paused_queue_gives_nothing(database: Database, queue: Queue) -> None:
    add_job(database)
    queue.pause(True)
    queue.pause(True)
    assert queue.paused
    assert queue.claim("w1", BOTH) is None
    queue.pause(False)
    assert queue.claim("w1", BOTH) is not None


def test_weights_at_hand_go_first_but_nobody_waits_for_ever(database: Database) -> None:
    at = [0.0]
    queue = Queue(database, ServeSettings(), clock=lambda: at[0])
    old = now() - 86_400_000  # how long a job has waited already says nothing of how often it was passed over
    other = add_job(database, stage=Stage.GENERATE, checkpoint="14b", order_key=1, created=old)
    held = add_jobs(database, 3, stage=Stage.GENERATE, checkpoint="mannequin", order_key=2)
    fitting = []
    for moment in (0.0, 59.0):
        at[0] = moment
        fitting.append(claimed(queue, "w1", Stage.GENERATE, "mannequin|").job_id)
        queue.fail(claimed_again(database, fitting[-1]), "X", "done with")
    assert set(fitting) < set(held)
    at[0] = 61.0
    assert claimed(queue, "w1", Stage.GENERATE, "mannequin|").job_id == other


def claimed_again(database: Database, job_id: str) -> Claim:
    """The claim that a worker has on a job."""
    job = job_of(database, job_id)
    assert job.worker is not None
    return Claim(job.id, job.attempt, job.worker, Stage(job.stage), job)


def test_a_job_that_has_changed_its_queue_meanwhile_is_left_alone(postgres: Any, monkeypatch: Any) -> None:
    """Between the look at the queue and the lock, another worker has prepared the job: a preparer must not draw it."""
    database = Database(postgres.url)
    database.migrate()
    queue = Queue(database, ServeSettings())
    with database.write() as session:
        session.execute(sa.delete(Job))
    job_id = add_job(database)
    find, looks = queue._waiting, []

    def late(session: Any, stages: Any) -> Any:
        rows = find(session, stages)
        looks.append(len(rows))
        if len(looks) == 2:
            with database.engine.begin() as connection:
                connection.execute(sa.update(Job).values(stage=Stage.GENERATE))
        return rows

    monkeypatch.setattr(queue, "_waiting", late)
    assert queue.claim("w1", [Stage.PREPARE]) is None
    assert looks == [1, 1]
    assert job_of(database, job_id).worker is None
    database.close()


# Quotas


def test_a_key_has_so_many_jobs_in_work(database: Database) -> None:
    queue = Queue(database, ServeSettings(quotas=Quotas(running=1)))
    add_key(database, "two", running=2)
    add_jobs(database, 2, key_id="one")
    add_jobs(database, 3, key_id="two")
    claims = [queue.claim(f"w{i}", BOTH) for i in range(5)]
    assert Counter(claim.job.key_id for claim in claims if claim) == {"one": 1, "two": 2}
    first = next(claim for claim in claims if claim and claim.job.key_id == "one")
    queue.succeed(first, {})
    assert claimed(queue, "w9").job.key_id == "one"


def test_a_key_with_many_waiting_jobs_does_not_hide_its_owners_other_key(database: Database) -> None:
    queue = Queue(database, ServeSettings(quotas=Quotas(running=1)))
    add_jobs(database, 20, key_id="one", order_key=1)
    other = add_job(database, key_id="two", order_key=2)
    claimed(queue, "w1")
    assert claimed(queue, "w2").job_id == other


def test_many_workers_at_once_take_each_job_once_and_keep_quotas(database: Database) -> None:
    queue = Queue(database, ServeSettings())
    add_key(database, "narrow", owner="bob", running=2)
    jobs = [*add_jobs(database, 8), *add_jobs(database, 8, owner="bob", key_id="narrow")]
    taken: list[Claim] = []
    most: list[int] = []
    wrong: list[BaseException] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        try:
            while len(taken) < len(jobs):
                claim = queue.claim(name, BOTH)
                if claim is None:
                    continue
                with lock:
                    taken.append(claim)
                with database.read() as session:
                    busy = sa.select(sa.func.count()).where(Job.key_id == "narrow", Job.worker.is_not(None))
                    most.append(session.scalar(busy) or 0)
                queue.succeed(claim, {})
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert sorted(claim.job_id for claim in taken) == sorted(jobs)
    assert max(most) <= 2


# Attempts


def test_three_attempts_then_it_has_failed_with_what_happened(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    for attempt in (1, 2):
        queue.broken(claimed(queue), f"the GPU fell off, {attempt}")
        job = job_of(database, job_id)
        assert (job.state, job.failures, job.worker) == (State.RUNNING, attempt, None)
        assert queue.claim("w1", BOTH) is None  # not at once
        ready(database, job_id)
    queue.worker_ended(claimed(queue, "w2").worker, "its process was killed")
    job = job_of(database, job_id)
    assert (job.state, job.code) == (State.FAILED, "InternalError")
    assert job.message == "The job was tried 3 times and not finished. The last time: its process was killed."
    assert queue.claim("w1", BOTH) is None


def test_given_back_is_no_failure_and_keeps_the_place(database: Database, queue: Queue) -> None:
    first, _ = add_jobs(database, 2)
    for _ in range(5):
        claim = claimed(queue)
        assert claim.job_id == first
        queue.give_back(claim)
    assert job_of(database, first).failures == 0


def test_a_clock_that_jumped_does_not_hold_a_job_back(database: Database, queue: Queue) -> None:
    """A machine whose clock is a day ahead gives the job back: its next attempt is not a day away for the others."""
    job_id = add_job(database)
    queue.broken(claimed(queue), "the GPU fell off")
    with database.write() as session:
        session.execute(sa.update(Job).values(not_before=now() + 86_400_000))
    assert claimed(queue).job_id == job_id


def test_an_orphaned_claim_is_given_back(database: Database, queue: Queue) -> None:
    """The connection broke while a claim was committed: the worker never learned that the job is its."""
    job_id = add_job(database)
    claimed(queue, "w1")
    other = add_job(database, order_key=now() + 5)
    held = claimed(queue, "w2")
    assert held.job_id == other
    assert queue.release("w1") == 1
    job = job_of(database, job_id)
    assert (job.worker, job.failures) == (None, 0)
    assert job_of(database, other).worker == "w2"


# Cancelling


def test_cancelled_before_anybody_took_it(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    assert queue.cancel(job_id) is State.CANCELLED
    assert queue.cancel(job_id) is State.CANCELLED
    assert queue.claim("w1", BOTH) is None
    assert told(database, job_id) == ["cancelled"]


def test_cancelled_between_claim_and_start(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    claim = claimed(queue)
    assert queue.cancel(job_id) is State.RUNNING
    assert queue.report(claim, Report())  # the worker learns it with its first sign of life
    queue.stopped(claim)
    assert job_of(database, job_id).state == State.CANCELLED


@pytest.mark.parametrize("end", ["succeed", "fail", "prepared", "give_back", "broken", "worker_ended", "lease"])
def test_cancelled_while_running_ends_as_cancelled(database: Database, queue: Queue, end: str) -> None:
    """Whatever the worker says next: nobody else is needed for it, and no result is shown."""
    job_id = add_job(database)
    claim = claimed(queue)
    queue.cancel(job_id)
    if end == "worker_ended":
        queue.worker_ended("w1", "gone")
    elif end == "lease":
        at = [0.0]
        watch = Watch(database, queue, 30, lambda: at[0])
        for moment in range(0, 60, 5):
            at[0] = moment
            watch.look()
    else:
        WRITES[end](queue, claim)
    job = job_of(database, job_id)
    assert (job.state, job.worker, job.result) == (State.CANCELLED, None, {})
    assert told(database, job_id).count("cancelled") == 1


@pytest.mark.parametrize("end", ["succeed", "fail", "stopped"])
def test_what_has_ended_stays_as_it_is(database: Database, queue: Queue, end: str) -> None:
    job_id = add_job(database)
    WRITES[end](queue, claimed(queue))
    state = State(job_of(database, job_id).state)
    assert queue.cancel(job_id) is state
    assert not queue.cancel_pending(job_id)
    assert job_of(database, job_id).state == state


def test_the_hosted_cancel_takes_what_nobody_has_begun(database: Database, queue: Queue) -> None:
    begun, waiting = add_jobs(database, 2)
    queue.give_back(claimed(queue))
    assert not queue.cancel_pending(begun)
    assert queue.cancel_pending(waiting)
    assert not queue.cancel_pending(waiting)
    assert not queue.cancel_pending("nobody")
    assert queue.cancel("nobody") is None


def test_cancel_and_claim_at_once_leave_no_job_in_between(database: Database, queue: Queue) -> None:
    for _ in range(10):
        job_id = add_job(database)
        start = threading.Barrier(2)
        won: list[Claim | None] = []

        def take(start: threading.Barrier = start, won: list[Claim | None] = won) -> None:
            start.wait()
            won.append(queue.claim("w1", BOTH))

        thread = threading.Thread(target=take)
        thread.start()
        start.wait()
        done = queue.cancel_pending(job_id)
        thread.join(30)
        assert done != (won[0] is not None)
        assert job_of(database, job_id).state == (State.CANCELLED if done else State.RUNNING)
        if won[0] is not None:
            queue.stopped(won[0])


# What is told


def test_webhooks_are_written_with_what_they_tell_of(database: Database, queue: Queue) -> None:
    hook = {"url": "https://example.test/hook", "events": ["job.scheduled", "job.failed"]}
    add_job(database, submission=SUBMISSION | {"webhook": hook})
    queue.fail(claimed(queue), "InvalidImage.NoHuman", "Nobody is there.")
    with database.read() as session:
        assert sorted(session.scalars(sa.select(Hook.kind))) == ["job.failed", "job.scheduled"]


@pytest.mark.parametrize("text", ["a\0b", "lone \ud800 half"])
def test_any_text_of_a_decoder_can_be_written(database: Database, queue: Queue, text: str) -> None:
    job_id = add_job(database)
    claim = claimed(queue)
    queue.report(claim, Report(warnings=[text], events=[("notice", {"text": text})]))
    queue.fail(claim, "InternalError.Algo", text)
    assert job_of(database, job_id).state == State.FAILED


def test_numbers_that_json_does_not_know_can_be_written(database: Database, queue: Queue) -> None:
    add_job(database)
    claim = claimed(queue)
    queue.report(claim, Report(fraction=0.5, seconds_left=float("inf"), events=[("step", {"loss": float("nan")})]))
    queue.report(claim, Report(fraction=float("nan")))
    assert (job_of(database, claim.job_id).fraction, job_of(database, claim.job_id).seconds_left) == (0.5, None)
    queue.succeed(claim, {}, seconds=float("nan"))
    with database.read() as session:
        assert [told.data for told in session.scalars(sa.select(Event).where(Event.kind == "step"))] == [{"loss": None}]


# Looking after dead workers


class _Watched:
    """A watch on a clock of its own."""

    def __init__(self, database: Database, queue: Queue) -> None:
        self.at = 0.0
        self.watch = Watch(database, queue, 30, lambda: self.at)

    def look(self, at: float) -> list[str]:
        self.at = at
        return self.watch.look()


def test_a_worker_without_a_sign_of_life_loses_its_job(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    claimed(queue)
    watched = _Watched(database, queue)
    assert [watched.look(at) for at in (5, 10, 15, 20, 25, 30, 35)] == [[]] * 7
    assert watched.look(36) == [job_id]
    job = job_of(database, job_id)
    assert (job.worker, job.failures) == (None, 1)
    assert watched.look(45) == []


def test_signs_of_life_keep_it(database: Database, queue: Queue) -> None:
    add_job(database)
    claim = claimed(queue)
    watched = _Watched(database, queue)
    for at in range(0, 300, 5):
        if at % 25 == 0:
            queue.report(claim, Report())
        assert watched.look(at) == []


def test_a_sign_of_life_between_look_and_lock_keeps_it(database: Database, queue: Queue, monkeypatch: Any) -> None:
    job_id = add_job(database)
    claim = claimed(queue)
    watched = _Watched(database, queue)
    for at in range(0, 35, 5):
        assert watched.look(at) == []
    reclaim = watched.watch._reclaim

    def late(*given: Any) -> bool:
        queue.report(claim, Report())
        return reclaim(*given)

    monkeypatch.setattr(watched.watch, "_reclaim", late)
    assert watched.look(36) == []
    assert job_of(database, job_id).worker == "w1"


@pytest.mark.parametrize("gap", [20.0, 28.0, 31.0, 3600.0])
def test_while_the_database_was_away_nobody_is_taken_for_dead(database: Database, queue: Queue, gap: float) -> None:
    """Nobody could give a sign of life then. Afterwards everybody has some seconds for it, whoever comes back first."""
    job_id = add_job(database)
    claim = claimed(queue)
    watched = _Watched(database, queue)
    for at in (0, 5, 10):
        assert watched.look(at) == []
    assert watched.look(10 + gap) == []
    queue.report(claim, Report())
    assert watched.look(15 + gap) == []
    ends = [watched.look(20 + gap + at) for at in range(0, 60, 5)]  # and a dead one is found all the same
    assert [job_id] in ends


def test_a_wall_clock_that_jumps_changes_nothing(database: Database, queue: Queue, monkeypatch: Any) -> None:
    job_id = add_job(database)
    claimed(queue)
    watched = _Watched(database, queue)
    for at, wall in ((0, now()), (10, 0), (20, now() + 10**10)):
        monkeypatch.setattr(module, "now", lambda wall=wall: wall)
        assert watched.look(at) == []
    assert [job_id] in [watched.look(at) for at in (25, 30, 35, 40)]


def test_two_watches_reclaim_once(database: Database, queue: Queue) -> None:
    job_id = add_job(database)
    claimed(queue)
    one, two = _Watched(database, queue), _Watched(database, queue)
    found = [watched.look(at) for at in range(0, 60, 5) for watched in (one, two)]
    assert found.count([job_id]) == 1
    assert job_of(database, job_id).failures == 1


def test_a_report_shows_the_worker_too(database: Database, queue: Queue) -> None:
    with database.write() as session:
        session.add(
            Worker(
                id="w1", host="h", pid=1, stages=["prepare"], device="", holds="", facts={}, beat=0, started=0, seen=0
            )
        )
    job_id = add_job(database)
    queue.report(claimed(queue), Report(worker={"gpu_used": 5}))
    with database.read() as session:
        worker = session.scalars(sa.select(Worker)).one()
    assert (worker.job_id, worker.facts, worker.beat) == (job_id, {"gpu_used": 5}, 1)
    assert worker.seen > 0
