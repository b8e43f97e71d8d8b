"""A clerk at the sandbox ERP, a process of its own, as its connector lets us see it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterpost.connectors import sandbox
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server
from meterpost.workflows.close import Ask

pytestmark = pytest.mark.integration


@pytest.fixture
def erp(tmp_path: Path) -> Iterator[SandboxServer]:
    with sandbox_server(tmp_path / "erp") as server:
        server.master("taxes", {"code": "VAT19", "rate": "0.19"})
        server.master("customers", {"code": "E-1", "name": "Initech", "currency": "EUR"})
        for item in ("E-TOK", "E-CALL", "E-FEE"):
            server.master(
                "items", {"code": item, "unit": "u", "account": "4000", "tax_code": "VAT19"}
            )
        yield server


@pytest.fixture
def posted(bench: Any, erp: SandboxServer, usage: Any) -> Any:
    """Usage of one month as a draft in the sandbox, reconciled."""
    config = ConnectionConfig(TargetId("erp"), "sandbox", "sandbox", erp.url, request_limit_s=5)
    bench.app._connectors["erp"] = sandbox.open_erp(config, {"token": erp.token})
    bench.send(usage("1", 800), usage("2", 700))
    bench.bill()
    report = bench.reconcile()
    assert report.clean, report
    return bench


def document_of(bench: Any) -> str:
    [row] = bench.sql("SELECT document_id FROM meterpost.receipt ORDER BY id LIMIT 1")
    return str(row.document_id)


def state_of(bench: Any) -> tuple[str, str | None, Decimal]:
    [row] = bench.sql("SELECT state, number, held_net FROM meterpost.receipt ORDER BY id LIMIT 1")
    return row.state, row.number, row.held_net


def test_edit_number_and_credit(posted: Any, erp: SandboxServer) -> None:
    """An edited draft is edited; posted by the clerk it has a number; credited it holds less."""
    number = document_of(posted)
    [line] = [
        each
        for each in erp.http.get(f"/clerk/invoices/{number}").json()["lines"]
        if each["reference"] == "L-fee"
    ]
    erp.clerk("PATCH", f"/{number}", {"lines": [{"id": line["id"], "unit_price": "2"}]})
    posted.reconcile()
    assert state_of(posted) == ("edited", None, Decimal("14.20"))
    erp.clerk("PATCH", f"/{number}", {"lines": [{"id": line["id"], "unit_price": "3"}]})
    erp.clerk("POST", f"/{number}/post")
    posted.reconcile()
    state, invoice, held = state_of(posted)
    assert (state, held) == ("numbered", Decimal("15.20"))
    assert invoice is not None
    assert posted.tracer.trace(invoice).kind == "document"
    erp.clerk("POST", f"/{number}/credit", {"amount": "5.00"})
    posted.reconcile()
    assert state_of(posted) == ("credited", invoice, Decimal("10.20"))
    lines = posted.sql("SELECT sum(held) AS held FROM meterpost.receipt_line")
    assert lines[0].held == Decimal("10.20")
    assert posted.balance().unexplained == 0


def test_a_deleted_draft_is_restated_with_late_usage(
    posted: Any, erp: SandboxServer, usage: Any
) -> None:
    """A deleted draft is missing; answered `restate`, the next close bills everything again."""
    erp.clerk("DELETE", f"/{document_of(posted)}")
    posted.reconcile()
    assert state_of(posted) == ("missing", None, Decimal(0))
    [first] = posted.transactions()
    person = type("Ada", (), {"user": "ada", "roles": frozenset({"approver"})})()
    posted.app.review.answer_receipt(first.id, "restate", person, "deleted by mistake")
    posted.send(usage("late", 100))
    second = posted.bill(Ask.LATE)
    assert second.due == second.amount == Decimal("15.80")
    posted.reconcile()
    assert posted.balance().unexplained == 0


def test_a_copy_made_by_hand_is_found(posted: Any, erp: SandboxServer) -> None:
    """A second document with our reference is nobody's: it stands as unexplained."""
    original = erp.http.get(f"/clerk/invoices/{document_of(posted)}").json()
    names = ("reference", "customer", "date", "currency", "description")
    fields = ("reference", "description", "item", "quantity", "unit_price", "account", "tax_code")
    copy = {name: original[name] for name in names}
    copy["lines"] = [{name: line[name] for name in fields} for line in original["lines"]]
    erp.clerk("POST", "", copy)
    posted.reconcile()
    assert len(posted.exceptions("document_without_receipt")) == 1
    assert posted.balance().unexplained == 1
