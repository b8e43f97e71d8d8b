"""What a person does to documents at the ERP's own screens."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import Any

from meterpost_sandbox import decimals, documents
from meterpost_sandbox.answers import Refused, invalid
from meterpost_sandbox.fields import Fields, moment_text
from meterpost_sandbox.ledger import now_utc
from meterpost_sandbox.rules import (
    LINES_MAX,
    CachedLookup,
    Invoice,
    check_invoice,
    require_open_period,
)

_HEAD_EDITS = ("reference", "customer", "date", "description")
_EDIT = frozenset({*_HEAD_EDITS, "lines", "add_lines", "remove_lines"})
_LINE_EDITS = (
    "reference", "description", "item", "quantity", "unit_price", "account", "tax_code",
    "service_from", "service_to",
)  # fmt: skip


def create(connection: sqlite3.Connection, body: object) -> dict[str, Any]:
    """A draft made by hand.

    Raises: Refused.
    """
    document = documents.store(
        connection, check_invoice(body, CachedLookup(connection)), origin="clerk"
    )
    return _read(connection, document)


def edit(connection: sqlite3.Connection, document: str, body: object) -> dict[str, Any]:
    """The draft with the changes of the body, amounts computed anew.

    Raises: Refused (404, 409 unless a draft, 422).
    """
    stored = _in_state(connection, document, "draft", "edited")
    fields = Fields(body, _EDIT)
    shown = _read(connection, int(stored["id"]))
    head = {name: shown[name] for name in (*_HEAD_EDITS, "currency")}
    head |= {name: fields.raw(name) for name in _HEAD_EDITS if fields.has(name)}
    lines = {
        line["id"]: {name: line[name] for name in _LINE_EDITS if line[name] is not None}
        for line in shown["lines"]
    }
    removed = fields.array("remove_lines", LINES_MAX) if fields.has("remove_lines") else ()
    for index, line_id in enumerate(removed):
        lines.pop(_known_line(line_id, lines, f"remove_lines[{index}]"))
    edits = fields.array("lines", LINES_MAX) if fields.has("lines") else ()
    for index, value in enumerate(edits):
        change = Fields(value, frozenset({"id", *_LINE_EDITS}), f"lines[{index}].")
        line_id = _known_line(change.raw("id"), lines, f"lines[{index}].id")
        lines[line_id] |= {name: change.raw(name) for name in _LINE_EDITS if change.has(name)}
    added = fields.array("add_lines", LINES_MAX) if fields.has("add_lines") else ()
    invoice = check_invoice(
        {**head, "lines": [*lines.values(), *added]},
        CachedLookup(connection),
        [*(int(line_id) for line_id in lines), *(None for _ in added)],
    )
    documents.rewrite(connection, int(stored["id"]), invoice)
    return _read(connection, int(stored["id"]))


def delete(connection: sqlite3.Connection, document: str) -> None:
    """Take a draft away; the ledger keeps it as deleted, clients no longer find it.

    Raises: Refused (404, 409 unless a draft).
    """
    stored = _in_state(connection, document, "draft", "deleted")
    documents.change(connection, int(stored["id"]), {"state": "deleted"})


def post(connection: sqlite3.Connection, document: str, body: object) -> dict[str, Any]:
    """The draft posted, with the next number of its series.

    Raises: Refused (404, 409 unless a draft, 422 where the period is not open).
    """
    stored = _in_state(connection, document, "draft", "posted")
    day = _day(body, stored["date"], frozenset({"date"}))
    require_open_period(CachedLookup(connection), day)
    documents.change(
        connection,
        int(stored["id"]),
        {
            "state": "posted",
            "date": day,
            "number": documents.new_number(connection, stored["kind"], day),
            "posted_at": moment_text(now_utc()),
        },
    )
    return _read(connection, int(stored["id"]))


def cancel(connection: sqlite3.Connection, document: str) -> dict[str, Any]:
    """The draft cancelled; it stays readable.

    Raises: Refused (404, 409 unless a draft).
    """
    stored = _in_state(connection, document, "draft", "cancelled")
    documents.change(connection, int(stored["id"]), {"state": "cancelled"})
    return _read(connection, int(stored["id"]))


def credit(connection: sqlite3.Connection, document: str, body: object) -> dict[str, Any]:
    """A posted credit note that takes back the rest, or a given net amount, of an invoice.

    Raises: Refused (404, 409 unless a posted invoice with that much left, 422).
    """
    stored = _in_state(connection, document, "posted", "credited")
    known = frozenset({"amount", "date"})
    day = _day(body, stored["date"], known)
    fields = Fields(body, known)
    places = decimals.currency_decimals(stored["currency"])
    net, credited = Decimal(stored["net"]), Decimal(stored["credited_net"])
    if net <= 0:
        raise Refused(409, "wrong_state", "only an invoice above zero can be credited")
    amount = fields.decimal("amount", places) if fields.has("amount") else net - credited
    if fields.has("amount") and amount <= 0:
        raise invalid("expected an amount above zero", "amount")
    if amount > net - credited or amount <= 0:
        raise Refused(
            409,
            "amount_exceeds_remainder",
            f"{stored['number']} has {net - credited} {stored['currency']} net left to credit",
            "amount",
        )
    note = _credit_note(connection, stored, amount, day, mirror=amount == net)
    number = documents.new_number(connection, "credit_note", day)
    new = documents.store(
        connection, note, origin="clerk", credit_of=int(stored["id"]), number=number
    )
    documents.change(
        connection,
        int(stored["id"]),
        {
            "credited_net": _sum_text((credited, -note.net), places),
            "credited_gross": _sum_text((Decimal(stored["credited_gross"]), -note.gross), places),
        },
    )
    return _read(connection, new)


def _credit_note(
    connection: sqlite3.Connection, stored: sqlite3.Row, amount: Decimal, day: str, *, mirror: bool
) -> Invoice:
    lines = [
        {name: line[name] for name in _LINE_EDITS if line[name] is not None}
        for line in _read(connection, int(stored["id"]))["lines"]
    ]
    if mirror:
        for line in lines:
            line["quantity"] = decimals.plain_text(-Decimal(line["quantity"]))
    else:
        first = {name: lines[0][name] for name in ("item", "account", "tax_code")}
        lines = [{**first, "quantity": "-1", "unit_price": decimals.plain_text(amount)}]
    body = {
        "reference": f"Credit of {stored['number']}",
        "customer": stored["customer"],
        "date": day,
        "currency": stored["currency"],
        "lines": lines,
    }
    return check_invoice(body, CachedLookup(connection))


def _in_state(connection: sqlite3.Connection, document: str, state: str, done: str) -> sqlite3.Row:
    stored = documents.row(connection, document, visible_only=False)
    if stored["state"] != state:
        raise Refused(
            409,
            "wrong_state",
            f"document {stored['id']} is {stored['state']}; only a {state} one can be {done}",
            "state",
        )
    return stored


def _known_line(line_id: object, lines: dict[str, dict[str, Any]], field: str) -> str:
    if not isinstance(line_id, str) or line_id not in lines:
        raise invalid("the document has no such line", field)
    return line_id


def _day(body: object, default: str, known: frozenset[str]) -> str:
    fields = Fields(body, known)
    return fields.day("date") if fields.has("date") else default


def _sum_text(amounts: tuple[Decimal, ...], places: int) -> str:
    return decimals.amount_text(decimals.total(amounts, places))


def _read(connection: sqlite3.Connection, document: int) -> dict[str, Any]:
    return documents.read(connection, str(document), visible_only=False)
