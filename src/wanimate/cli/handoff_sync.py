"""`wanimate review sync`: comments both ways between the service's reviews and Frame.io."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from wanimate.cli.build import command
from wanimate.cli.handoff_remote import NAMES as REMOTE_NAMES
from wanimate.cli.handoff_remote import Journals, TokenFile
from wanimate.cli.records import reviews as opened_reviews
from wanimate.cli.report import Reporter, noted
from wanimate.cli.review import NAMES as REVIEW_NAMES
from wanimate.cli.review import ShotArgument, shot_of
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.review.records import Remark, Shot
    from wanimate.serve.reviews import Reviewer, Reviews


@command(names={**REVIEW_NAMES, **REMOTE_NAMES})
def sync(
    report: Reporter, shot: ShotArgument, token_file: TokenFile = None, journals: Journals = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Bring comments of a shot to Frame.io, and those that were made there back, each once.

    The shot was handed off with --to frameio:PROJECT/FOLDER from this machine.

    [bold]Example[/bold]

    [cyan]wanimate review sync "Scene 12"[/cyan]
    """
    try:
        from wanimate.handoff.remote.comments import syncing
        from wanimate.handoff.remote.journal import journals_folder
        from wanimate.handoff.remote.send import Services, frameio
    except ModuleNotFoundError as error:
        rule = f"the package {error.name} is not installed"
        raise InputError("shot", shot, rule, "Install wanimate[handoff].") from error
    settings = settings_of(config, data=data, database=database, storage=storage)
    with opened_reviews(settings, shot) as reviews:
        desk = _Desk(reviews, shot_of(reviews, shot))
        with frameio(token_file, Services()) as api:
            found = noted(report, syncing(api, desk, journals or journals_folder()))
    told = {"shot": desk.id, "sent": found.out, "received": found.back}
    report.done(told, f"{escape(desk.name)}: {found.out} comments sent, {found.back} received")


class _Desk:
    """The review of one shot, for `syncing`. Who has spoken at Frame.io counts as a guest."""

    def __init__(self, reviews: Reviews, shot: Shot) -> None:
        self._reviews, self.id, self.name = reviews, shot.id, shot.name

    def shot(self) -> Shot:
        return self._reviews.shots.look(self._guest("Frame.io", "frameio"), self.id).shot

    def add(self, version: str, author: str, identity: str, remark: Remark) -> str:
        return self._reviews.notes.add(self._guest(author, identity), self.id, version, remark)

    def reply(self, comment: str, author: str, identity: str, text: str) -> str:
        return self._reviews.notes.reply(self._guest(author, identity), self.id, comment, text)

    def _guest(self, name: str, identity: str) -> Reviewer:
        from wanimate.serve.reviews import Reviewer

        return Reviewer(name, "guest", identity, frozenset({"view", "comment"}), shot=self.id)
