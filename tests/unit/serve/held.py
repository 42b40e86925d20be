"""Results, policies and people for tests of the gate: a database with reviews, and finished files with their records."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanimate.approval.consents import Consent, consent_of
from wanimate.approval.leaving import Leaving, Passed
from wanimate.review import chain
from wanimate.review.records import State
from wanimate.serve.approvals.gate import HouseGate
from wanimate.serve.approvals.hashes import hash_of
from wanimate.serve.approvals.local import Added, add
from wanimate.serve.database import Database
from wanimate.serve.reviews import Reviewer, Reviews
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage

MP4 = b"\x00\x00\x00\x18ftypisom" + b"a replacement"
DECIDES = frozenset({"view", "comment", "decide", "manage"})


def result(place: Path, mode: str = "replacement", data: bytes = MP4, **more: Any) -> Path:
    """A finished file with its record."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    record = {
        "schema": 2, "wanimate": "1", "mode": mode, "out": place.name, "seed": 7,
        "inputs": {"image": {"path": "hero.png", "sha256": f"sha256:{'1' * 64}"}, "video": {"sha256": f"sha256:{'2' * 64}"}},
        "fingerprint": {"mode": mode}, "delivered": {"frames": 9, "fps": "25", "size": [64, 48]},
        "result": {"name": place.name, "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}", "replaces": None},
        **more,
    }  # fmt: skip
    place.with_name(f"{place.stem}.json").write_text(json.dumps(record))
    return place


def person(name: str, identity: str, role: Any = "owner") -> Reviewer:
    return Reviewer(name, role, identity, DECIDES)


ANN, BOB, LENA = person("Ann Lee", "key:ann"), person("Bob Ray", "key:bob"), person("Lena Orth", "key:lena")


def consent(asset: str, uid: str, person: str) -> Consent:
    """What somebody has agreed to for a file: any use."""
    return consent_of(
        {
            "agreement": {
                "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Agreement", "uid": uid, "target": f"sha256:{asset}",
                "assigner": person, "assignee": "urn:house:1", "permission": [{"action": "use"}],
            },
            "subject": {"id": person, "minor": False, "deceased": False}, "represented_by": "none",
            "uses_described": "Anything.", "document_sha256": "d" * 64, "signed_at": "2020-01-10T09:00:00Z",
        }
    )  # fmt: skip


@dataclass
class Stage:
    """A house with a policy. `ahead`: milliseconds by which its clock is before the machine's."""

    folder: Path
    database: Database
    settings: ServeSettings
    reviews: Reviews = field(init=False)
    ahead: int = 0

    def __post_init__(self) -> None:
        storage = Storage(self.settings.storage_url, b"0" * 16)
        self.reviews = Reviews(self.database, storage, self.settings)
        clock = self.reviews.approvals.clock
        self.reviews.approvals.clock = lambda: clock() + self.ahead

    def policy(self, **terms: Any) -> None:
        assert self.settings.policy is not None
        people = terms.pop("people", [])
        lines = [f"{name} = {json.dumps(value)}" for name, value in terms.items()]
        for one in people:
            lines += ["[[people]]", *(f"{name} = {json.dumps(value)}" for name, value in one.items())]
        self.settings.policy.write_text("\n".join(lines))

    def add(self, file: Path) -> Added:
        return add(self.database, self.reviews.storage, self.settings, file, None, "command line:maker")

    def decide(self, added: Added, who: Reviewer, state: State = State.APPROVED) -> chain.Record:
        return self.reviews.decisions.decide(who, added.shot, added.job, state)

    def approved(self, file: Path, *people: Reviewer) -> Added:
        added = self.add(file)
        for who in people or (ANN,):
            self.decide(added, who)
        return added

    def gate(self) -> HouseGate:
        return HouseGate(self.database, self.reviews.approvals, "command line:tester")

    def check(self, file: Path, **more: Any) -> Passed:
        return self.gate().check(file, Leaving(hash_of(file), "release", "elsewhere", **more))

    def state(self, added: Added) -> str:
        version = self.reviews.shots.look(ANN, added.shot).shot.version(added.job)
        assert version is not None
        return version.state


def stage(folder: Path, tables: Path, heads: bool = False) -> Stage:
    """A house whose policy holds replacements, on a copy of empty tables."""
    folder.mkdir(exist_ok=True)
    shutil.copy(tables, folder / "wanimate.db")
    (folder / "policy.toml").write_text("")
    settings = ServeSettings(
        data=folder, policy=folder / "policy.toml", heads=folder / "away" / "heads.txt" if heads else None
    )
    return Stage(folder, Database(settings.database_url), settings)
