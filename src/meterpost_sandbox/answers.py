"""What the ERP says: answers, and refusals in the one form the README promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class Refused(Exception):
    """A request the ERP does not carry out; becomes `{"error": {code, message, field}}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        where: str | None = None,
        *,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.where = where
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, object]:
        """The inner error object."""
        return {"code": self.code, "message": self.message, "field": self.where, **self.extra}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer before it is bytes; ``body`` None means no content."""

    status: int
    body: Mapping[str, object] | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def invalid(message: str, where: str | None, code: str = "invalid") -> Refused:
    """A 422 about one field."""
    return Refused(422, code, message, where)


def not_found(what: str) -> Refused:
    """A 404 naming what is missing."""
    return Refused(404, "not_found", f"{what} does not exist")


def refusal(refused: Refused) -> Answer:
    """The answer that carries a refusal."""
    return Answer(refused.status, {"error": refused.as_json()}, refused.headers)
