"""A whole application over real PostgreSQL and DuckDB, with reconciling wired to it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from meterpost.bootstrap import Application
from meterpost.config.settings import Settings
from meterpost.config.workspace import Places, Workspace
from meterpost.core.clock import ManualClock
from meterpost.core.ids import (
    LegalEntityId,
    MeterId,
    TargetId,
    TransactionId,
)
from meterpost.ingest.model import Submission
from meterpost.masterdata.importing import import_files
from meterpost.metering.model import Aggregation, Meter
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.model import ErpDocument
from meterpost.reconcile.balance import Balance
from meterpost.reconcile.ledgers import Ledgers
from meterpost.reconcile.model import ReconcileReport
from meterpost.staging.model import ApprovalPolicy, StagedTransaction, State
from meterpost.storage.postgres.ledgers import PostgresLedgerStore
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector
from meterpost.testing.postgres import embedded_server, fresh_database
from meterpost.workflows.close import Ask
from meterpost.workflows.model import Workflow

NOW = datetime(2026, 11, 5, 9, 0, tzinfo=UTC)
SOURCE = "//api.test"
MASTERDATA = """
legal_entities: [{id: acme, name: Acme GmbH, currency: EUR, zone: UTC}]
accounting_periods:
  - {legal_entity: acme, id: 2026-10}
customers: [{id: initech, name: Initech, tax_category: domestic}]
items:
  - {id: tokens, name: Tokens, unit: token}
  - {id: calls, name: Calls, unit: call}
  - {id: fee, name: Fee, unit: month}
contracts:
  - id: C-1
    customer: initech
    legal_entity: acme
    lines:
      - id: L-tokens
        meter: tokens
        item: tokens
        price:
          model: graduated
          included: "100"
          tiers: [{up_to: 1000, unit_price: "0.01"}, {unit_price: "0.005"}]
      - id: L-users
        meter: users
        item: calls
        price: {model: per_unit, unit_price: "0.10"}
      - id: L-fee
        item: fee
        price: {model: flat, flat_amount: "3.00"}
