"""The service's database for commands: reviews, the gate, and who asks. The service need not run."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.serve.approvals.gate import HouseGate
    from wanimate.serve.database import Database
    from wanimate.serve.reviews import Reviewer, Reviews
    from wanimate.serve.settings import ServeSettings


def user() -> str:
    """The user of this machine, as the system knows them. What the environment calls them does not count."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def identity() -> str:
    """What decisions and releases of commands are signed with."""
    return f"command line:{user()}"


def operator(name: str | None) -> Reviewer:
    """Who reviews from the command line. `name`: what they call themselves; the user of this machine if None."""
    from wanimate.review.records import Signature
    from wanimate.serve.reviews import Reviewer

    called: str = valid(Signature, name=name or user()).name
    return Reviewer(called, "operator", identity(), frozenset({"view", "comment", "decide", "manage"}))


@contextmanager
def opened(settings: ServeSettings) -> Iterator[tuple[Database, Reviews]]:
    """Database and reviews, closed at the end of the block. Raises InputError: they cannot be opened."""
    from wanimate.serve.database import Database
    from wanimate.serve.reviews import Reviews
    from wanimate.serve.service import shared_secret
    from wanimate.serve.storage import Storage

    base = Database(settings.database_url)
    base.open()
    try:
        yield base, Reviews(base, Storage(settings.storage_url, shared_secret(base)), settings)
    finally:
        base.close()


@contextmanager
def gate(settings: ServeSettings) -> Iterator[HouseGate]:
    """The gate that is asked before a result leaves. Raises InputError: the database cannot be opened."""
    from wanimate.serve.approvals.gate import HouseGate

    with opened(settings) as (base, found):
        yield HouseGate(base, found.approvals, identity())


@contextmanager
def reviews(settings: ServeSettings, shot: str = "", **given: object) -> Iterator[Reviews]:
    """The reviews of a service's database. What is refused within the block is an InputError."""
    from wanimate.serve.errors import ServiceError

    with opened(settings) as (_, found):
        try:
            yield found
        except ServiceError as error:
            rule = error.message.removeprefix(f"{error.field}: ").rstrip(".")
            field = error.field if error.field is not None and error.field in given else "shot"
            raise InputError(
                field, given.get(field, shot), rule, "`wanimate review show` shows what is there."
            ) from error


def valid(form: Any, **fields: Any) -> Any:
    """A form of these fields. Raises InputError with the first thing that is wrong."""
    from pydantic import ValidationError

    try:
        return form.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][:1]) or "marks"
        rule = first["msg"].removeprefix("Value error, ")
        raise InputError(field, first["input"], rule, "Give another value.") from error
