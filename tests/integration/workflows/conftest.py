"""A whole application over real PostgreSQL and DuckDB, with an ERP in memory."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from meterpost.bootstrap import Application
from meterpost.config.settings import Settings
from meterpost.config.workspace import Places, Workspace
from meterpost.core.clock import ManualClock
from meterpost.core.ids import LegalEntityId, MeterId, TargetId, TransactionId
from meterpost.ingest.model import Submission
from meterpost.masterdata.importing import import_files
from meterpost.masterdata.report import ImportReport
from meterpost.metering.model import Aggregation, Meter
from meterpost.posting.config import ConnectionConfig
from meterpost.staging.model import ApprovalPolicy, StagedTransaction, State
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector
from meterpost.testing.postgres import embedded_server, fresh_database
from meterpost.workflows.close import Ask, CloseReport
from meterpost.workflows.model import Workflow

NOW = datetime(2026, 11, 5, 9, 0, tzinfo=UTC)
SOURCE = "//api.test"


@dataclass(frozen=True)
class Someone:
    """A person with roles."""

    user: str
    roles: frozenset[str]


CLOSER = "carol"
APPROVER = Someone("ada", frozenset({"approver"}))


class Bench:
    """What a test does with the application, in a few words."""

    def __init__(self, app: Application, clock: ManualClock, erp: FakeErp, files: Path) -> None:
        self.app = app
        self.clock = clock
        self.erp = erp
        self._files = files
        self._number = 0

    def load(self, yaml: str) -> ImportReport:
        """Import master data."""
        self._number += 1
        path = self._files / f"masterdata-{self._number}.yaml"
        path.write_text(textwrap.dedent(yaml))
        with self.app.masterdata_store() as store:
            report = import_files(store, [path], actor="ed", now=self.clock.now())
        assert not report.refused, report.refused
        return report

    def send(
        self, *events: tuple[str, str, str, Mapping[str, object]], source: str = SOURCE
    ) -> None:
        """Accept events given as (id, subject, time, data) through the real journal."""
        body = json.dumps(
            [
                {
                    "specversion": "1.0",
                    "id": id_,
                    "source": source,
                    "type": "api.call",
                    "subject": subject,
                    "time": time,
                    "data": data,
                }
                for id_, subject, time, data in events
            ]
        ).encode()
        writer = self.app.journal_writer()
        writer.start()
        try:
            intake = self.app.intake(writer)
            checked = intake.checks.batch(body)
            assert not checked.rejected, checked.rejected
            intake.accept(Submission(checked, self.app.ids.correlation_id(), "test")).result(30)
        finally:
            writer.stop()

    def close(
        self, ask: Ask = Ask.LATEST, period: str = "2026-10", entity: str = "acme"
    ) -> CloseReport:
        """Run a close of the workflow."""
        return self.app.closing.run(
            self.app.configuration("usage-billing"),
            LegalEntityId(entity),
            period,
            ask=ask,
            actor=CLOSER,
            correlation_id=self.app.ids.correlation_id(),
            on_progress=lambda what, done, total: None,
        )

    def transactions(self) -> list[StagedTransaction]:
        """All revisions, oldest first."""
        with self.app.staging._stores.begin() as store, self.app.database.begin() as connection:
            ids = connection.execute(
                select(STAGED_TRANSACTION.c.id).order_by(STAGED_TRANSACTION.c.id)
            ).scalars()
            return [store.get(TransactionId(id_)) for id_ in ids]

    def latest(self, contract: str = "C-1") -> StagedTransaction:
        """The newest revision of a contract."""
        return [each for each in self.transactions() if each.business_key == contract][-1]

    def approve(self) -> int:
        """Approve everything in review; how many."""
        waiting = [each for each in self.transactions() if each.state is State.IN_REVIEW]
        for each in waiting:
            assert each.document_hash is not None
            self.app.review.approve(
                each.id, each.document_hash, APPROVER, self.app.workspace.workflows[0].approval
            )
        return len(waiting)

    def post(self) -> None:
        """Run the poster until nothing moves."""
        poster = self.app.poster("erp")
        try:
            poster.run_once()
            self.clock.advance(timedelta(seconds=1))
            poster.run_once()
        finally:
            poster.close()

    def bill(self, ask: Ask = Ask.LATEST) -> StagedTransaction:
        """Close, approve and post."""
        self.close(ask)
        self.approve()
        self.post()
        return self.latest()

    def exceptions(self, reason: str | None = None) -> list[Mapping[str, object]]:
        """Open exceptions."""
        with self.app.database.begin() as connection:
            rows = connection.execute(select(EXCEPTION).where(EXCEPTION.c.state == "open"))
            found = [dict(row._mapping) for row in rows]
        return [each for each in found if reason in (None, each["reason"])]


METERS = (
    Meter(MeterId("calls"), "api.call", Aggregation.COUNT, "call"),
    Meter(MeterId("tokens"), "api.call", Aggregation.SUM, "token", value="data.tokens"),
    Meter(MeterId("users"), "api.call", Aggregation.UNIQUE, "user", value="data.user"),
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@pytest.fixture
def make_bench(server: str, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Builds a bench; arguments change the approval policy or the meters."""
    with fresh_database(server) as dsn:
        made: list[Application] = []

        def make(
            policy: ApprovalPolicy | None = None,
            meters: tuple[Meter, ...] = METERS,
            billed: tuple[str, ...] = ("calls", "tokens"),
        ) -> Bench:
            workspace = Workspace(
                Places(tmp_path),
                Settings(installation="test", environment="sandbox"),
                (),
                meters,
                (
                    Workflow(
                        name="usage-billing",
                        purpose="bill",
                        meters=tuple(MeterId(each) for each in billed),
                        target=TargetId("erp"),
                        approval=policy or ApprovalPolicy(),
                    ),
                ),
                (ConnectionConfig(TargetId("erp"), "fake", "sandbox", "memory:"),),
                (),
            )
            clock = ManualClock(NOW)
            app = Application(workspace, dsn, clock=clock)
            app.database.migrate()
            erp = FakeErp(
                clock,
                customers={"E-1", "E-2"},
                items={"E-TOK", "E-CALL", "E-FEE"},
            )
            app._connectors["erp"] = FakeErpConnector(erp)
            made.append(app)
            with app.closes.begin() as store:
                plain = app.configuration("usage-billing")
                store.remember_config(plain.digest, plain.content, "ed", NOW)
            return Bench(app, clock, erp, tmp_path)

        yield make
        for app in made:
            app.close()