subscriptions: [{id: S-1, contract: C-1}]
crosswalk:
  - {system: //api.test, kind: subject, external_id: alpha, canonical_id: S-1}
  - {system: erp, kind: customer, external_id: E-1, canonical_id: initech}
  - {system: erp, kind: item, external_id: E-TOK, canonical_id: tokens}
  - {system: erp, kind: item, external_id: E-CALL, canonical_id: calls}
  - {system: erp, kind: item, external_id: E-FEE, canonical_id: fee}
  - {system: erp, kind: tax_category, external_id: VAT19, canonical_id: domestic}
"""
METERS = (
    Meter(MeterId("calls"), "api.call", Aggregation.COUNT, "call"),
    Meter(
        MeterId("tokens"),
        "api.call",
        Aggregation.SUM,
        "token",
        value="data.tokens * 1",
        filter="data.tokens > 0",
        dimensions={"model": "data.model"},
    ),
    Meter(MeterId("users"), "api.call", Aggregation.UNIQUE, "user", value="data.user"),
)


@dataclass(frozen=True)
class Someone:
    user: str
    roles: frozenset[str]


@dataclass(frozen=True)
class OneConnection:
    """Ledgers as one open transaction sees them."""

    connection: Connection

    @contextmanager
    def snapshot(self) -> Iterator[PostgresLedgerStore]:
        yield PostgresLedgerStore(self.connection)


class Bench:
    """The application and the room under test, in a few words."""

    def __init__(self, app: Application, clock: ManualClock, erp: FakeErp, files: Path) -> None:
        self.app = app
        self.clock = clock
        self.erp = erp
        self._files = files
        self._number = 0
        self.reconciler = app.reconciler
        self.tracer = app.tracer
        self.prover = app.prover
        self.ledgers = app.ledgers

    def load(self, yaml: str) -> None:
        self._number += 1
        path = self._files / f"masterdata-{self._number}.yaml"
        path.write_text(textwrap.dedent(yaml))
        with self.app.masterdata_store() as store:
            report = import_files(store, [path], actor="ed", now=self.clock.now())
        assert not report.refused, report.refused

    def send(self, *events: Mapping[str, Any]) -> None:
        """Through the real journal."""
        writer = self.app.journal_writer()
        writer.start()
        try:
            intake = self.app.intake(writer)
            checked = intake.checks.batch(json.dumps(events).encode())
            intake.accept(Submission(checked, self.app.ids.correlation_id(), "test")).result(30)
        finally:
            writer.stop()

    def bill(self, ask: Ask = Ask.LATEST) -> StagedTransaction:
        """Close, approve and post; the newest revision."""
        self.app.closing.run(
            self.app.configuration("usage-billing"),
            LegalEntityId("acme"),
            "2026-10",
            ask=ask,
            actor="carol",
            correlation_id=self.app.ids.correlation_id(),
            on_progress=lambda what, done, total: None,
        )
        for each in self.transactions():
            if each.state is State.IN_REVIEW:
                person = Someone("ada", frozenset({"approver"}))
                policy = self.app.workspace.workflows[0].approval
                self.app.review.approve(each.id, str(each.document_hash), person, policy)
        poster = self.app.poster("erp")
        try:
            poster.run_once()
            self.clock.advance(timedelta(seconds=1))
            poster.run_once()
        finally:
            poster.close()
        return self.transactions()[-1]

    def transactions(self) -> list[StagedTransaction]:
        with self.app.staging._stores.begin() as store, self.app.database.begin() as connection:
            ids = connection.execute(
                select(STAGED_TRANSACTION.c.id).order_by(STAGED_TRANSACTION.c.id)
            ).scalars()
            return [store.get(TransactionId(id_)) for id_ in ids]

    def reconcile(self, *, wait_s: float = 120.0) -> ReconcileReport:
        self.clock.advance(timedelta(seconds=wait_s))
        return self.reconciler.run(TargetId("erp"), self.app.connector("erp"))

    def clerk(self, document_id: str, **changes: Any) -> ErpDocument:
        """What a person does in the ERP."""
        at, document = self.erp.documents[document_id]
        self.erp.documents[document_id] = (at, replace(document, **changes))
        return self.erp.documents[document_id][1]

    def clerk_edits_line(self, document_id: str, reference: str, net: str) -> None:
        _, document = self.erp.documents[document_id]
        lines = [
            replace(line, unit_price=Decimal(net), net=Decimal(net))
            if line.reference == reference
            else line
            for line in document.lines
        ]
        total = sum((line.net for line in lines), Decimal(0))
        tax = (total * Decimal("0.2")).quantize(Decimal("0.01"))
        self.clerk(document_id, lines=tuple(lines), net=total, tax=tax, gross=total + tax)

    def clerk_deletes(self, document_id: str) -> None:
        del self.erp.documents[document_id]

    def balance(self) -> Balance:
        return self.ledgers.balance("2026-10")

    def tampered(self, *statements: str) -> Balance:
        """The balance after these statements, all of which are rolled back again."""
        with self.app.database.engine.connect() as connection, connection.begin() as changes:
            for statement in statements:
                connection.execute(text(statement))
            found = Ledgers(
                OneConnection(connection),
                self.app.events,
                self.app._meters_of_close,
                self.app._recompute,
                METERS,
            ).balance("2026-10")
            changes.rollback()
        return found

    def exceptions(self, reason: str) -> list[Mapping[str, Any]]:
        with self.app.database.begin() as connection:
            rows = connection.execute(
                select(EXCEPTION).where(EXCEPTION.c.state == "open", EXCEPTION.c.reason == reason)
            )
            return [dict(row._mapping) for row in rows]

    def sql(self, statement: str, **values: object) -> list[Any]:
        """Straight into the database, as an intruder or a defect would."""
        with self.app.database.begin() as connection:
            found = connection.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []

    def duck(self, statement: str) -> None:
        """Straight into the event store."""
        self.app.events._connection.execute(statement)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@contextmanager
def opened(server: str, folder: Path) -> Iterator[Bench]:
    """One customer with one contract and one subject; nothing sent yet."""
    with fresh_database(server) as dsn:
        workflow = Workflow(
            name="usage-billing",
            purpose="bill",
            meters=(MeterId("tokens"), MeterId("users")),
            target=TargetId("erp"),
            approval=ApprovalPolicy(),
        )
        workspace = Workspace(
            Places(folder),
            Settings(installation="test", environment="sandbox"),
            (),
            METERS,
            (workflow,),
            (ConnectionConfig(TargetId("erp"), "fake", "sandbox", "memory:"),),
            (),
        )
        clock = ManualClock(NOW)
        app = Application(workspace, dsn, clock=clock)
        app.database.migrate()
        erp = FakeErp(clock, customers={"E-1"}, items={"E-TOK", "E-CALL", "E-FEE"})
        app._connectors["erp"] = FakeErpConnector(erp)
        with app.closes.begin() as store:
            plain = app.configuration("usage-billing")
            store.remember_config(plain.digest, plain.content, "ed", NOW)
        made = Bench(app, clock, erp, folder)
        made.load(MASTERDATA)
        try:
            yield made
        finally:
            app.close()


@pytest.fixture
def bench(server: str, tmp_path: Path) -> Iterator[Bench]:
    """A bench of the test's own."""
    with opened(server, tmp_path) as made:
        yield made


def event_of(
    id_: str, tokens: object, *, subject: str = "alpha", day: int = 3, model: str = "m1"
) -> Mapping[str, Any]:
    """One event of October 2026."""
    return {
        "specversion": "1.0",
        "id": id_,
        "source": SOURCE,
        "type": "api.call",
        "subject": subject,
        "time": f"2026-10-{day:02d}T10:00:00Z",
        "data": {"tokens": tokens, "user": f"u-{id_}", "model": model},
    }


@pytest.fixture
def usage() -> Callable[..., Mapping[str, Any]]:
    """Makes one event of October 2026."""
    return event_of


def fill(bench: Bench) -> None:
    """Usage of every kind, closed, posted and reconciled."""
    bench.send(
        event_of("1", 800),
        event_of("2", 700, day=9, model="m2"),
        event_of("3", "12345678901234.123456789", subject="nobody"),
        event_of("4", 0),
        {**event_of("5", 1), "type": "api.other"},
        event_of("1", 800),
        event_of("2", 999),
        {"specversion": "1.0", "source": SOURCE, "type": "api.call"},
    )
    bench.bill()
    bench.reconcile()


@pytest.fixture
def billed(bench: Bench) -> Bench:
    """A bench of the test's own, filled."""
    fill(bench)
    return bench


@pytest.fixture(scope="session")
def shared(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A filled bench that tests only look at, or change inside `Bench.tampered`."""
    with opened(server, tmp_path_factory.mktemp("shared")) as made:
        fill(made)
        yield made
