"""The application on a sandbox ERP in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meterpost.testing.postgres import embedded_server, fresh_database
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server
from meterpost.testing.whole import ErpConnection, ErpNames, Whole, whole


class SandboxClerk:
    """At the sandbox's own screens."""

    def __init__(self, server: SandboxServer) -> None:
        self._clerk = server.clerk

    def _edit(self, document_id: str, **changes: str) -> None:
        line = self._clerk("GET", f"/{document_id}").json()["lines"][0]
        self._clerk("PATCH", f"/{document_id}", {"lines": [{"id": line["id"], **changes}]})

    def halve(self, document_id: str) -> None:
        self._edit(document_id, quantity="11180000")

    def double(self, document_id: str) -> None:
        self._edit(document_id, quantity="44720000")

    def rewrite(self, document_id: str) -> None:
        self._edit(document_id, description="Consulting", reference="")

    def delete(self, document_id: str) -> None:
        self._clerk("DELETE", f"/{document_id}")

    def cancel(self, document_id: str) -> None:
        self._clerk("POST", f"/{document_id}/cancel")

    def post(self, document_id: str) -> str:
        return str(self._clerk("POST", f"/{document_id}/post").json()["number"])

    def credit(self, document_id: str) -> None:
        self._clerk("POST", f"/{document_id}/credit", {})

    def credit_half(self, document_id: str) -> None:
        self._clerk("POST", f"/{document_id}/credit", {"amount": "27.95"})


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@pytest.fixture
def erp(tmp_path: Path) -> Iterator[SandboxServer]:
    with sandbox_server(tmp_path / "erp") as server:
        today = datetime.now(UTC).date()
        months = {f"{today + timedelta(days=days):%Y-%m}" for days in (-1, 0, 1)}
        server.master("accounts", {"code": "4.1.1", "name": "Revenue"})
        server.master("taxes", {"code": "VAT19", "rate": "0.19"})
        server.master("customers", {"code": "C-1001", "name": "Alpha Bau AG"})
        server.master(
            "items",
            {"code": "LLM-TOK-IN", "unit": "token", "account": "4000", "tax_code": "VAT20"},
        )
        server.master("periods", *({"code": month} for month in sorted(months)))
        yield server


@pytest.fixture
def names() -> ErpNames:
    return ErpNames({"alpha": "C-1001"}, "LLM-TOK-IN", "VAT19", "4.1.1")


@pytest.fixture
def clerk(erp: SandboxServer) -> SandboxClerk:
    return SandboxClerk(erp)


@pytest.fixture
def bench(postgres: str, tmp_path: Path, erp: SandboxServer, names: ErpNames) -> Iterator[Whole]:
    connection = ErpConnection("sandbox", erp.url, {"token": erp.token})
    with fresh_database(postgres) as dsn, whole(dsn, tmp_path / "app", connection, names) as made:
        yield made
