"""A whole application billing November 2023 to one ERP, for tests: from events to the ledgers.

Real PostgreSQL and DuckDB, the machine's own date (ERPs have books for the present year), and a
clock that does not wait.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import select, text

from meterpost.bootstrap import Application
from meterpost.config.settings import Settings
from meterpost.config.workspace import Places, Workspace
from meterpost.core.ids import LegalEntityId, MeterId, TargetId, TransactionId
from meterpost.ingest.model import Submission
from meterpost.masterdata.importing import import_files
from meterpost.metering.model import Aggregation, Meter
from meterpost.posting.config import ConnectionConfig, SecretReference
from meterpost.posting.model import ErpDocument
from meterpost.reconcile.model import ReconcileReport
from meterpost.staging.model import ApprovalPolicy, StagedTransaction, State
from meterpost.storage.tables.staging import EXCEPTION, STAGED_TRANSACTION
from meterpost.workflows.close import Ask, CloseReport
from meterpost.workflows.model import Workflow

PERIOD = "2023-11"
SOURCE = "//llm.test"
ERP = TargetId("erp")
_TOKENS = Meter(MeterId("tokens"), "llm.request", Aggregation.SUM, "token", value="data.tokens * 1")


class HastyClock:
    """The machine's clock, moved on instead of waited for."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """The present moment and everything that was slept, in UTC."""
        return datetime.now(UTC) + self._ahead

    def sleep(self, seconds: float) -> None:
        """Move on by that many seconds at once."""
        self._ahead += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person with roles."""

    user: str
    roles: frozenset[str] = frozenset({"approver"})


@dataclass(frozen=True, slots=True)
class ErpNames:
    """What the ERP under test calls our things, and what it makes of tax.

    ``customers``: ours → theirs; one contract each, `C-` and our name.
    """

    customers: Mapping[str, str]
    item: str
    tax_code: str
    account: str
    payment_term: str | None = None
    tax_rate: Decimal = Decimal("0.19")


@dataclass(frozen=True, slots=True)
class ErpConnection:
    """How to reach the ERP under test; ``secrets`` in clear, as a fixture knows them."""

    connector: str
    url: str
    secrets: Mapping[str, str] = field(repr=False)
    options: Mapping[str, object] = field(default_factory=dict)


class Whole:
    """What a test does with the application, in a few words."""

    def __init__(self, app: Application, clock: HastyClock) -> None:
        self.app = app
        self.clock = clock
        self._events = 0
        self._files = 0

    def load(self, masterdata: Mapping[str, object]) -> None:
        """Import master data, given as a file's content."""
        self._files += 1
        path = self.app.places.root / f"masterdata-{self._files}.yaml"
        path.write_text(json.dumps(masterdata))
        with self.app.masterdata_store() as store:
            report = import_files(store, [path], actor="ed", now=self.clock.now())
        assert not report.refused, report.refused

    def use(self, *tokens: int, subject: str = "alpha") -> None:
        """One event each, accepted through the real journal."""
        events = []
        for count in tokens:
            self._events += 1
            events.append(
                {
                    "specversion": "1.0",
                    "id": f"ev-{self._events}",
                    "source": SOURCE,
                    "type": "llm.request",
                    "subject": subject,
                    "time": "2023-11-16T18:15:00Z",
                    "data": {"tokens": count},
                }
            )
        writer = self.app.journal_writer()
        writer.start()
        try:
            intake = self.app.intake(writer)
            checked = intake.checks.batch(json.dumps(events).encode())
            assert not checked.rejected, checked.rejected
            intake.accept(Submission(checked, self.app.ids.correlation_id(), "test")).result(30)
        finally:
            writer.stop()

    def close(self, ask: Ask = Ask.LATE) -> CloseReport:
        """Run a close of November 2023."""
        return self.app.closing.run(
            self.app.configuration("usage-billing"),
            LegalEntityId("acme"),
            PERIOD,
            ask=ask,
            actor="carol",
            correlation_id=self.app.ids.correlation_id(),
            on_progress=lambda what, done, total: None,
        )

    def approve(self) -> None:
        """Approve everything in review."""
        for each in self.transactions():
            if each.state is State.IN_REVIEW:
                assert each.document_hash is not None
                policy = self.app.workspace.workflows[0].approval
                self.app.review.approve(each.id, each.document_hash, Somebody("ada"), policy)

    def post(self) -> None:
        """Two rounds of the poster: send, and read back."""
        poster = self.app.poster(ERP)
        try:
            poster.run_once()
            self.clock.sleep(1)
            poster.run_once()
        finally:
            poster.close()

    def bill(self) -> StagedTransaction:
        """Close with everything that came by now, approve and post; the newest revision."""
        self.close()
        self.approve()
        self.post()
        return self.transactions()[-1]

    def transactions(self, contract: str | None = None) -> list[StagedTransaction]:
        """All revisions (of a contract), oldest first."""
        with self.app.database.begin() as connection:
            ids = connection.execute(select(STAGED_TRANSACTION.c.id).order_by("id")).scalars().all()
        with self.app.staging._stores.begin() as store:
            found = [store.get(TransactionId(id_)) for id_ in ids]
        return [each for each in found if contract in (None, each.business_key)]

    def transaction(self, id_: TransactionId) -> StagedTransaction:
        """One revision as it is now."""
        return next(each for each in self.transactions() if each.id == id_)

    def receipt(self, transaction: TransactionId) -> Mapping[str, object]:
        """The receipt's row of a posted transaction."""
        with self.app.database.begin() as connection:
            found = connection.execute(
                text("SELECT * FROM meterpost.receipt WHERE transaction_id = :id"),
                {"id": transaction},
            ).one()
        return dict(found._mapping)

    def document(self, transaction: TransactionId) -> ErpDocument:
        """What the ERP holds of a posted transaction at this moment."""
        document_id = str(self.receipt(transaction)["document_id"])
        return self.app.connector(ERP).read([document_id])[document_id]

    def reconcile(self, *, wait_s: float = 180) -> ReconcileReport:
        """Compare with the ERP, by default once nothing can be hidden any more."""
        self.clock.sleep(wait_s)
        return self.app.reconciler.run(ERP, self.app.connector(ERP))

    def exceptions(self) -> list[str]:
        """Reasons of open exceptions."""
        with self.app.database.begin() as connection:
            rows = connection.execute(
                select(EXCEPTION.c.reason).where(EXCEPTION.c.state == "open").order_by("id")
            )
            return list(rows.scalars())

    def require_whole(self) -> None:
        """Every number is explained: the ledgers balance and every transaction is proved."""
        balance = self.app.ledgers.balance(PERIOD)
        assert balance.unexplained == 0, balance.to_plain()
        for each in self.transactions():
            report = self.app.prover.prove_transaction(each.id)
            assert report.differences == (), report.differences


