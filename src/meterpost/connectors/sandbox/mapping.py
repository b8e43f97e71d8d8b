"""Our documents as the sandbox's invoices, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from meterpost.core.canonical import plain_decimal
from meterpost.core.ids import PostingKey
from meterpost.posting.model import Document, DocumentLine, DocumentState, ErpDocument, ErpLine

_STATES = {
    "draft": DocumentState.DRAFT,
    "posted": DocumentState.NUMBERED,
    "cancelled": DocumentState.CANCELLED,
}


def to_sandbox_invoice(document: Document, key: PostingKey, posting_day: date) -> dict[str, object]:
    """The body of `POST /v1/invoices`; numbers as plain strings."""
    return {
        "reference": key,
        "customer": document.customer,
        "date": posting_day.isoformat(),
        "currency": document.currency,
        "description": document.description,
        "lines": [_to_line(line) for line in document.lines],
    }


def from_sandbox_invoice(
    invoice: Mapping[str, Any], credit_notes: Iterable[Mapping[str, Any]] = ()
) -> ErpDocument:
    """The invoice in our words; credit notes tell which lines they took back from it."""
    return ErpDocument(
        id=str(invoice["id"]),
        number=invoice["number"],
        reference=invoice["reference"] or None,
        state=_STATES[invoice["state"]],
        customer=invoice["customer"],
        currency=invoice["currency"],
        date=date.fromisoformat(invoice["date"]),
        net=Decimal(invoice["net"]),
        tax=Decimal(invoice["tax"]),
        gross=Decimal(invoice["gross"]),
        lines=tuple(_from_line(line) for line in invoice["lines"]),
        credited_net=Decimal(invoice["credited_net"]),
        credited_lines=_credited(invoice, credit_notes),
        modified_at=datetime.fromisoformat(invoice["modified_at"]),
    )


def _to_line(line: DocumentLine) -> dict[str, object]:
    body: dict[str, object] = {
        "reference": line.reference,
        "description": line.description,
        "item": line.item,
        "quantity": plain_decimal(line.quantity),
        "unit_price": plain_decimal(line.unit_price),
        "service_from": line.service_from.isoformat(),
        "service_to": line.service_to.isoformat(),
    }
    if line.account is not None:
        body["account"] = line.account
    if line.tax_code is not None:
        body["tax_code"] = line.tax_code
    return body


def _from_line(line: Mapping[str, Any]) -> ErpLine:
    return ErpLine(
        reference=line["reference"] or None,
        item=line["item"],
        description=line["description"],
        quantity=Decimal(line["quantity"]),
        unit_price=Decimal(line["unit_price"]),
        net=Decimal(line["net"]),
        account=line["account"],
        tax_codes=(line["tax_code"],) if line["tax_code"] else (),
    )


def _credited(
    invoice: Mapping[str, Any], credit_notes: Iterable[Mapping[str, Any]]
) -> dict[str, Decimal]:
    ours = {line["reference"] for line in invoice["lines"] if line["reference"]}
    credited: dict[str, Decimal] = {}
    for note in credit_notes:
        for line in note["lines"]:
            if note["state"] != "cancelled" and line["reference"] in ours:
                reference = line["reference"]
                taken = credited.get(reference, Decimal(0))
                credited[reference] = taken - Decimal(line["net"])
    return credited
