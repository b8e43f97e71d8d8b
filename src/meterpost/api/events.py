"""``POST /v1/events`` as a plain ASGI app: the one endpoint whose cost per request counts."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from hashlib import sha256
from itertools import count
from typing import Any

import structlog

from meterpost.access.model import Principal, Scope, require
from meterpost.api.answers import Send, problem_answer, send_error, send_json, send_problem
from meterpost.api.cloudevents_http import Mode, mode_of, structured, unpacked
from meterpost.core.errors import MeterpostError, NotAuthenticated, Throttled
from meterpost.core.ids import Ids, RandomIds
from meterpost.ingest.checks import TooLarge
from meterpost.ingest.model import Checked, Submission
from meterpost.ingest.ports import Backlog, Outcome
from meterpost.ingest.service import Intake

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: Who presents ``<id>.<secret>``; may block. Raises NotAuthenticated.
Authenticator = Callable[[str], Principal]

#: A revoked key works for this long at most.
REMEMBER_KEY_S = 5.0
_KEYS_REMEMBERED_MAX = 1_000
#: Bodies above are checked in a thread, so that others are not kept waiting.
_INLINE_BYTES_MAX = 200_000

_CORRELATION_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_log = structlog.get_logger(__name__)


class _Disconnected(Exception):
    """The client went away before its body was complete."""


class EventsApp:
    """Takes events over HTTP, alone or mounted; see docs/ingest.md for requests and answers.

    ``backlog`` answers from memory. ``start`` and ``stop`` belong to the recorder and run with
    the app's lifespan; where the app is mounted, call `startup` and `shutdown`.
    """

    def __init__(
        self,
        intake: Intake,
        authenticate: Authenticator,
        *,
        backlog: Backlog = lambda: 0,
        start: Callable[[], None] = lambda: None,
        stop: Callable[[], None] = lambda: None,
        ids: Ids | None = None,
        path: str = "/v1/events",
    ) -> None:
        self._intake = intake
        self._limits = intake.checks.limits
        self._authenticate = authenticate
        self._backlog = backlog
        self._start = start
        self._stop = stop
        # A name per request costs more than reading the request, so they are numbered instead.
        self._names = map(f"{(ids or RandomIds()).correlation_id()}-{{:x}}".format, count(1))
        self._path = path
        self._in_flight_bytes = 0
        self._counting = threading.Lock()
        self._keys: dict[bytes, tuple[Principal, float]] = {}
        self._answers = _Answers()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """One ASGI connection: a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def startup(self) -> None:
        """Start the recorder.

        Raises: NeedsPerson where the database is not durable; Transient.
        """
        await asyncio.to_thread(self._start)

    async def shutdown(self) -> None:
        """Let the recorder finish what it has."""
        await asyncio.to_thread(self._stop)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the requests being handled now."""
        return self._in_flight_bytes

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.startup()
                except MeterpostError as exc:
                    _log.error("edge cannot start", reason=str(exc))
                    await send({"type": "lifespan.startup.failed", "message": str(exc)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        correlation_id = self._correlation_id(headers)
        if scope["path"].rstrip("/") != self._path:
            await send_problem(send, "not-found", "There is nothing here.", correlation_id)
            return
        if scope["method"] != "POST":
            await send_problem(
                send,
                "method-not-allowed",
                "Events are posted.",
                correlation_id,
                (b"allow", b"POST"),
            )
            return
        reservation = _Reservation(self)
        try:
            status, answer = await self._accept(headers, correlation_id, receive, reservation)
            await send_json(send, status, answer, correlation_id)
        except MeterpostError as exc:
            await send_error(send, exc, correlation_id)
        except _Disconnected:
            _log.info("client went away", correlation_id=correlation_id)
        except Exception:
            await send_problem(send, "internal", "Something failed here.", correlation_id)
            raise
        finally:
            reservation.release()

    async def _accept(
        self,
        headers: Mapping[bytes, bytes],
        correlation_id: str,
        receive: Receive,
        reservation: _Reservation,
    ) -> tuple[int, Mapping[str, object]]:
        principal = await self._principal(headers)
        mode = mode_of(headers)
        if self._backlog() >= self._limits.backlog_events_max:
            raise Throttled(
                "Events arrive faster than they are processed.",
                hint="Nothing was stored: send them again later.",
                after_s=5.0,
            )
        body = await self._read(headers, mode, receive, reservation)
        if len(body) <= _INLINE_BYTES_MAX and b"content-encoding" not in headers:
            checked = self._check(mode, headers, body)
        else:
            checked = await asyncio.to_thread(
                self._unpack_and_check, mode, headers, body, reservation
            )
        if checked.personal:
            checked = await asyncio.to_thread(self._intake.without_personal_values, checked)
        if checked.counts:
            outcome = await self._record(
                Submission(
                    checked, correlation_id, principal.key or str(principal.user), _trace(headers)
                )
            )
            if isinstance(outcome, MeterpostError):
                raise outcome
        return self._report(checked, correlation_id)

    async def _principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise NotAuthenticated(
                "The request has no API key.", hint="Send `Authorization: Bearer <id>.<secret>`."
            )
        fingerprint = sha256(token).digest()
        known = self._keys.get(fingerprint)
        if known is not None and known[1] > time.monotonic():
            principal = known[0]
        else:
            principal = await asyncio.to_thread(self._authenticate, token.strip().decode("latin-1"))
            if len(self._keys) >= _KEYS_REMEMBERED_MAX:
                self._keys.clear()
            self._keys[fingerprint] = (principal, time.monotonic() + REMEMBER_KEY_S)
        require(principal, Scope.EVENTS_WRITE)
        return principal

    async def _read(
        self,
        headers: Mapping[bytes, bytes],
        mode: Mode,
        receive: Receive,
        reservation: _Reservation,
    ) -> bytes:
        single = mode in (Mode.STRUCTURED, Mode.BINARY)
        limit = self._limits.event_bytes_max if single else self._limits.body_bytes_max
        said = headers.get(b"content-length", b"")
        expected = int(said) if said.isdigit() and len(said) < 18 else 0
        if expected > limit:
            raise TooLarge(f"The request has {expected} bytes; up to {limit} are accepted.")
        reservation.grow(expected)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"The request has more than {limit} bytes.")
            if size > expected:
                reservation.grow(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _unpack_and_check(
        self, mode: Mode, headers: Mapping[bytes, bytes], body: bytes, reservation: _Reservation
    ) -> Checked:
        body = unpacked(headers, body, self._limits.body_bytes_max, reservation.grow)
        return self._check(mode, headers, body)

    def _check(self, mode: Mode, headers: Mapping[bytes, bytes], body: bytes) -> Checked:
        checks = self._intake.checks
        if mode is Mode.BATCH:
            return checks.batch(body)
        if mode is Mode.LINES:
            return checks.lines(body)
        if mode is Mode.BINARY:
            return checks.one(structured(headers, body))
        return checks.one(body)

    async def _record(self, submission: Submission) -> Outcome:
        future, done = self._answers.expect()
        self._intake.record(submission, done)
        return await future

    def _report(self, checked: Checked, correlation_id: str) -> tuple[int, Mapping[str, object]]:
        answer: dict[str, object] = {
            "accepted": checked.events,
            "rejected": [
                {
                    "index": one.index,
                    "field": one.problem.where,
                    "code": one.problem.code,
                    "reason": " ".join(filter(None, (one.problem.sentence, one.problem.hint))),
                }
                for one in checked.rejected[: self._limits.rejected_listed_max]
            ],
            "rejected_total": len(checked.rejected),
            "correlation_id": correlation_id,
        }
        if checked.rejected and not checked.events:
            sentence = "Every event of the request was refused; all are kept in quarantine."
            return 422, {**problem_answer("no-event-accepted", sentence, correlation_id), **answer}
        return 202, answer

    def _correlation_id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-correlation-id", b"")
        return given.decode() if _CORRELATION_ID.fullmatch(given) else next(self._names)

    def reserve(self, size: int) -> None:
        """Count bytes that are about to be held.

        Raises: Throttled past the bound for all requests together.
        """
        with self._counting:
            if self._in_flight_bytes + size <= self._limits.in_flight_bytes_max:
                self._in_flight_bytes += size
                return
        raise Throttled(
            "The edge is holding as many bytes of requests as it may.",
            hint="Nothing was stored: send the request again.",
            after_s=1.0,
        )

    def release(self, size: int) -> None:
        """Bytes that are held no longer."""
        with self._counting:
            self._in_flight_bytes -= size


class _Reservation:
    """The bytes that one request holds."""

    def __init__(self, app: EventsApp) -> None:
        self._app = app
        self._size = 0

    def grow(self, size: int) -> None:
        self._app.reserve(size)
        self._size += size

    def release(self) -> None:
        self._app.release(self._size)
        self._size = 0


class _Answers:
    """Brings outcomes from the recorder's thread to the event loop, one wake-up per group."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._woken = False

    def expect(self) -> tuple[asyncio.Future[Outcome], Callable[[Outcome], None]]:
        """A future, and what fulfils it from any thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def done(outcome: Outcome) -> None:
            self._arrived.append((future, outcome))
            if not self._woken and not loop.is_closed():
                self._woken = True
                loop.call_soon_threadsafe(self._hand_out)

        return future, done

    def _hand_out(self) -> None:
        # Lowered first: what arrives from here on either is seen below or wakes the loop again.
        self._woken = False
        while self._arrived:
            future, outcome = self._arrived.popleft()
            if not future.done():
                future.set_result(outcome)


def _trace(headers: Mapping[bytes, bytes]) -> str | None:
    given = headers.get(b"traceparent", b"")
    return given.decode() if _TRACEPARENT.fullmatch(given) else None
