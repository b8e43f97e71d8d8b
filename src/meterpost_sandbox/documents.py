"""Documents in the ledger: storing, changing, reading, searching."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meterpost_sandbox import decimals
from meterpost_sandbox.answers import Refused, not_found
from meterpost_sandbox.fields import moment_text
from meterpost_sandbox.ledger import insert, next_value, now_utc, update
from meterpost_sandbox.rules import Invoice, Line, invoice_row

_TEXT_COLUMNS = (
    "kind", "origin", "state", "number", "reference", "customer", "date", "currency",
    "description", "net", "tax", "gross",
)  # fmt: skip
_LINE_COLUMNS = (
    "position", "reference", "description", "item", "unit", "quantity", "unit_price", "net",
    "account", "tax_code", "service_from", "service_to",
)  # fmt: skip
_FILTERS = {
    "date_from": "date >= ?",
    "date_to": "date <= ?",
    "modified_since": "modified_at >= ?",
    "state": "state = ?",
    "customer": "customer = ?",
    "origin": "origin = ?",
    "kind": "kind = ?",
    "credit_of": "credit_of = ?",
}
FILTER_NAMES = frozenset(_FILTERS)


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; ``filters`` uses FILTER_NAMES, ``after`` is a modification sequence."""

    references: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    after: int = 0
    limit: int = 100


def store(
    connection: sqlite3.Connection,
    invoice: Invoice,
    origin: str,
    *,
    hidden_s: float = 0.0,
    credit_of: int | None = None,
    number: str | None = None,
) -> int:
    """The id of the new document: a draft, or posted at once where it has a number."""
    now = moment_text(now_utc())
    row = invoice_row(invoice)
    zero = decimals.amount_text(decimals.total((), decimals.currency_decimals(invoice.currency)))
    document = insert(
        connection,
        "documents",
        {
            **row,
            "origin": origin,
            "state": "draft" if number is None else "posted",
            "number": number,
            "created_reference": row["reference"],
            "created_net": row["net"],
            "credit_of": credit_of,
            "credited_net": zero,
            "credited_gross": zero,
            "posted_at": None if number is None else now,
            "created_at": now,
            "modified_at": now,
            "modified_sequence": next_value(connection, "modified_sequence"),
            "version": 1,
            "visible_at": time.time() + hidden_s if hidden_s else 0.0,
        },
    )
    connection.executemany(_INSERT_LINE, _line_rows(document, invoice.lines))
    return document


def rewrite(connection: sqlite3.Connection, document: int, invoice: Invoice) -> None:
    """Replace a document's content; lines that keep their id are changed in place."""
    kept = [line.id for line in invoice.lines if line.id is not None]
    connection.execute(
        f"DELETE FROM lines WHERE document = ? AND id NOT IN ({', '.join('?' * len(kept))})",  # noqa: S608 (only placeholders)
        (document, *kept),
    )
    for position, line in enumerate(invoice.lines, start=1):
        columns = _line_row(document, position, line)
        if line.id is None:
            insert(connection, "lines", columns)
        else:
            update(connection, "lines", line.id, columns)
    change(connection, document, invoice_row(invoice))


def change(connection: sqlite3.Connection, document: int, columns: Mapping[str, object]) -> None:
    """Set columns of a document; it counts as modified now."""
    update(
        connection,
        "documents",
        document,
        {
            **columns,
            "modified_at": moment_text(now_utc()),
            "modified_sequence": next_value(connection, "modified_sequence"),
        },
    )
    connection.execute("UPDATE documents SET version = version + 1 WHERE id = ?", (document,))


def row(connection: sqlite3.Connection, document: str, *, visible_only: bool) -> sqlite3.Row:
    """The stored document; deleted ones do not exist for anyone.

    Raises: Refused (404).
    """
    found = None
    if document.isascii() and document.isdigit() and len(document) <= 18:
        found = connection.execute(
            "SELECT * FROM documents WHERE id = ? AND state <> 'deleted' AND visible_at <= ?",
            (int(document), time.time() if visible_only else float("inf")),
        ).fetchone()
    if not isinstance(found, sqlite3.Row):
        raise not_found(f"document {document[:40]}")
    return found


def read(
    connection: sqlite3.Connection, document: str, *, visible_only: bool = True
) -> dict[str, Any]:
    """The document as clients see it.

    Raises: Refused (404).
    """
    return _as_json(connection, [row(connection, document, visible_only=visible_only)])[0]