@contextmanager
def whole(dsn: str, folder: Path, connection: ErpConnection, names: ErpNames) -> Iterator[Whole]:
    """An application over an empty database and folder, with master data and no usage yet."""
    folder.mkdir(parents=True, exist_ok=True)
    references = {}
    for name, value in connection.secrets.items():
        path = folder / f"{name}.secret"
        path.touch(mode=0o600)
        path.write_text(value)
        references[name] = SecretReference(file=path.name)
    workspace = Workspace(
        Places(folder),
        Settings(installation="test", environment="sandbox"),
        (),
        (_TOKENS,),
        (
            Workflow(
                name="usage-billing",
                purpose="bill",
                meters=(_TOKENS.id,),
                target=ERP,
                approval=ApprovalPolicy(),
            ),
        ),
        (
            ConnectionConfig(
                ERP,
                connection.connector,
                "sandbox",
                connection.url,
                secrets=references,
                options=connection.options,
            ),
        ),
        (),
    )
    clock = HastyClock()
    app = Application(workspace, dsn, clock=clock)
    try:
        app.database.migrate()
        with app.closes.begin() as store:
            plain = app.configuration("usage-billing")
            store.remember_config(plain.digest, plain.content, "ed", clock.now())
        made = Whole(app, clock)
        made.load(masterdata(names))
        yield made
    finally:
        app.close()


def masterdata(names: ErpNames) -> Mapping[str, object]:
    """A contract per customer for tokens at 0.0000025, linked to the ERP's names.

    Each customer's subject has the customer's name.
    """

    def link(kind: str, theirs: str, ours: str, system: str = ERP) -> Mapping[str, str]:
        return {"system": system, "kind": kind, "external_id": theirs, "canonical_id": ours}

    made: dict[str, list[object]] = {
        "legal_entities": [{"id": "acme", "name": "Acme GmbH", "currency": "EUR", "zone": "UTC"}],
        "accounting_periods": [{"legal_entity": "acme", "id": PERIOD}],
        "items": [
            {"id": "tokens", "name": "Tokens", "unit": "token", "revenue_account": "usage"},
        ],
        "customers": [],
        "contracts": [],
        "subscriptions": [],
        "crosswalk": [
            link("item", names.item, "tokens"),
            link("tax_category", names.tax_code, "domestic"),
            link("revenue_account", names.account, "usage"),
        ],
    }
    term = {}
    if names.payment_term is not None:
        term = {"payment_term": "net30"}
        made["crosswalk"].append(link("payment_term", names.payment_term, "net30"))
    for ours, theirs in names.customers.items():
        made["customers"].append({"id": ours, "name": ours, "tax_category": "domestic", **term})
        made["contracts"].append(
            {
                "id": f"C-{ours}",
                "customer": ours,
                "legal_entity": "acme",
                "lines": [
                    {
                        "id": f"L-{ours}",
                        "meter": "tokens",
                        "item": "tokens",
                        "price": {"model": "per_unit", "unit_price": "0.0000025"},
                    }
                ],
            }
        )
        made["subscriptions"].append({"id": f"S-{ours}", "contract": f"C-{ours}"})
        made["crosswalk"] += [
            link("subject", ours, f"S-{ours}", SOURCE),
            link("customer", theirs, ours),
        ]
    return made
