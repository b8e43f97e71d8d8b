"""A staged transaction as a reviewer reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meterpost.cli import show


def present_transaction(shown: Mapping[str, Any]) -> None:
    """Head, lines with their working, then what happened."""
    currency = shown["currency"]
    show.say(
        f"Transaction {shown['id']} ({shown['posting_key']}), revision {shown['revision']}: "
        f"{shown['state']}"
    )
    document = shown["document"] or {}
    show.pairs(
        [
            ("customer", _both(shown["customer"], document.get("customer"))),
            ("contract", shown["contract"]),
            ("period", f"{shown['first_day']} to {shown['last_day']} ({shown['zone']})"),
            ("entity", f"{shown['legal_entity']} {shown['accounting_period']}"),
            ("amount", f"{show.amount(shown['amount'], currency)} {currency}"),
            ("due", f"{show.amount(shown['due'], currency)} {currency}"),
            ("target", shown["target"]),
            ("dated", _dated(document)),
            ("close", f"{shown['close']} by {shown['created_by']}"),
            ("document", shown["document_hash"] or "not written yet: see exceptions"),
        ]
    )
    for line in shown["lines"]:
        show.say()
        show.say(
            f"{line['ordinal']}. {line['description']}: {show.quantity(line['quantity'])} "
            f"{line['unit']}, {show.amount(line['amount'], currency)} {currency}"
            + (f", due {show.amount(line['due'], currency)}" if line["held"] != "0" else "")
        )
        for sentence in line["sentences"]:
            show.say(f"   {sentence}")
    _after(shown)


def _after(shown: Mapping[str, Any]) -> None:
    show.say()
    for sentence in shown["exceptions"]:
        show.say(f"Open exception: {sentence}")
    show.table(
        [
            show.moment("at"),
            show.text("state", "to_state"),
            show.text("by", "actor"),
            show.text("why", "reason"),
        ],
        shown["history"],
        "No history.",
    )
    for each in shown["approvals"]:
        by = f"rule: {each['rule']}" if each["rule"] else each["person"]
        same = "" if each["document_hash"] == shown["document_hash"] else " (an earlier document)"
        why = f": {each['reason']}" if each["reason"] else ""
        show.say(f"{each['decision']} by {by}, {show.when(each['at'])}{same}{why}")
    receipt = shown["receipt"]
    if receipt is not None:
        show.say(
            f"In {receipt['target']}: document {receipt['document_id']}, number "
            f"{receipt['number'] or 'none yet'}, {receipt['state']}, net {receipt['net']}, "
            f"compared: {receipt['comparison']}"
        )
        for difference in receipt["differences"]:
            show.say(f"  {difference}")


def _both(ours: str, theirs: object) -> str:
    return ours if theirs is None else f"{ours} (there: {theirs})"


def _dated(document: Mapping[str, Any]) -> str | None:
    if not document:
        return None
    return f"{document['date_from']} to {document['date_to']}"