def read_many(connection: sqlite3.Connection, documents: Sequence[int]) -> list[dict[str, Any]]:
    """Documents of these ids in their order; every one must exist."""
    rows = connection.execute(
        f"SELECT * FROM documents WHERE id IN ({', '.join('?' * len(documents))})",  # noqa: S608
        tuple(documents),
    ).fetchall()
    by_id = {int(each["id"]): each for each in rows}
    return _as_json(connection, [by_id[document] for document in documents])


def search(connection: sqlite3.Connection, wanted: Search) -> tuple[list[dict[str, Any]], int]:
    """A page of visible documents by last modification, and where to go on (0 at the end)."""
    where = ["state <> 'deleted'", "visible_at <= ?", "modified_sequence > ?"]
    values: list[object] = [time.time(), wanted.after]
    if wanted.references:
        where.append(f"reference IN ({', '.join('?' * len(wanted.references))})")
        values.extend(wanted.references)
    for name, value in wanted.filters:
        where.append(_FILTERS[name])
        values.append(value)
    rows = connection.execute(
        f"SELECT * FROM documents WHERE {' AND '.join(where)}"  # noqa: S608 (clauses are ours)
        " ORDER BY modified_sequence LIMIT ?",
        (*values, wanted.limit + 1),
    ).fetchall()
    more = int(rows[wanted.limit - 1]["modified_sequence"]) if len(rows) > wanted.limit else 0
    return _as_json(connection, rows[: wanted.limit]), more


def with_reference(connection: sqlite3.Connection, reference: str) -> int | None:
    """The id of a document that bears the reference and was not deleted, or None."""
    found = connection.execute(
        "SELECT id FROM documents WHERE reference = ? AND state <> 'deleted' LIMIT 1", (reference,)
    ).fetchone()
    return None if found is None else int(found[0])


def new_number(connection: sqlite3.Connection, kind: str, day: str) -> str:
    """The next number of the series of that kind and year, gapless."""
    series = f"{'INV' if kind == 'invoice' else 'CRN'}-{day[:4]}"
    return f"{series}-{next_value(connection, f'number {series}'):05d}"


def cursor_text(position: str | int) -> str:
    """A position as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def cursor_position(text: str, kind: type[str] | type[int]) -> Any:
    """The position inside a cursor.

    Raises: Refused (400) for what this server did not give out.
    """
    try:
        position = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError) as exc:
        raise Refused(400, "invalid_query", "this cursor is not one of ours", "cursor") from exc
    if type(position) is not kind or (type(position) is int and not 0 <= position < 2**63):
        raise Refused(400, "invalid_query", "this cursor is not one of ours", "cursor")
    return position


_INSERT_LINE = (
    f"INSERT INTO lines (document, {', '.join(_LINE_COLUMNS)})"  # noqa: S608 (literal names)
    f" VALUES ({', '.join('?' * (len(_LINE_COLUMNS) + 1))})"
)


def _line_rows(document: int, lines: Sequence[Line]) -> list[tuple[object, ...]]:
    return [tuple(_line_row(document, n, line).values()) for n, line in enumerate(lines, start=1)]


def _line_row(document: int, position: int, line: Line) -> dict[str, object]:
    return {
        "document": document,
        "position": position,
        "reference": line.reference,
        "description": line.description,
        "item": line.item,
        "unit": line.unit,
        "quantity": decimals.plain_text(line.quantity),
        "unit_price": decimals.plain_text(line.unit_price),
        "net": decimals.amount_text(line.net),
        "account": line.account,
        "tax_code": line.tax_code,
        "service_from": line.service_from,
        "service_to": line.service_to,
    }


def _as_json(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[dict[str, Any]]:
    lines: dict[int, list[dict[str, Any]]] = {int(each["id"]): [] for each in rows}
    found = connection.execute(
        f"SELECT * FROM lines WHERE document IN ({', '.join('?' * len(lines))})"  # noqa: S608
        " ORDER BY document, position",
        tuple(lines),
    )
    for line in found:
        shown = {"id": str(line["id"]), **{name: line[name] for name in _LINE_COLUMNS}}
        lines[int(line["document"])].append(shown)
    return [_shown(each, lines[int(each["id"])]) for each in rows]


def _shown(document: sqlite3.Row, lines: list[dict[str, Any]]) -> dict[str, Any]:
    credit_of = document["credit_of"]
    return {
        "id": str(document["id"]),
        **{name: document[name] for name in _TEXT_COLUMNS},
        "taxes": json.loads(document["taxes"]),
        "credit_of": None if credit_of is None else str(credit_of),
        "credited_net": document["credited_net"],
        "credited_gross": document["credited_gross"],
        "posted_at": document["posted_at"],
        "created_at": document["created_at"],
        "modified_at": document["modified_at"],
        "version": document["version"],
        "lines": lines,
    }
