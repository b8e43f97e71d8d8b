"""A real PostgreSQL with approved transactions in it, and a poster on top."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from meterpost.core.clock import Clock, ManualClock
from meterpost.core.ids import LegalEntityId, PostingKey, PostingKeyParts, TargetId, TransactionId
from meterpost.core.period import Period
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.posting.context import Context
from meterpost.posting.decisions import PostingDecisions
from meterpost.posting.model import Document, DocumentLine
from meterpost.posting.service import Poster
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.posting import PostgresPostingStores
from meterpost.storage.tables.masterdata import LEGAL_ENTITY, REVISION
from meterpost.storage.tables.staging import APPROVAL, STAGED_TRANSACTION, TRANSACTION_LINE
from meterpost.storage.tables.workflows import CLOSE, CONFIG_SNAPSHOT
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector
from meterpost.testing.postgres import embedded_server, fresh_database

ERP = TargetId("erp")
START = datetime(2026, 11, 1, 6, tzinfo=UTC)
MONTH = Period.month("2026-10")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("postgres")) as dsn:
        yield dsn


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    with fresh_database(server) as dsn:
        database = Database(dsn)
        database.migrate()
        yield database
        database.dispose()


def document(amount: str, **changes: Any) -> Document:
    """One line of 1 × amount, or of quantity × price where given."""
    quantity = Decimal(changes.pop("quantity", "1"))
    line = DocumentLine(
        ordinal=1,
        reference=changes.pop("line", "L1"),
        item="TOKENS",
        description="Tokens, October 2026",
        quantity=quantity,
        unit_price=Decimal(changes.pop("unit_price", amount)),
        amount=Decimal(amount),
        account="4000",
        tax_code="VAT20",
        service_from=date(2026, 10, 1),
        service_to=date(2026, 10, 31),
    )
    made = Document(
        connection=ERP,
        kind="billing.usage",
        customer="C-100",
        currency="EUR",
        description="Usage October 2026",
        lines=(line,),
        net=Decimal(amount),
        date_from=date(2026, 10, 31),
        date_to=date(2026, 11, 30),
        payment_term=None,
        mapping_digest="m",
        config_digest="c",
    )
    return replace(made, **changes)


@dataclass(slots=True)
class Books:
    """The staged side of one database: puts transactions in, tells what became of them."""

    database: Database
    close: int
    numbers: Iterator[int]

    @classmethod
    def open(cls, database: Database) -> Books:
        with database.begin() as connection:
            connection.execute(
                insert(CONFIG_SNAPSHOT).values(
                    digest="c", content={}, recorded_at=START, actor="test"
                )
            )
            close = connection.execute(
                insert(CLOSE)
                .values(
                    workflow="usage-billing",
                    purpose="bill",
                    legal_entity="AT",
                    accounting_period="2026-10",
                    n=1,
                    basis="first",
                    cutoff={},
                    masterdata_rev=1,
                    config_digest="c",
                    state="staged",
                    requested_by="test",
                    requested_at=START,
                    correlation_id="corr",
                )
                .returning(CLOSE.c.id)
            ).scalar_one()
        return cls(database, close, itertools.count(1))

    def zone(self, entity: LegalEntityId, zone: str) -> None:
        with self.database.begin() as connection:
            revision = connection.execute(
                insert(REVISION)
                .values(recorded_at=START, actor="test", source="test", report={})
                .returning(REVISION.c.rev)
            ).scalar_one()
            connection.execute(
                insert(LEGAL_ENTITY).values(
                    id=entity,
                    name=entity,
                    currency="EUR",
                    zone=zone,
                    valid_from=datetime(2020, 1, 1, tzinfo=UTC),
                    rev_from=revision,
                )
            )

    def stage(
        self,
        amount: str = "10.00",
        *,
        business_key: str | None = None,
        revision: int = 1,
        held: str = "0",
        approved: bool = True,
        **changes: Any,
    ) -> TransactionId:
        number = next(self.numbers)
        business_key = business_key or f"K-{number}"
        rendered = document(amount, **changes)
        key = PostingKeyParts(
            "i", "test", ERP, "bill", business_key, MONTH.start, MONTH.end, revision
        ).key()
        with self.database.begin() as connection:
            transaction = connection.execute(
                insert(STAGED_TRANSACTION)
                .values(
                    posting_key=key,
                    purpose="bill",
                    kind="billing.usage",
                    workflow="usage-billing",
                    target=ERP,
                    legal_entity="AT",
                    accounting_period="2026-10",
                    business_key=business_key,
                    customer="acme",
                    period_start=MONTH.start,
                    period_end=MONTH.end,
                    revision=revision,
                    close_id=self.close,
                    state="approved",
                    currency="EUR",
                    amount=rendered.net + Decimal(held),
                    due=rendered.net,
                    document=rendered.to_plain(),
                    document_hash=rendered.hash,
                    created_by="test",
                    created_at=START,
                    updated_at=START,
                    correlation_id=f"corr-{number}",
                )
                .returning(STAGED_TRANSACTION.c.id)
            ).scalar_one()
            line = rendered.lines[0]
            connection.execute(
                insert(TRANSACTION_LINE).values(
                    transaction_id=transaction,
                    ordinal=1,
                    line=line.reference,
                    item=line.item,
                    description=line.description,
                    unit="token",
                    quantity=line.quantity,
                    included=0,
                    charged=line.quantity,
                    price="p",
                    amount=line.amount + Decimal(held),
                    held=Decimal(held),
                    due=line.amount,
                    working={},
                    service_from=MONTH.start,
                    service_to=MONTH.end,
                )
            )
            if approved:
                connection.execute(
                    insert(APPROVAL).values(
                        transaction_id=transaction,
                        document_hash=rendered.hash,
                        decision="approved",
                        person="ann",
                        cumulated=rendered.net,
                        reason="fine",
                        decided_at=START,
                    )
                )
        return TransactionId(transaction)

    def row(self, transaction: TransactionId) -> Any:
        with self.database.begin() as connection:
            return connection.execute(
                select(STAGED_TRANSACTION).where(STAGED_TRANSACTION.c.id == transaction)
            ).one()

    def state(self, transaction: TransactionId) -> str:
        return str(self.row(transaction).state)

    def states(self) -> set[str]:
        return set(self.rows("SELECT DISTINCT state FROM meterpost.staged_transaction", one=True))

    def key(self, transaction: TransactionId) -> PostingKey:
        return PostingKey(self.row(transaction).posting_key)

    def rows(self, sql: str, *, one: bool = False, **values: Any) -> list[Any]:
        with self.database.begin() as connection:
            found = connection.execute(text(sql), values).all()
        return [row[0] for row in found] if one else list(found)

    def exceptions(self, state: str = "open") -> list[str]:
        return sorted(
            self.rows(
                "SELECT reason FROM meterpost.exception WHERE state = :state", one=True, state=state
            )
        )

    def path(self, transaction: TransactionId) -> list[str]:
        """The states the transaction went through since it was approved."""
        return self.rows(
            "SELECT to_state FROM meterpost.transition WHERE transaction_id = :id ORDER BY id",
            one=True,
            id=transaction,
        )

    def expected(self) -> dict[str, Decimal]:
        """What the ERP should have been told, for its oracle."""
        return {
            row.posting_key: row.due
            for row in self.rows("SELECT posting_key, due FROM meterpost.staged_transaction")
        }


@pytest.fixture
def books(database: Database) -> Books:
    return Books.open(database)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def fake(clock: ManualClock) -> FakeErp:
    return FakeErp(clock)


@dataclass(slots=True)
class Posting:
    """One poster and the ways to push it."""

    poster: Poster
    context: Context
    decisions: PostingDecisions


OpenPosting = Callable[..., Posting]


@pytest.fixture
def open_posting(database: Database, clock: ManualClock, fake: FakeErp) -> Iterator[OpenPosting]:
    """Posters by name; on the fake ERP with the manual clock unless told otherwise."""
    opened: list[Posting] = []

    def posting(
        name: str = "p1",
        *,
        connector: ErpConnector | None = None,
        clock_: Clock | None = None,
        **settings: Any,
    ) -> Posting:
        config = ConnectionConfig(
            ERP, "fake", "test", "", **{"timeout_s": 10.0, "lease_s": 5.0, **settings}
        )
        chosen = connector or FakeErpConnector(fake, request_limit_s=60, margin_s=5)
        stores = PostgresPostingStores(database)
        poster = Poster(config, chosen, stores, clock_ or clock, poster=name)
        context = Context(config, chosen, stores, clock_ or clock, name)
        opened.append(Posting(poster, context, PostingDecisions(context)))
        return opened[-1]

    yield posting
    for each in opened:
        each.poster.close()


@pytest.fixture
def posting(open_posting: OpenPosting) -> Posting:
    return open_posting()


@pytest.fixture
def script() -> Path:
    """The program of a poster in a process of its own."""
    return Path(__file__).parent / "poster_process.py"
