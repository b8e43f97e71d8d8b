"""Runs operations for requests: here or in the engine, in threads, once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from meterpost.access.cache import KeyCache
from meterpost.access.idempotency import (
    BODY_BYTES_MAX,
    Idempotency,
    InProgress,
    Mismatch,
    New,
    Replay,
)
from meterpost.access.model import Principal, require
from meterpost.api.problems import Answer, KeyReused
from meterpost.bootstrap import Application
from meterpost.core.errors import (
    Conflict,
    MeterpostError,
    NotAuthenticated,
    OutcomeUnknown,
    Throttled,
)
from meterpost.engine.ports import Caller
from meterpost.observe.logging import log_context
from meterpost.operations.registry import Context, Operation
from meterpost.storage.postgres.access import PostgresIdempotencyStore

#: The longest silence of the engine that is waited through, for what reads and what creates.
READ_TIMEOUT_S = 120.0
CREATE_TIMEOUT_S = 3_600.0
#: Threads by what they do, so that one kind cannot keep the others waiting: look keys up, wait
#: for the engine, wait for an ERP, everything else.
THREADS: Mapping[str, int] = {"keys": 4, "engine": 32, "slow": 4, "short": 8}
#: Requests that wait for a thread of one kind; more are asked to come again.
WAITING_MAX = 200

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")


class EngineTransport(Protocol):
    """`meterpost.engine.client.EngineClient`, or what stands for it in a test."""

    def call(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        caller: Caller | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The operation's result, as plain JSON. Raises: what the operation raises."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for an operation, arguments checked."""

    operation: Operation
    arguments: Mapping[str, object]
    principal: Principal
    token: str
    correlation_id: str
    traceparent: str | None = None


class Calls:
    """Asks operations of an application and its engine."""

    def __init__(self, application: Application, engine: EngineTransport) -> None:
        self._application = application
        self._engine = engine
        self._keys = KeyCache(application.access.authenticate)
        self._idempotency = Idempotency(
            PostgresIdempotencyStore(application.database),
            timedelta(hours=application.workspace.settings.retention.idempotency_hours),
        )
        self._limiters: dict[str, anyio.CapacityLimiter] = {}

    async def principal(self, authorization: str) -> tuple[Principal, str]:
        """Who asks, and the token they ask with. Raises: NotAuthenticated."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated(
                "The request has no API key.",
                hint="Send `Authorization: Bearer mp_<id>.<secret>`.",
            )
        now = self._application.clock.now()
        found = await self._in_thread("keys", partial(self._keys.authenticate, token, now))
        return found, token

    async def answer(
        self,
        asked: Asked,
        present: Callable[[object], Answer],
        *,
        key: str | None = None,
        request_hash: str = "",
        slow: bool = False,
    ) -> Answer:
        """The answer to a request; with an Idempotency-Key, the first one given to it.

        Raises: what the operation raises; Conflict while the first request is being carried
        out; KeyReused where the key stands for another request.
        """
        kind = "engine" if asked.operation.needs_events else "slow" if slow else "short"
        if key is None:
            return await self._in_thread(kind, lambda: present(self._run(asked)))
        return await self._in_thread(kind, partial(self._once, asked, present, key, request_hash))

    async def _in_thread(self, kind: str, work: Callable[[], _Result]) -> _Result:
        # Made in the event loop that uses them.
        limiter = self._limiters.get(kind)
        if limiter is None:
            limiter = self._limiters[kind] = anyio.CapacityLimiter(THREADS[kind])
        if limiter.statistics().tasks_waiting >= WAITING_MAX:
            raise Throttled("Too many requests are waiting.", hint="Ask again later.", after_s=2.0)
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    def _run(self, asked: Asked) -> object:
        require(asked.principal, asked.operation.scope)
        with log_context(
            correlation_id=asked.correlation_id,
            traceparent=asked.traceparent,
            operation=asked.operation.name,
        ):
            if asked.operation.needs_events:
                return self._engine.call(
                    asked.operation.name,
                    asked.arguments,
                    caller=Caller(token=asked.token),
                    correlation_id=asked.correlation_id,
                    traceparent=asked.traceparent,
                    timeout_s=CREATE_TIMEOUT_S if asked.operation.creates else READ_TIMEOUT_S,
                )
            context = Context(self._application, asked.principal, asked.correlation_id)
            return asked.operation.run(context, asked.arguments)

    def _once(
        self, asked: Asked, present: Callable[[object], Answer], key: str, request_hash: str
    ) -> Answer:
        whose = asked.principal.key or str(asked.principal.user)
        now = self._application.clock.now()
        match self._idempotency.begin(key, whose, request_hash, now):
            case Replay(status=status, body=body):
                return Answer(status, body, {"Idempotent-Replayed": "true"})
            case InProgress():
                raise Conflict(
                    "The first request with this Idempotency-Key is still being carried out.",
                    hint="Ask again later: its answer will be given then.",
                )
            case Mismatch():
                raise KeyReused(
                    "This Idempotency-Key stands for another request.",
                    hint="Use a new key for a new request.",
                )
            case New() as claim:
                return self._carry_out(asked, present, claim)

    def _carry_out(self, asked: Asked, present: Callable[[object], Answer], claim: New) -> Answer:
        try:
            answer = present(self._run(asked))
        except OutcomeUnknown:
            raise  # it may have taken effect: the key stays taken for a while
        except MeterpostError:
            self._release(claim)
            raise
        if answer.status >= 400:
            self._release(claim)
            return answer
        try:
            self._idempotency.finish(claim, *_kept(answer))
        except MeterpostError as exc:
            # What was asked for is done; the key alone is not settled.
            _log.warning("answer_not_kept", why=str(exc))
        return answer

    def _release(self, claim: New) -> None:
        try:
            self._idempotency.release(claim)
        except MeterpostError as exc:
            _log.warning("idempotency_key_not_released", why=str(exc))


def _kept(answer: Answer) -> tuple[int, bytes]:
    if len(answer.body) <= BODY_BYTES_MAX:
        return answer.status, answer.body
    return answer.status, msgspec.json.encode(
        {"done": True, "note": "This was done; its answer was too long to be kept."}
    )
