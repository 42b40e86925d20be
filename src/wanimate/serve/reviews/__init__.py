"""Reviews over the service's database: stacks of versions, comments, decisions, guests."""

from __future__ import annotations

from wanimate.serve.approvals.house import Approvals
from wanimate.serve.database import Database
from wanimate.serve.reviews.decisions import Decisions
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.reviews.guests import Guests
from wanimate.serve.reviews.notes import Notes
from wanimate.serve.reviews.packages import Packages
from wanimate.serve.reviews.results import Results
from wanimate.serve.reviews.shots import Shots
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage

__all__ = ["Reviewer", "Reviews"]


class Reviews:
    """Everything that faces and the command line do. Methods of its parts raise ServiceError."""

    def __init__(self, database: Database, storage: Storage, settings: ServeSettings) -> None:
        self.storage, self.approvals = storage, Approvals(settings, database)
        self.desk = desk = Desk(database, storage, settings, self.approvals)
        self.shots, self.notes = Shots(desk), Notes(desk)
        self.decisions, self.guests = Decisions(desk), Guests(desk)
        self.results = Results(desk)
        self.packages = Packages(desk, self.results)
