"""What the service refuses, in one form that each face spells as its contract asks."""

from __future__ import annotations

from wanimate.errors import InputError, plainly


class ServiceError(Exception):
    """A request that is not served.

    Args:
        status: of HTTP.
        code: the hosted contract's (`InvalidParameter`, `Throttling.RateQuota` ...).
        message: a full sentence.
        field: the field of the request that it is about.
        retry_after: seconds after which the same request may be served.
    """

    def __init__(
        self, status: int, code: str, message: str, field: str | None = None, retry_after: float | None = None
    ) -> None:
        self.status, self.code, self.message, self.field, self.retry_after = status, code, message, field, retry_after
        super().__init__(message)


def wrong(field: str, message: str, code: str = "InvalidParameter") -> ServiceError:
    """400 about one field."""
    return ServiceError(400, code, message, field)


def of_input(error: InputError) -> ServiceError:
    """An error of the library about a setting of the request."""
    return wrong(plainly(error.field), str(error))


def missing(what: str) -> ServiceError:
    """404; also for what belongs to somebody else."""
    return ServiceError(404, "NotFound", f"There is no such {what}.")


def away(what: str, retry_after: float = 5.0) -> ServiceError:
    """503: the database, the storage or the queue does not serve now."""
    return ServiceError(503, "ServiceUnavailable", f"{what} Try again.", retry_after=retry_after)
