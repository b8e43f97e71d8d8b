"""What this ERP demands of an invoice, and the amounts it computes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from meterpost_sandbox import decimals, masterdata
from meterpost_sandbox.answers import Refused, invalid
from meterpost_sandbox.fields import Fields

LINES_MAX = 1_000
REFERENCE_MAX = 80
_TEXT_MAX = 2_000
_HEAD = frozenset({"reference", "customer", "date", "currency", "description", "lines"})
_LINE = frozenset(
    "reference description item quantity unit_price account tax_code service_from service_to"
    .split()
)  # fmt: skip

#: Looks a record up: (kind, code) → record or None.
Lookup = Callable[[str, str], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class Line:
    """One checked line with its rounded net; ``id`` None until stored."""

    reference: str
    description: str
    item: str
    unit: str
    quantity: Decimal
    unit_price: Decimal
    net: Decimal
    account: str
    tax_code: str
    service_from: str | None
    service_to: str | None
    id: int | None = None

    def as_json(self) -> dict[str, object]:
        """The fields a client may send, in the form it sends them."""
        return {
            "reference": self.reference,
            "description": self.description,
            "item": self.item,
            "quantity": decimals.plain_text(self.quantity),
            "unit_price": decimals.plain_text(self.unit_price),
            "account": self.account,
            "tax_code": self.tax_code,
            "service_from": self.service_from,
            "service_to": self.service_to,
        }


@dataclass(frozen=True, slots=True)
class TaxAmount:
    """Tax of one code over its lines."""

    tax_code: str
    rate: str
    base: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """A checked document with every amount computed."""

    reference: str
    customer: str
    date: str
    currency: str
    description: str
    lines: tuple[Line, ...]
    net: Decimal
    tax: Decimal
    gross: Decimal
    taxes: tuple[TaxAmount, ...]

    @property
    def kind(self) -> str:
        """A document below zero is a credit note."""
        return "credit_note" if self.net < 0 else "invoice"

    def taxes_json(self) -> list[dict[str, str]]:
        """The taxes as they are stored and answered."""
        return [
            {
                "tax_code": tax.tax_code,
                "rate": tax.rate,
                "base": decimals.amount_text(tax.base),
                "amount": decimals.amount_text(tax.amount),
            }
            for tax in self.taxes
        ]


class CachedLookup:
    """Looks records up in the ledger, each once; lives as long as one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._found: dict[tuple[str, str], dict[str, Any] | None] = {}

    def __call__(self, kind: str, code: str) -> dict[str, Any] | None:
        """The record of that code, or None."""
        key = kind, code
        if key not in self._found:
            self._found[key] = masterdata.find(self._connection, kind, code)
        return self._found[key]


def check_invoice(value: object, lookup: Lookup, line_ids: Sequence[int | None] = ()) -> Invoice:
    """The invoice, checked and computed; ``line_ids`` names lines that exist already.

    Raises: Refused (422) for the first thing wrong, naming the field.
    """
    head = Fields(value, _HEAD)
    reference = head.text("reference", REFERENCE_MAX)
    if "," in reference:
        raise invalid("a reference has no comma", "reference")
    customer_code, currency = head.text("customer", REFERENCE_MAX), head.currency("currency")
    day = head.day("date")
    description = head.text("description", _TEXT_MAX, "", shortest=0)
    customer = _active(lookup, "customers", "customer", customer_code, "customer")
    if customer["currency"] not in (None, currency):
        raise invalid(
            f"customer {customer_code} is billed in {customer['currency']}, not {currency}",
            "currency",
            "currency_mismatch",
        )
    require_open_period(lookup, day)
    values = head.array("lines", LINES_MAX)
    if not values:
        raise invalid("an invoice needs at least one line", "lines", "empty_lines")
    places = decimals.currency_decimals(currency)
    lines = tuple(
        _line(line, lookup, places, f"lines[{index}].") for index, line in enumerate(values)
    )
    if line_ids:
        lines = tuple(
            replace(line, id=line_id) for line, line_id in zip(lines, line_ids, strict=True)
        )
    taxes = _taxes(lines, lookup, places)
    net = decimals.total((line.net for line in lines), places)
    tax = decimals.total((each.amount for each in taxes), places)
    gross = decimals.total((net, tax), places)
    return Invoice(
        reference, customer_code, day, currency, description, lines, net, tax, gross, taxes
    )


