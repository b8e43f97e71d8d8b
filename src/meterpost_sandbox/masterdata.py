"""Customers, items, accounts, taxes and periods: what an invoice may name."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from meterpost_sandbox.answers import Refused, invalid, not_found
from meterpost_sandbox.decimals import RATE_DECIMALS, plain_text
from meterpost_sandbox.fields import Fields

KINDS = ("customers", "items", "accounts", "taxes", "periods")
RECORDS_MAX = 10_000
_CODE_MAX = 80
_NAME_MAX = 200
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)
_KNOWN = {
    "customers": frozenset({"code", "name", "currency", "active"}),
    "items": frozenset({"code", "name", "unit", "account", "tax_code", "active"}),
    "accounts": frozenset({"code", "name", "active"}),
    "taxes": frozenset({"code", "name", "rate", "active"}),
    "periods": frozenset({"code", "state"}),
}


def record(kind: str, value: object, path: str = "") -> dict[str, Any]:
    """The record with its defaults filled in, as it is stored and answered.

    Raises: Refused (422) naming the field.
    """
    fields = Fields(value, _KNOWN[kind], path)
    code = fields.text("code", _CODE_MAX)
    if "," in code:
        raise invalid("a code has no comma", f"{path}code")
    if kind == "periods":
        if not _MONTH.fullmatch(code):
            raise invalid("expected a month such as 2026-10", f"{path}code")
        state = fields.text("state", 10, "open")
        if state not in ("open", "closed"):
            raise invalid("expected open or closed", f"{path}state")
        return {"code": code, "state": state}
    result: dict[str, Any] = {"code": code, "name": fields.text("name", _NAME_MAX, code)}
    if kind == "customers":
        result["currency"] = fields.currency("currency") if fields.has("currency") else None
    elif kind == "items":
        result["unit"] = fields.text("unit", 40, "unit")
        result["account"] = fields.optional_text("account", _CODE_MAX)
        result["tax_code"] = fields.optional_text("tax_code", _CODE_MAX)
    elif kind == "taxes":
        rate = fields.decimal("rate", RATE_DECIMALS)
        if not -1 <= rate <= 1:
            raise invalid('expected a share of one, such as "0.20"', f"{path}rate")
        result["rate"] = plain_text(rate)
    result["active"] = fields.flag("active", True)
    return result


def create(connection: sqlite3.Connection, kind: str, value: object) -> dict[str, Any]:
    """The stored new record.

    Raises: Refused (422, or 409 for a code in use).
    """
    new = record(kind, value)
    if find(connection, kind, new["code"]) is not None:
        raise Refused(409, "duplicate_code", f"{kind}: {new['code']} exists already", "code")
    connection.execute("INSERT INTO master VALUES (?, ?, ?)", (kind, new["code"], json.dumps(new)))
    return new


def replace(connection: sqlite3.Connection, kind: str, values: object) -> dict[str, int]:
    """How many of the records were created, updated and unchanged.

    Raises: Refused (422) for the first bad record; the caller's transaction then keeps none.
    """
    body = Fields(values, frozenset({"records"}))
    counts = {"created": 0, "updated": 0, "unchanged": 0}
    for index, value in enumerate(body.array("records", RECORDS_MAX)):
        new = record(kind, value, f"records[{index}].")
        old = find(connection, kind, new["code"])
        if old == new:
            counts["unchanged"] += 1
            continue
        counts["created" if old is None else "updated"] += 1
        connection.execute(
            "INSERT INTO master VALUES (?, ?, ?)"
            " ON CONFLICT (kind, code) DO UPDATE SET body = excluded.body",
            (kind, new["code"], json.dumps(new)),
        )
    return counts


def find(connection: sqlite3.Connection, kind: str, code: str) -> dict[str, Any] | None:
    """The record of that code, or None."""
    row = connection.execute(
        "SELECT body FROM master WHERE kind = ? AND code = ?", (kind, code)
    ).fetchone()
    return None if row is None else json.loads(row[0])


def get(connection: sqlite3.Connection, kind: str, code: str) -> dict[str, Any]:
    """The record of that code.

    Raises: Refused (404).
    """
    found = find(connection, kind, code)
    if found is None:
        raise not_found(f"{kind}/{code[:80]}")
    return found


def listing(
    connection: sqlite3.Connection, kind: str, codes: tuple[str, ...], after: str, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of records in order of code, and the code to go on after (None at the end)."""
    where, values = "kind = ? AND code > ?", [kind, after]
    if codes:
        where += f" AND code IN ({', '.join('?' * len(codes))})"
        values.extend(codes)
    rows = connection.execute(
        f"SELECT code, body FROM master WHERE {where} ORDER BY code LIMIT ?",  # noqa: S608
        (*values, limit + 1),
    ).fetchall()
    more = rows[limit - 1]["code"] if len(rows) > limit else None
    return [json.loads(row["body"]) for row in rows[:limit]], more


def seed(connection: sqlite3.Connection, data: object) -> Mapping[str, dict[str, int]]:
    """Counts per kind after writing `{kind: [record, ...]}`.

    Raises: Refused (422) naming what is wrong.
    """
    whole = Fields(data, frozenset(KINDS))
    return {
        kind: replace(connection, kind, {"records": whole.raw(kind)})
        for kind in KINDS
        if whole.has(kind)
    }
