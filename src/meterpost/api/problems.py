"""Failures as problem+json (RFC 9457): what happened and what helps, and nothing of our insides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import structlog
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from meterpost.access.model import Scope
from meterpost.core.errors import (
    Conflict,
    InvalidInput,
    MeterpostError,
    NeedsPerson,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    Permanent,
    Throttled,
    Transient,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:meterpost:problem:"
#: Problems listed in one answer; ``problems_total`` counts them all.
PROBLEMS_MAX = 1_000

_log = structlog.get_logger(__name__)


class TooLarge(Permanent):
    """More bytes than are taken (413)."""

    code = "too-large"


class HeadersTooLarge(Permanent):
    """A request's head is longer than is taken (431)."""

    code = "headers-too-large"


class WrongMediaType(Permanent):
    """A body of a kind that is not taken here (415)."""

    code = "unsupported-media-type"


class MethodNotAllowed(Permanent):
    """The path exists, the method on it does not (405)."""

    code = "method-not-allowed"


class KeyReused(Permanent):
    """An Idempotency-Key that stands for another request (422)."""

    code = "idempotency-key-reused"


class Internal(MeterpostError):
    """A defect of ours; the log has the details (500)."""

    code = "internal"


#: Status and title: by code where it says more than the class does, else by the class.
_BY_CODE: Mapping[str, tuple[int, str]] = {
    "too-large": (413, "Too large"),
    "frame-too-large": (413, "Too large"),
    "headers-too-large": (431, "Head too large"),
    "unsupported-media-type": (415, "Unknown media type"),
    "method-not-allowed": (405, "Method not allowed"),
    "idempotency-key-reused": (422, "Key used for another request"),
}
_BY_CLASS: tuple[tuple[type[MeterpostError], int, str], ...] = (
    (InvalidInput, 400, "Not usable"),
    (NotFound, 404, "Not found"),
    (Conflict, 409, "Conflict"),
    (NotAllowed, 403, "Not allowed"),
    (NotAuthenticated, 401, "Not authenticated"),
    (NeedsPerson, 409, "Needs a person"),
    (Throttled, 429, "Too many requests"),
    (Transient, 503, "Not available"),
    (OutcomeUnknown, 504, "Outcome unknown"),
    (Permanent, 422, "Not possible"),
)
_INTERNAL = (500, "Failure")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as bytes, so that it can be kept and given again."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        """Problems from 400 on, JSON below."""
        return "application/json" if self.status < 400 else MEDIA_TYPE


def problem_answer(exc: Exception, correlation_id: str, scope: str | None = None) -> Answer:
    """What a failure means to the caller. ``scope`` is the one the route needs.

    Anything but an error of ours is logged and told as a defect.
    """
    error = _ours(exc)
    if error is None:
        _log.error("request_failed", exc_info=exc)
        error = Internal("Something failed here.")
    status, title = _status(error)
    members: dict[str, object] = {
        "type": TYPE_PREFIX + (error.code if status != 500 else "internal"),
        "title": title,
        "status": status,
        "detail": error.sentence,
        "hint": error.hint,
        "correlation_id": correlation_id,
    }
    if status == 500:
        members["detail"] = "Something failed here."
        members["hint"] = "The server's log has the details under the correlation id."
    elif error.sentence.startswith("The database connection failed"):
        # What follows names hosts and ports.
        _log.warning("database_failed", why=error.sentence)
        members["detail"] = "The database cannot be used at the moment."
    if isinstance(error, InvalidInput):
        members["problems"] = [
            {
                "code": each.code,
                "sentence": each.sentence,
                "where": each.where,
                "hint": each.hint or None,
            }
            for each in error.problems[:PROBLEMS_MAX]
        ]
        members["problems_total"] = len(error.problems)
    if status == 403:
        # The operation may ask for more than its own scope; the sentence says for which.
        scope = next(
            (each.value for each in Scope if error.sentence.find(f"scope {each}") >= 0), None
        )
        if scope is not None:
            members["scope"] = scope
    return Answer(status, msgspec.json.encode(members), _headers(status, error, scope))


def _ours(exc: Exception) -> MeterpostError | None:
    match exc:
        case MeterpostError():
            return exc
        case DataError():
            # The last door: a value that passed every check and still is none of the database's.
            _log.warning("value_refused_by_database", why=str(exc.orig))
            return InvalidInput("A value of the request is outside what can be stored.")
        case OperationalError():
            return Transient("The database connection failed.", after_s=1.0)
        case DBAPIError() if exc.connection_invalidated:
            return Transient("The database connection failed.", after_s=1.0)
        case _:
            return None


def _status(error: MeterpostError) -> tuple[int, str]:
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for class_, status, title in _BY_CLASS:
        if isinstance(error, class_):
            return status, title
    return _INTERNAL


def _headers(status: int, error: MeterpostError, scope: str | None) -> dict[str, str]:
    if status in (429, 503):
        after_s = getattr(error, "after_s", None)
        return {"Retry-After": str(max(1, round(after_s or 1)))}
    wanted = f', scope="{scope}"' if scope is not None else ""
    if status == 401:
        return {"WWW-Authenticate": f'Bearer realm="meterpost"{wanted}'}
    if status == 403 and wanted:
        return {"WWW-Authenticate": f'Bearer realm="meterpost", error="insufficient_scope"{wanted}'}
    return {}