def require_open_period(lookup: Lookup, day: str) -> None:
    """Nothing, where the month of the day is open.

    Raises: Refused (422 `unknown_period` or `closed_period`).
    """
    period = lookup("periods", day[:7])
    if period is None:
        raise invalid(f"there is no accounting period {day[:7]}", "date", "unknown_period")
    if period["state"] != "open":
        raise invalid(f"accounting period {day[:7]} is closed", "date", "closed_period")


def invoice_row(invoice: Invoice) -> dict[str, object]:
    """The document columns that follow from the invoice's content."""
    return {
        "kind": invoice.kind,
        "reference": invoice.reference,
        "customer": invoice.customer,
        "date": invoice.date,
        "currency": invoice.currency,
        "description": invoice.description,
        "net": decimals.amount_text(invoice.net),
        "tax": decimals.amount_text(invoice.tax),
        "gross": decimals.amount_text(invoice.gross),
        "taxes": json.dumps(invoice.taxes_json()),
    }


def _line(value: object, lookup: Lookup, places: int, path: str) -> Line:
    fields = Fields(value, _LINE, path)
    item_code = fields.text("item", REFERENCE_MAX)
    item = _active(lookup, "items", "item", item_code, f"{path}item")
    account = fields.optional_text("account", REFERENCE_MAX) or item["account"]
    if account is None:
        raise invalid(
            f"item {item_code} has no revenue account; name one",
            f"{path}account",
            "missing_account",
        )
    _active(lookup, "accounts", "account", account, f"{path}account")
    tax_code = fields.optional_text("tax_code", REFERENCE_MAX) or item["tax_code"]
    if tax_code is None:
        raise invalid(f"item {item_code} has no tax; name one", f"{path}tax_code", "missing_tax")
    _active(lookup, "taxes", "tax", tax_code, f"{path}tax_code")
    quantity = fields.decimal("quantity", decimals.QUANTITY_DECIMALS)
    price = fields.decimal("unit_price", decimals.PRICE_DECIMALS)
    service_from, service_to = _service_days(fields)
    return Line(
        reference=fields.text("reference", REFERENCE_MAX, "", shortest=0),
        description=fields.text("description", _TEXT_MAX, "", shortest=0),
        item=item_code,
        unit=item["unit"],
        quantity=quantity,
        unit_price=price,
        net=decimals.rounded_product(quantity, price, places),
        account=account,
        tax_code=tax_code,
        service_from=service_from,
        service_to=service_to,
    )


def _service_days(fields: Fields) -> tuple[str | None, str | None]:
    if not fields.has("service_from") and not fields.has("service_to"):
        return None, None
    first, last = fields.day("service_from"), fields.day("service_to")
    if last < first:
        raise invalid("the service ends before it starts", f"{fields.path}service_to")
    return first, last


def _taxes(lines: Sequence[Line], lookup: Lookup, places: int) -> tuple[TaxAmount, ...]:
    bases: dict[str, list[Decimal]] = {}
    for line in lines:
        bases.setdefault(line.tax_code, []).append(line.net)
    taxes = []
    for code, nets in sorted(bases.items()):
        base = decimals.total(nets, places)
        tax = lookup("taxes", code)
        assert tax is not None, "every line's tax was looked up before"
        amount = decimals.rounded_product(base, Decimal(tax["rate"]), places)
        taxes.append(TaxAmount(code, tax["rate"], base, amount))
    return tuple(taxes)


def _active(lookup: Lookup, kind: str, word: str, code: str, field: str) -> dict[str, Any]:
    found = lookup(kind, code)
    if found is None:
        raise Refused(422, f"unknown_{word}", f"there is no {word} {code[:80]}", field)
    if not found["active"]:
        raise Refused(422, f"inactive_{word}", f"{word} {code[:80]} is inactive", field)
    return found
