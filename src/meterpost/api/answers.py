"""Answers of the plain ASGI app: JSON, and problem+json (RFC 9457) for every failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from meterpost.core.errors import MeterpostError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Status and title of each code of `core.errors` and of this endpoint's own.
_STATUS = {
    "too-large": (413, "Too large"),
    "invalid-input": (400, "Not usable"),
    "unparsable": (400, "Not readable"),
    "unsupported-media-type": (415, "Unknown media type"),
    "throttled": (429, "Too many requests"),
    "not-authenticated": (401, "Not authenticated"),
    "not-allowed": (403, "Not allowed"),
    "storage-full": (507, "Storage full"),
    "outcome-unknown": (503, "Outcome unknown"),
    "transient": (503, "Not available"),
    "permanent": (422, "Not storable"),
    "no-event-accepted": (422, "No event accepted"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
}


def problem_answer(code: str, sentence: str, correlation_id: str) -> dict[str, object]:
    """The members of a problem answer."""
    status, title = _STATUS.get(code, (500, "Failure"))
    return {
        "type": f"urn:meterpost:problem:{code}",
        "title": title,
        "status": status,
        "detail": sentence,
        "correlation_id": correlation_id,
    }


async def send_error(send: Send, exc: MeterpostError, correlation_id: str) -> None:
    """Send what an error means to the caller, with Retry-After where repeating helps."""
    code = exc.code if exc.code in _STATUS else "transient"
    sentence = exc.sentence if exc.hint is None else f"{exc.sentence} {exc.hint}"
    status, _ = _STATUS[code]
    extra: list[tuple[bytes, bytes]] = []
    if status in (429, 503, 507):
        extra.append((b"retry-after", b"%d" % max(1, round(getattr(exc, "after_s", None) or 1))))
    if status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    await send_problem(send, code, sentence, correlation_id, *extra)


async def send_problem(
    send: Send, code: str, sentence: str, correlation_id: str, *extra: tuple[bytes, bytes]
) -> None:
    """Send a problem."""
    answer = problem_answer(code, sentence, correlation_id)
    status = answer["status"]
    assert isinstance(status, int)
    await send_json(send, status, answer, correlation_id, *extra)


async def send_json(
    send: Send,
    status: int,
    answer: Mapping[str, object],
    correlation_id: str,
    *extra: tuple[bytes, bytes],
) -> None:
    """Send a whole answer."""
    body = msgspec.json.encode(answer)
    media_type = b"application/json" if status < 300 else b"application/problem+json"
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type),
                (b"content-length", b"%d" % len(body)),
                (b"x-correlation-id", correlation_id.encode()),
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