MASTERDATA = """
legal_entities: [{id: acme, name: Acme GmbH, currency: EUR, zone: UTC}]
accounting_periods:
  - {legal_entity: acme, id: 2026-10}
customers: [{id: initech, name: Initech, tax_category: domestic}]
items:
  - {id: tokens, name: Tokens, unit: token}
  - {id: calls, name: Calls, unit: call}
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
          tiers: [{up_to: 1000, unit_price: "0.01"}, {unit_price: "0.005"}]
subscriptions: [{id: S-1, contract: C-1}]
crosswalk:
  - {system: //api.test, kind: subject, external_id: alpha, canonical_id: S-1}
  - {system: erp, kind: customer, external_id: E-1, canonical_id: initech}
  - {system: erp, kind: item, external_id: E-TOK, canonical_id: tokens}
  - {system: erp, kind: item, external_id: E-CALL, canonical_id: calls}
  - {system: erp, kind: tax_category, external_id: VAT19, canonical_id: domestic}
"""


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with one customer, one contract and one subject."""
    made = make_bench()
    made.load(MASTERDATA)
    return made


def usage(
    id_: str, tokens: object, *, subject: str = "alpha", day: int = 3, hour: int = 10
) -> tuple[str, str, str, Mapping[str, object]]:
    """One event in October 2026."""
    return (
        id_,
        subject,
        f"2026-10-{day:02d}T{hour:02d}:00:00Z",
        {"tokens": tokens, "user": f"u-{id_}"},
    )
