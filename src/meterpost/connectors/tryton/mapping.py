"""Our documents as Tryton's invoices, and Tryton's invoices as ours. Pure.

Customers, items and accounts are named by their codes in Tryton, taxes by their name, payment
terms by their name, currencies by their ISO code. A document below zero is an invoice of type
``out`` like any other: Tryton numbers it as a credit note.

Source: Tryton 8.2, models ``account.invoice`` and ``account.invoice.line``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from meterpost.connectors.tryton import wire
from meterpost.core.canonical import plain_decimal
from meterpost.core.ids import PostingKey
from meterpost.core.money import EXACT, minor_units
from meterpost.posting.errors import Rejected
from meterpost.posting.model import (
    Document,
    DocumentLine,
    DocumentState,
    ErpDocument,
    ErpLine,
)

#: Everything `from_tryton_invoice` reads.
INVOICE_FIELDS = (
    *("reference", "state", "number", "invoice_date", "create_date", "write_date"),
    *("untaxed_amount", "tax_amount", "total_amount", "currency.code", "party.code"),
    *("lines", "lines.type", "lines.quantity", "lines.unit_price", "lines.amount"),
    *("lines.description", "lines.product.code", "lines.account.code", "lines.taxes.name"),
)
#: Everything `credits_of` reads, of lines whose origin is one of our lines.
CREDIT_FIELDS = ("amount", "origin", "origin.invoice", "invoice.state")

_KEY = re.compile(r"U[0-9A-HJKMNP-TV-Z]{15}")
_OUR_TEXT = re.compile(
    r"(?P<text>.*)\n\d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d \[[^\[\]]+\]", flags=re.DOTALL
)
_OUR_REFERENCE = re.compile(r"\[([^\[\]]+)\]\s*\Z")

_STATES = {
    "draft": DocumentState.DRAFT,
    "validated": DocumentState.DRAFT,
    "posted": DocumentState.NUMBERED,
    "paid": DocumentState.NUMBERED,
    "cancelled": DocumentState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class InvoiceHead:
    """Tryton's ids for a customer's invoices, as Tryton itself would fill them in."""

    company: int
    party: int
    address: int
    currency: int
    journal: int
    account: int
    payment_term: int | None


@dataclass(frozen=True, slots=True)
class LineDefaults:
    """Tryton's ids for a line about one product."""

    product: int
    unit: int
    account: int
    taxes: tuple[int, ...]


def to_tryton_invoice(
    document: Document,
    key: PostingKey,
    posting_day: date,
    head: InvoiceHead,
    lines: Sequence[LineDefaults],
) -> dict[str, object]:
    """The values of one draft invoice; ``lines`` are in the order of the document's.

    Raises: Rejected where Tryton's own arithmetic would not give a line's amount.
    """
    values: dict[str, object] = {
        "type": "out",
        "company": head.company,
        "party": head.party,
        "invoice_address": head.address,
        "currency": head.currency,
        "journal": head.journal,
        "account": head.account,
        "payment_term": head.payment_term,
        "reference": str(key),
        "description": document.description,
        "invoice_date": posting_day,
    }
    pairs = zip(document.lines, lines, strict=True)
    made = [_to_tryton_line(line, ids, head, document.currency) for line, ids in pairs]
    values["lines"] = [["create", made]]
    return values


def _to_tryton_line(
    line: DocumentLine, ids: LineDefaults, head: InvoiceHead, currency: str
) -> dict[str, object]:
    amount = tryton_amount(line.quantity, line.unit_price, currency)
    if amount != line.amount:
        raise Rejected(
            f"Tryton would make {amount} {currency} of line {line.reference} "
            f"({plain_decimal(line.quantity)} × {plain_decimal(line.unit_price)}), "
            f"not the approved {line.amount}.",
            hint="Send it as 1 × amount.",
        )
    try:
        quantity = wire.float_quantity(line.quantity)
    except ValueError as exc:
        raise Rejected(f"Line {line.reference}: {exc}.", hint="Send it as 1 × amount.") from exc
    return {
        "type": "line",
        "company": head.company,
        "currency": head.currency,
        "product": ids.product,
        "unit": ids.unit,
        "quantity": quantity,
        "unit_price": line.unit_price,
        "account": ids.account,
        "taxes": [["add", list(ids.taxes)]] if ids.taxes else [],
        "description": line_text(line),
    }


