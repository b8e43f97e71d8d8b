"""The books, the plan and the recorded lines of the kills, without any process."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterpost.testing.kills import __main__ as command
from meterpost.testing.kills import evidence
from meterpost.testing.kills.books import Books, Month, Usage, amount
from meterpost.testing.kills.plan import POINTS, STAGES, kills
from meterpost.testing.kills.run import Session
from meterpost.testing.kills.verdict import Verdict, compare

MONTH = Month.before(datetime(2026, 3, 14, tzinfo=UTC))


def test_the_books_rate_by_hand() -> None:
    """Included tokens are free, calls change their price after the tenth, lines round once."""
    assert amount(Usage()) == Decimal("3.00")
    assert amount(Usage(Decimal(100), 10)) == Decimal("4.10")
    assert amount(Usage(Decimal("1100.5"), 13)) == Decimal("13.71") + Decimal("1.24") + 3


def test_the_last_whole_month() -> None:
    """Of a day in March it is February, whatever its length."""
    assert (MONTH.name, MONTH.start.day, MONTH.end) == (
        "2026-02",
        1,
        datetime(2026, 3, 1, tzinfo=UTC),
    )


def test_only_what_counts_is_booked() -> None:
    """Repetitions, conflicting copies and unknown subjects are sent, and cost nobody anything."""
    books = Books(("C-1", "C-2"), MONTH, random.Random(1))
    first = books.batch(("C-1", "C-2"))
    books.acknowledged(first)
    second = books.batch(("C-1",))
    books.acknowledged(second)
    assert (first.events, second.events) == (4, 4)  # the second has a conflicting copy
    assert len(json.loads(second.body)) == 4
    assert {contract: usage.calls for contract, usage in books.usage.items()} == {
        "C-1": 2,
        "C-2": 1,
    }
    assert (len(books.tokens), books.unowned) == (5, 2)


def test_a_version_of_the_books_stays_as_it_was() -> None:
    """A close is judged by what had been sent when it was asked for."""
    books = Books(("C-1",), MONTH, random.Random(1))
    version = books.freeze()
    books.acknowledged(books.batch(("C-1",)))
    assert books.amount("C-1", version) == Decimal("3.00")
    assert books.amount("C-1", books.freeze()) > Decimal("3.00")


@pytest.mark.parametrize("total", [18, 30, 150])
def test_kills_are_spread_evenly(total: int) -> None:
    """Over the stages, over each stage's points, and the same for the same seed."""
    planned = kills(total, random.Random(3))
    assert planned == kills(total, random.Random(3))
    assert set(Counter(kill.stage for kill in planned).values()) == {total // 3}
    points = Counter(kill.point for kill in planned)
    assert len(points) == sum(len(POINTS[stage]) for stage in STAGES)
    assert max(points.values()) - min(points.values()) <= 1


_CLEAN: dict[str, Any] = {
    "documents": 1,
    "lost": [],
    "duplicated": {},
    "unexpected": [],
    "amount_differences": [],
}


def _booked() -> tuple[Books, dict[str, dict[Decimal | None, int]]]:
    """Books of one contract and an event store that agrees with them."""
    books = Books(("C-1",), MONTH, random.Random(1))
    books.acknowledged(books.batch(("C-1",)))
    books.freeze()
    return books, {id_: {tokens: 1} for id_, tokens in books.tokens.items()}


def _verdict(
    change: Callable[[dict[str, dict[Decimal | None, int]]], object] = lambda _stored: None,
    *,
    report: dict[str, Any] | None = None,
    wrong: str = "0",
    unexplained: str = "0",
) -> tuple[int, int, int, Decimal, int]:
    books, stored = _booked()
    change(stored)
    totals = {"C-1": books.amount("C-1", 0) + Decimal(wrong)}
    found = compare(
        books, stored, {**_CLEAN, **(report or {})}, totals, {"unexplained": unexplained}
    )
    return (
        found.lost,
        found.duplicated,
        found.amount_differences,
        found.unexplained,
        len(found.findings),
    )


def test_the_verdict_is_content_with_equal_books() -> None:
    """Nothing is found where event store, ERP and books agree."""
    assert _verdict() == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: _verdict(lambda stored: stored.pop("e1")), (1, 0, 0, 0, 1)),
        (lambda: _verdict(lambda stored: stored.update(e1={Decimal(1): 1})), (0, 1, 0, 0, 1)),
        (
            lambda: _verdict(lambda stored: stored.update(e1=dict.fromkeys(stored["e1"], 2))),
            (0, 1, 0, 0, 1),
        ),
        (lambda: _verdict(lambda stored: stored.update(e99={Decimal(1): 1})), (0, 1, 0, 0, 1)),
        (lambda: _verdict(report={"lost": ["U1"]}), (1, 0, 0, 0, 1)),
        (lambda: _verdict(report={"duplicated": {"U1": 2}}), (0, 1, 0, 0, 1)),
        (lambda: _verdict(report={"unexpected": ["U1"]}), (0, 1, 0, 0, 1)),
        (lambda: _verdict(report={"amount_differences": [{}]}), (0, 0, 1, 0, 1)),
        (lambda: _verdict(wrong="0.01"), (0, 0, 1, 0, 1)),
        (lambda: _verdict(unexplained="1"), (0, 0, 0, 1, 1)),
    ],
)
def test_the_verdict_sees_each_kind_of_difference(
    found: Callable[[], object], expected: object
) -> None:
    """Lost, altered, doubled or foreign events and documents, amounts, and open ledgers."""
    assert found() == expected


def _session(seed: int, total: int, lost: int = 0) -> Session:
    verdict = Verdict(10, 20, lost, 0, 0, Decimal(0), ("lost",) * lost)
    return Session(seed, kills(total, random.Random(seed)), verdict, 1.5)


def test_a_recorded_run_is_resumed_and_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the same code recorded under the same seed counts; other code's lines do not."""
    begun: list[tuple[int, int]] = []

    def session(_folder: Path, total: int, seed: int, _say: object) -> Session:
        begun.append((total, seed))
        return _session(seed, total)

    monkeypatch.setattr(command, "run_session", session)
    record = tmp_path / "kills.jsonl"
    code = evidence.code_digest()
    evidence.append(record, evidence.line(_session(1, 9), run_seed=7, code="other"))
    evidence.append(record, evidence.line(_session(2, 9), run_seed=8, code=code))
    command.run(20, 7, record, session_kills=12)
    assert begun == [(12, 7000), (8, 7001)]
    total = command.run(30, 7, record, session_kills=12)
    assert begun[2:] == [(10, 7002)]
    assert (total["kills"], total["postings"], sum(total["points"].values())) == (30, 60, 30)
    assert evidence.total(evidence.read(record, code=code))["kills"] == 39
    assert len(evidence.read(record)) == 5


def test_a_loss_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The last line has the sums, and the exit code is 1."""
    monkeypatch.setattr(
        command, "run_session", lambda _folder, total, seed, _say: _session(seed, total, lost=1)
    )
    assert command.main(["--kills", "3", "--record", str(tmp_path / "kills.jsonl")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "kills=3 postings=20 lost=1 duplicated=0 amount_differences=0 unexplained=0"
    )
