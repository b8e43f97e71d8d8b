"""A whole application behind its HTTP API, with the engine's operations in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from meterpost.access.model import Principal, Role, Scope, scopes_of
from meterpost.api.app import create_app
from meterpost.bootstrap import Application
from meterpost.config.settings import Settings
from meterpost.config.workspace import Places, Workspace
from meterpost.core.errors import MeterpostError, NotAuthenticated
from meterpost.core.ids import MeterId, TargetId, UserId
from meterpost.engine.ops import AsgiApp
from meterpost.engine.ports import Caller
from meterpost.engine.wire import error_of, problem_frame
from meterpost.metering.model import Aggregation, Meter
from meterpost.operations.registry import Context, find_operation
from meterpost.posting.config import ConnectionConfig
from meterpost.staging.model import ApprovalPolicy
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector
from meterpost.testing.postgres import embedded_server, fresh_database
from meterpost.workflows.model import Workflow

WAIT_S = 60.0

MASTERDATA = """
legal_entities: [{id: acme, name: Acme GmbH, currency: EUR, zone: UTC}]
accounting_periods:
  - {legal_entity: acme, id: 2026-10}
customers: [{id: initech, name: Initech, tax_category: domestic}]
items: [{id: tokens, name: Tokens, unit: token}]
contracts:
  - id: C-1
    customer: initech
    legal_entity: acme
    lines:
      - id: L-tokens
        meter: tokens
        item: tokens
        price: {model: per_unit, unit_price: "0.01"}
subscriptions: [{id: S-1, contract: C-1}]
crosswalk:
  - {system: //api.test, kind: subject, external_id: alpha, canonical_id: S-1}
  - {system: erp, kind: customer, external_id: E-1, canonical_id: initech}
  - {system: erp, kind: item, external_id: E-TOK, canonical_id: tokens}
  - {system: erp, kind: tax_category, external_id: VAT19, canonical_id: domestic}
"""


class InProcessEngine:
    """The contract of `EngineClient`, without a socket: everything goes through JSON both ways,
    failures as the frames that would carry them.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self.called: list[str] = []
        #: Raised instead of running anything.
        self.failure: MeterpostError | None = None
        #: Run in the middle of each call.
        self.meanwhile: Callable[[], None] = lambda: None

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
        self.called.append(operation)
        if self.failure is not None:
            raise self.failure
        self.meanwhile()
        assert caller is not None
        assert correlation_id is not None
        sent = json.loads(json.dumps(dict(arguments or {})))
        access, now = self._application.access, self._application.clock.now()
        try:
            if caller.token is None:
                raise NotAuthenticated("The request names no key.")
            principal = access.authenticate(caller.token, now)
            context = Context(self._application, principal, correlation_id)
            result = find_operation(operation).run(context, sent)
        except MeterpostError as exc:
            raise error_of(json.loads(json.dumps(problem_frame(exc)))["problem"]) from exc
        return json.loads(json.dumps(result))


class Client:
    """Speaks HTTP to an ASGI application that lives in an event loop of its own."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        self._life = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        assert self.tell("lifespan.startup")["type"] == "lifespan.startup.complete"

    async def _live(self) -> None:
        await self._app({"type": "lifespan"}, self._told.get, self._heard.put)

    def tell(self, what: str) -> Any:
        """Send a message of the lifespan; the answer to it."""

        async def talk() -> Any:
            await self._told.put({"type": what})
            return await self._heard.get()

        return asyncio.run_coroutine_threadsafe(talk(), self._loop).result(WAIT_S)

    def __call__(
        self, method: str, url: str, token: str | None = None, **more: Any
    ) -> httpx.Response:
        """The answer to a request; an exception that leaves the application is raised here."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge.test") as http:
                return await http.request(method, url, headers=headers, **more)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(WAIT_S)

    def close(self) -> None:
        assert self.tell("lifespan.shutdown")["type"] == "lifespan.shutdown.complete"
        self._life.result(WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()


class World:
    """An application, its API, and keys to it."""

    def __init__(self, app: Application, engine: Any, client: Client, admin: Principal) -> None:
        self.app = app
        self.engine = engine
        self.http = client
        self.admin = admin
        self._people = 0

    def key(self, *scopes: Scope, user: str = "boss") -> str:
        """A token with exactly these scopes."""
        now = datetime.now(UTC)
        return self.app.access.create_key(self.admin, UserId(user), scopes, now).token

    def key_without(self, scope: Scope) -> str:
        """A token with every scope but one."""
        return self.key(*(each for each in Scope if each != scope))

    def person(self, *roles: Role) -> str:
        """A token of a new person with these roles."""
        self._people += 1
        id_ = f"person-{self._people}"
        self.app.access.create_user(self.admin, id_, id_, roles, datetime.now(UTC))
        return self.key(*scopes_of(roles), user=id_)

    @property
    def everything(self) -> str:
        """A token with every scope."""
        return self.key(*Scope)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def application(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    root: Path = tmp_path_factory.mktemp("workspace")
    workspace = Workspace(
        Places(root),
        Settings(installation="test", environment="sandbox"),
        (),
        (
            Meter(MeterId("calls"), "api.call", Aggregation.COUNT, "call"),
            Meter(MeterId("tokens"), "api.call", Aggregation.SUM, "token", value="data.tokens"),
        ),
        (
            Workflow(
                name="usage-billing",
                purpose="bill",
                meters=(MeterId("tokens"),),
                target=TargetId("erp"),
                approval=ApprovalPolicy(),
            ),
        ),
        (ConnectionConfig(TargetId("erp"), "fake", "sandbox", "memory:"),),
        (),
    )
    with fresh_database(server) as dsn:
        app = Application(workspace, dsn)
        try:
            app.database.migrate()
            erp = FakeErp(app.clock, customers={"E-1"}, items={"E-TOK"})
            app._connectors["erp"] = FakeErpConnector(erp)
            plain = app.configuration("usage-billing")
            with app.closes.begin() as store:
                store.remember_config(plain.digest, plain.content, "ed", datetime.now(UTC))
            yield app
        finally:
            app.close()


@pytest.fixture(scope="module")
def admin(application: Application) -> Principal:
    now = datetime.now(UTC)
    application.access.first_administrator("boss", "Boss", now, list(Role))
    return application.access.person(UserId("boss"))


@pytest.fixture(scope="module")
def world(application: Application, admin: Principal) -> Iterator[World]:
    """One application for all tests of a file: each makes what it looks at."""
    engine = InProcessEngine(application)
    client = Client(create_app(application, engine))
    yield World(application, engine, client, admin)
    client.close()


@pytest.fixture(scope="module")
def make_client() -> Iterator[Callable[[AsgiApp], Client]]:
    made: list[Client] = []

    def make(app: AsgiApp) -> Client:
        made.append(Client(app))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def masterdata() -> str:
    return MASTERDATA
