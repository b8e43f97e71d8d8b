"""What was lost or doubled, by the sender's own books and by the ERP's own ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from meterpost.config.workspace import Workspace
from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.testing.kills.books import Books
from meterpost.testing.kills.workspace import contract_of
from meterpost.testing.sandbox_erp import SandboxServer

_SHOWN_MAX = 10
_BALANCE_SHOWN_MAX = 4_000

#: Per event id how often each content (its tokens) is in the event store.
Stored = Mapping[str, Mapping[Decimal | None, int]]

_EVENTS = """
    SELECT e.id, json_extract_string(e.data, '$.tokens') AS tokens
    FROM events e JOIN series s ON s.no = e.series
"""
_POSTED = """
    SELECT business_key, posting_key, close_id FROM meterpost.staged_transaction
    WHERE state IN ('posted', 'reconciled') ORDER BY business_key, revision
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of what went wrong, and a sentence for the first of each.

    ``lost``: acknowledged events that the event store lacks, expected documents that the ERP
    lacks. ``duplicated``: events stored twice or under another content, documents created twice
    or by nobody's wish. ``amount_differences``: documents, and customers' totals, with another
    net than the books say. ``unexplained``: of the four ledgers.
    """

    events: int
    postings: int
    lost: int
    duplicated: int
    amount_differences: int
    unexplained: Decimal
    findings: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing twice, every amount right, everything explained."""
        return not (self.lost or self.duplicated or self.amount_differences or self.unexplained)


def judge(
    workspace: Workspace,
    server: EmbeddedPostgres,
    books: Books,
    version_of_close: Mapping[int, int],
    erp: SandboxServer,
    balance: Mapping[str, Any],
    folder: Path,
) -> Verdict:
    """The verdict, while nothing of meterpost runs; ``balance`` was asked of the engine before."""
    server.start()
    try:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            posted = connection.execute(_POSTED).fetchall()
    finally:
        server.stop()
    report = _oracle(erp.ledger, _expected(posted, books, version_of_close), folder)
    return compare(books, _stored_events(workspace), report, _totals(erp), balance)


def compare(
    books: Books,
    stored: Stored,
    report: Mapping[str, Any],
    totals: Mapping[str, Decimal],
    balance: Mapping[str, Any],
) -> Verdict:
    """The books beside the event store, the ERP's own judgement, what it holds per contract,
    and the ledgers.
    """
    lost = [id_ for id_ in books.tokens if id_ not in stored]
    altered = [id_ for id_, contents in stored.items() if contents != {books.tokens.get(id_): 1}]
    last = len(books.versions) - 1
    owed = {contract: books.amount(contract, last) for contract in books.contracts}
    differing = [each for each in owed if totals.get(each, Decimal(0)) != owed[each]]
    unexplained = Decimal(str(balance["unexplained"]))
    findings = [
        *(f"event {id_} is lost" for id_ in lost[:_SHOWN_MAX]),
        *(f"event {id_} is stored as {dict(stored[id_])}" for id_ in altered[:_SHOWN_MAX]),
        *(f"document {each} is lost" for each in report["lost"][:_SHOWN_MAX]),
        *(f"document {each} exists twice" for each in list(report["duplicated"])[:_SHOWN_MAX]),
        *(f"document {each} is nobody's" for each in report["unexpected"][:_SHOWN_MAX]),
        *(f"document {each}" for each in report["amount_differences"][:_SHOWN_MAX]),
        *(
            f"{each}: the ERP holds {totals.get(each)}, the books say {owed[each]}"
            for each in differing[:_SHOWN_MAX]
        ),
    ]
    if unexplained:
        findings.append(f"unexplained: {json.dumps(balance)[:_BALANCE_SHOWN_MAX]}")
    return Verdict(
        events=len(books.tokens),
        postings=int(report["documents"]),
        lost=len(lost) + len(report["lost"]),
        duplicated=len(altered) + len(report["duplicated"]) + len(report["unexpected"]),
        amount_differences=len(report["amount_differences"]) + len(differing),
        unexplained=unexplained,
        findings=tuple(findings),
    )


def _stored_events(workspace: Workspace) -> Stored:
    """All events, read from the file."""
    stored: dict[str, Counter[Decimal | None]] = {}
    with duckdb.connect(str(workspace.places.event_store), read_only=True) as store:
        for id_, tokens in store.execute(_EVENTS).fetchall():
            stored.setdefault(id_, Counter())[Decimal(tokens)] += 1
    return stored


def _expected(
    posted: list[tuple[Any, ...]], books: Books, version_of_close: Mapping[int, int]
) -> Mapping[str, Decimal]:
    """Each posted revision's net: what the books say at its close, less what was posted before."""
    expected: dict[str, Decimal] = {}
    before: dict[str, Decimal] = defaultdict(Decimal)
    for contract, key, close in posted:
        owed = books.amount(contract, version_of_close[close])
        expected[key] = owed - before[contract]
        before[contract] = owed
    return expected


def _oracle(ledger: Path, expected: Mapping[str, Decimal], folder: Path) -> dict[str, Any]:
    """The sandbox's own judgement, by its own program over its own ledger."""
    file = folder / "expected.json"
    file.write_text(json.dumps({key: str(net) for key, net in expected.items()}))
    command = ("meterpost_sandbox", "oracle", str(ledger), "--expected", str(file), "--json")
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the oracle failed: {done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _totals(erp: SandboxServer) -> Mapping[str, Decimal]:
    """What the ERP holds per contract, whatever meterpost thinks of it."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    cursor: str | None = None
    while True:
        parameters = {"limit": "200"} | ({} if cursor is None else {"cursor": cursor})
        page = erp.http.get("/v1/invoices", params=parameters).raise_for_status().json()
        for invoice in page["invoices"]:
            contract = contract_of(invoice["customer"])
            totals[contract] += Decimal(invoice["net"])
        cursor = page["next_cursor"]
        if cursor is None:
            return totals
