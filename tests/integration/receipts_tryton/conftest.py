"""The application on a real Tryton server, which all tests share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

from meterpost.testing.postgres import embedded_server, fresh_database, with_database
from meterpost.testing.tryton import (
    Clerk,
    TrytonServer,
    create_database,
    ensure_environment,
    serve,
)
from meterpost.testing.whole import ErpConnection, ErpNames, Whole, whole

ERPS = Path(__file__).resolve().parents[3] / ".erps"


class TrytonClerk:
    """At Tryton's own screens."""

    def __init__(self, person: Clerk) -> None:
        self.person = person

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.person.close()

    def halve(self, document_id: str) -> None:
        self.person.edit_quantity(document_id, 0.5)

    def double(self, document_id: str) -> None:
        self.person.edit_quantity(document_id, 2)

    def rewrite(self, document_id: str) -> None:
        self.person.edit_description(document_id, "Consulting")

    def delete(self, document_id: str) -> None:
        self.person.delete(document_id)

    def cancel(self, document_id: str) -> None:
        self.person.cancel(document_id)

    def post(self, document_id: str) -> str:
        return self.person.post(document_id)

    def credit(self, document_id: str) -> None:
        self.person.post(self.person.credit(document_id))

    def credit_half(self, document_id: str) -> None:
        note = self.person.credit(document_id)
        self.person.edit_quantity(note, -0.5)
        self.person.post(note)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def erp(postgres: str) -> Iterator[TrytonServer]:
    install = ensure_environment(ERPS)
    database = create_database(install, postgres, f"tryton_{secrets.token_hex(4)}")
    with serve(install, database) as server:
        yield server


@pytest.fixture
def books(postgres: str, erp: TrytonServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Straight into Tryton's database: what takes more rights than the clerk's.

    Invoices of earlier tests lose their reference first, so that none of ours is left.
    """
    parts = psycopg.conninfo.conninfo_to_dict(postgres)
    user, password = str(parts["user"]), str(parts.get("password", ""))
    dsn = with_database(postgres, erp.database.name, user=user, password=password)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE account_invoice SET reference = NULL")
        yield connection
        # A test may have closed the month we are in.
        connection.execute(
            "UPDATE account_period SET state = 'open' "
            "WHERE CURRENT_DATE BETWEEN start_date AND end_date"
        )


@pytest.fixture
def names() -> ErpNames:
    return ErpNames({"alpha": "C-1001"}, "LLM-TOK-IN", "VAT 19%", "4.1.1", "30 days")


@pytest.fixture
def clerk(erp: TrytonServer) -> Iterator[TrytonClerk]:
    with TrytonClerk(Clerk(erp)) as person:
        yield person


@pytest.fixture
def connection(erp: TrytonServer, books: psycopg.Connection[tuple[object, ...]]) -> ErpConnection:
    return ErpConnection(
        "tryton",
        erp.url,
        {"password": erp.database.password("integration")},
        {
            "database": erp.database.name,
            "username": "integration",
            "company": int(erp.database.ids["company"]),
            "quantity_decimals": 6,
        },
    )


@pytest.fixture
def bench(
    postgres: str, tmp_path: Path, connection: ErpConnection, names: ErpNames
) -> Iterator[Whole]:
    with fresh_database(postgres) as dsn, whole(dsn, tmp_path / "app", connection, names) as made:
        yield made