def tryton_amount(quantity: Decimal, unit_price: Decimal, currency: str) -> Decimal:
    """What Tryton makes of a quantity and a price: halves go to the even neighbour."""
    with localcontext(EXACT):
        step = Decimal(1).scaleb(-minor_units(currency))
        return (quantity * unit_price).quantize(step, rounding=ROUND_HALF_EVEN)


def line_text(line: DocumentLine) -> str:
    """The line's description in Tryton, with its service period and our reference."""
    return (
        f"{line.description}\n{line.service_from.isoformat()} to {line.service_to.isoformat()} "
        f"[{line.reference}]"
    )


def line_reference(text: str) -> str | None:
    """Our reference at the end of a line's description, or None where there is none."""
    found = _OUR_REFERENCE.search(text)
    return found[1] if found else None


def is_posting_key(reference: object) -> bool:
    """Whether an invoice's reference has the form of our posting keys."""
    return isinstance(reference, str) and _KEY.fullmatch(reference) is not None


@dataclass(frozen=True, slots=True)
class Credits:
    """What credit notes take back from one invoice, positive, also per invoice line's id."""

    net: Decimal
    lines: Mapping[int, Decimal]


NO_CREDITS = Credits(Decimal(0), {})


def credits_of(found: Sequence[Mapping[str, Any]]) -> dict[int, Credits]:
    """Credits by the id of the credited invoice, from lines whose origin is one of its lines.

    Draft credit notes count, as our own drafts do; cancelled ones do not.
    """
    lines: dict[int, dict[int, Decimal]] = {}
    for line in found:
        if line["invoice."]["state"] == "cancelled":
            continue
        invoice = int(line["origin."]["invoice"])
        origin = int(str(line["origin"]).rpartition(",")[2])
        per_line = lines.setdefault(invoice, {})
        per_line[origin] = per_line.get(origin, Decimal(0)) - Decimal(line["amount"])
    return {
        invoice: Credits(sum(per_line.values(), Decimal(0)), per_line)
        for invoice, per_line in lines.items()
    }


def from_tryton_invoice(found: Mapping[str, Any], credited: Credits = NO_CREDITS) -> ErpDocument:
    """The invoice as our document, from the fields of `INVOICE_FIELDS`."""
    own = [line for line in found["lines."] or () if line["type"] == "line"]
    per_reference: dict[str, Decimal] = {}
    for line in own:
        reference = line_reference(line["description"] or "")
        if reference is not None and line["id"] in credited.lines:
            so_far = per_reference.get(reference, Decimal(0))
            per_reference[reference] = so_far + credited.lines[line["id"]]
    state = _STATES[str(found["state"])]
    if found["state"] == "validated" and found["number"]:
        state = DocumentState.NUMBERED
    return ErpDocument(
        id=str(found["id"]),
        number=found["number"] or None,
        reference=found["reference"] or None,
        state=state,
        customer=str(found["party."]["code"]),
        currency=str(found["currency."]["code"]),
        date=found["invoice_date"],
        net=Decimal(found["untaxed_amount"]),
        tax=Decimal(found["tax_amount"]),
        gross=Decimal(found["total_amount"]),
        lines=tuple(_from_tryton_line(line) for line in own),
        credited_net=credited.net,
        credited_lines=per_reference,
        modified_at=found["write_date"] or found["create_date"],
    )


def _from_tryton_line(line: Mapping[str, Any]) -> ErpLine:
    text = str(line["description"] or "")
    ours = _OUR_TEXT.fullmatch(text)
    product, account = line.get("product.") or {}, line.get("account.") or {}
    return ErpLine(
        reference=line_reference(text),
        item=product.get("code"),
        description=ours["text"] if ours else text,
        quantity=Decimal(line["quantity"] or 0),
        unit_price=Decimal(line["unit_price"] or 0),
        net=Decimal(line["amount"] or 0),
        account=account.get("code"),
        tax_codes=tuple(tax["name"] for tax in line.get("taxes.") or ()),
    )
