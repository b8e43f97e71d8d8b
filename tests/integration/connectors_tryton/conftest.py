from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from meterpost.connectors.tryton import TrytonErp, connect
from meterpost.connectors.tryton.erp import KINDS
from meterpost.core.canonical import crockford
from meterpost.core.ids import PostingKey, TargetId
from meterpost.posting.model import Document, DocumentLine
from meterpost.testing.postgres import embedded_server
from meterpost.testing.tryton import (
    Clerk,
    TrytonServer,
    create_database,
    ensure_environment,
    serve,
)

ERPS = Path(__file__).resolve().parents[3] / ".erps"


@pytest.fixture(scope="session")
def admin_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("tryton-pg")) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def server(admin_dsn: str) -> Iterator[TrytonServer]:
    install = ensure_environment(ERPS)
    database = create_database(install, admin_dsn, f"tryton_{secrets.token_hex(4)}")
    with serve(install, database) as running:
        yield running


@pytest.fixture
def erp(server: TrytonServer) -> Iterator[TrytonErp]:
    connector = connect(server.config(quantity_decimals=6))
    yield connector
    connector.close()


@pytest.fixture
def clerk(server: TrytonServer) -> Iterator[Clerk]:
    with Clerk(server) as person:
        yield person


@pytest.fixture
def key() -> PostingKey:
    return new_key()


def new_key() -> PostingKey:
    return PostingKey("U" + crockford(secrets.token_bytes(10), 15))


@pytest.fixture
def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def make() -> SimpleNamespace:
    return SimpleNamespace(key=new_key, line=line, document=document)


def line(
    item: str = "LLM-TOK-IN",
    quantity: str = "3",
    unit_price: str = "12.50",
    *,
    reference: str = "L-1",
    **more: object,
) -> DocumentLine:
    amount = (Decimal(quantity) * Decimal(unit_price)).quantize(Decimal("0.01"))
    values: dict[str, object] = {
        "ordinal": 1,
        "reference": reference,
        "item": item,
        "description": f"{item} as measured",
        "quantity": Decimal(quantity),
        "unit_price": Decimal(unit_price),
        "amount": amount,
        "account": None,
        "tax_code": None,
        "service_from": date(2023, 11, 1),
        "service_to": date(2023, 11, 30),
    }
    return DocumentLine(**(values | more))  # type: ignore[arg-type]


def document(*lines: DocumentLine, **more: object) -> Document:
    chosen = lines or (line(),)
    values: dict[str, object] = {
        "connection": TargetId("tryton"),
        "kind": KINDS[0],
        "customer": "C-1001",
        "currency": "EUR",
        "description": "Usage 2023-11",
        "lines": chosen,
        "net": sum((one.amount for one in chosen), Decimal(0)),
        "date_from": date(2015, 1, 1),
        "date_to": date(2099, 12, 31),
        "payment_term": None,
        "mapping_digest": "m",
        "config_digest": "c",
    }
    return Document(**(values | more))  # type: ignore[arg-type]
