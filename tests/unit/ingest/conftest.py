"""Events as senders write them, checks with two meters, and a recorder that remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from meterpost.access.model import Principal, Role, Scope
from meterpost.api.events import EventsApp
from meterpost.core.errors import MeterpostError, NotAuthenticated
from meterpost.core.ids import UserId
from meterpost.ingest.checks import Checks
from meterpost.ingest.model import EventType, Limits, Recorded, Submission
from meterpost.ingest.ports import Outcome
from meterpost.ingest.service import Intake

TYPE = "llm.request"


class MemoryRecorder:
    """A recorder that keeps submissions in a list, or answers with a given failure."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.failure: MeterpostError | None = None

    def submit(self, submission: Submission, done: Callable[[Outcome], None]) -> None:
        if self.failure is not None:
            done(self.failure)
            return
        self.submissions.append(submission)
        sequence = len(self.submissions) if submission.checked.events else None
        done(Recorded(sequence, datetime(2026, 1, 1, tzinfo=UTC)))

    def events(self) -> list[dict[str, Any]]:
        return [
            event
            for one in self.submissions
            if one.checked.body
            for event in json.loads(one.checked.body)
        ]


class MemoryVault:
    """Tokens by counting, kept in a dictionary."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def tokens(self, field: str, values: Collection[str]) -> Mapping[str, str]:
        return {
            value: self.known.setdefault((field, value), f"pt_{len(self.known)}")
            for value in values
        }

    def find(self, field: str, value: str) -> str | None:
        return self.known.get((field, value))

    def reveal(self, tokens: Iterable[str]) -> Mapping[str, str]:
        back = {token: value for (_, value), token in self.known.items()}
        return {token: back[token] for token in tokens if token in back}

    def erase(self, field: str, value: str) -> str | None:
        return self.known.pop((field, value), None)


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        made = {
            "specversion": "1.0",
            "id": "e1",
            "source": "/svc/code",
            "type": TYPE,
            "subject": "acme",
            "time": "2023-11-16T18:17:03.9799600Z",
            "data": {"tokens": 10},
        }
        made.update(changes)
        return {name: value for name, value in made.items() if value is not ...}

    return make


@pytest.fixture
def checks() -> Checks:
    return Checks(
        [
            EventType(
                "storage.used",
                schema={
                    "type": "object",
                    "required": ["bytes"],
                    "properties": {"bytes": {"type": "integer", "minimum": 0}},
                },
            ),
            EventType("page.viewed", personal=("subject", "data.user.mail")),
        ],
        {TYPE: ("data.tokens", "data.cost"), "storage.used": ("data.bytes",)},
    )


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def vault() -> MemoryVault:
    return MemoryVault()


def authenticate(token: str) -> Principal:
    if token == "k1.good":
        return Principal(
            UserId("u"), frozenset({Role.ENGINEER}), frozenset({Scope.EVENTS_WRITE}), "k1"
        )
    if token == "k2.reader":
        return Principal(UserId("u"), frozenset({Role.VIEWER}), frozenset(), "k2")
    raise NotAuthenticated("The API key is unknown.")


@pytest.fixture
def new_app(
    checks: Checks, recorder: MemoryRecorder, vault: MemoryVault
) -> Callable[..., EventsApp]:
    def make(limits: Limits | None = None, **options: Any) -> EventsApp:
        limited = Checks((), {TYPE: ("data.tokens",)}, limits=limits)
        used = checks if limits is None else limited
        into = options.pop("recorder", recorder)
        return EventsApp(Intake(used, into, vault), authenticate, **options)

    return make


@pytest.fixture
def post() -> Callable[..., httpx.Response]:
    def send(
        app: EventsApp,
        body: Any,
        media_type: str | None = "application/cloudevents-batch+json",
        *,
        key: str | None = "k1.good",
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        path: str = "/v1/events",
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = dict(headers or {})
        if media_type is not None:
            sent["content-type"] = media_type
        if key is not None:
            sent["authorization"] = f"Bearer {key}"

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                return await client.request(method, path, content=content, headers=sent)

        return asyncio.run(run())

    return send
