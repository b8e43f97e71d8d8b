"""Sending with a real database, an ERP in memory and a clock that stands still."""

from __future__ import annotations

import threading
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import insert, update

from meterpost.core.clock import ManualClock
from meterpost.core.errors import Conflict
from meterpost.core.ids import LegalEntityId
from meterpost.posting.throttle import RateLimit
from meterpost.storage.tables.posting import RECEIPT_LINE
from meterpost.storage.tables.staging import APPROVAL, STAGED_TRANSACTION
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector, Fault

pytestmark = pytest.mark.integration


def test_an_approved_transaction_becomes_one_document(
    books: Any, fake: FakeErp, posting: Any
) -> None:
    """One round posts it, writes call, permit-free, receipt, lines, transitions and audit."""
    one = books.stage("55.90", quantity="22361870", unit_price="0.0000025")
    report = posting.poster.run_once()
    assert report.posted == (one,)
    assert [d.reference for d in fake.committed()] == [books.key(one)]
    assert books.path(one) == ["sending", "posted"]
    [receipt] = books.rows("SELECT * FROM meterpost.receipt")
    assert (receipt.net, receipt.held_net, receipt.comparison) == (
        Decimal("55.90"),
        Decimal("55.90"),
        "equal",
    )
    [line] = books.rows("SELECT * FROM meterpost.receipt_line")
    assert (line.line, line.posted, line.held) == ("L1", Decimal("55.90"), Decimal("55.90"))
    [call] = books.rows("SELECT * FROM meterpost.call")
    assert (call.purpose, call.outcome, call.poster) == ("post", "posted", "p1")
    assert call.send_before - call.reserved_at == timedelta(seconds=15)
    [item] = books.rows("SELECT * FROM meterpost.call_item")
    assert (item.document_hash, item.outcome) == (books.row(one).document_hash, "posted")
    actions = books.rows("SELECT action FROM meterpost.audit_entry ORDER BY sequence", one=True)
    assert actions == ["transaction.sending", "transaction.posted"]
    assert posting.poster.run_once().idle
    assert books.exceptions() == []


def test_the_posting_day_is_today_in_the_entitys_zone_within_the_range(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """At 23:30 UTC it is tomorrow in Vienna; days outside the range move to its ends."""
    books.zone(LegalEntityId("AT"), "Europe/Vienna")
    clock.advance(timedelta(hours=17, minutes=30))
    books.stage()
    books.stage(date_to=date(2026, 10, 31))
    books.stage(date_from=date(2026, 11, 20))
    posting.poster.run_once()
    assert [d.date for d in fake.committed()] == [
        date(2026, 11, 2),
        date(2026, 10, 31),
        date(2026, 11, 20),
    ]


def test_one_rejected_of_many_stops_no_other(books: Any, posting: Any) -> None:
    """The refused one says why in the vendor's words; retried after a fix it is posted."""
    good = [books.stage() for _ in range(3)]
    bad = books.stage(customer="nobody")
    later = books.stage()
    report = posting.poster.run_once()
    assert report.posted == (*good, later)
    assert report.rejected == (bad,)
    [exception] = books.rows("SELECT * FROM meterpost.exception")
    assert exception.reason == "rejected_by_erp"
    assert exception.detail["vendor_text"] == "unknown_customer"
    posting.context.connector._erp.customers.add("nobody")
    posting.decisions.retry_rejected(bad, actor="bob", reason="customer made")
    assert posting.poster.run_once().posted == (bad,)
    assert books.exceptions() == []
    assert books.row(bad).attempts == 1


def test_only_the_approved_document_is_sent(books: Any, fake: FakeErp, posting: Any) -> None:
    """Without an approval of this very hash, or with another document, it is proposed again."""
    unapproved = books.stage(approved=False)
    altered = books.stage()
    with books.database.begin() as connection:
        table = STAGED_TRANSACTION
        plain = {**books.row(altered).document, "customer": "C-200"}
        connection.execute(update(table).where(table.c.id == altered).values(document=plain))
        connection.execute(
            insert(APPROVAL).values(
                transaction_id=unapproved,
                document_hash="another",
                decision="approved",
                person="ann",
                cumulated=0,
                reason="",
                decided_at=posting.context.clock.now(),
            )
        )
    assert posting.poster.run_once().returned == (unapproved, altered)
    assert fake.committed() == []
    assert books.state(unapproved) == "proposed"


def test_a_due_that_changed_before_sending_is_proposed_again(
    books: Any, fake: FakeErp, posting: Any
) -> None:
    """A delta computed on 10.00 is not sent once only 4.00 of them hold."""
    books.stage("10.00", business_key="K")
    posting.poster.run_once()
    fits = books.stage("2.00", business_key="K", revision=2, held="10.00")
    posting.poster.run_once()
    assert books.state(fits) == "posted"
    with books.database.begin() as connection:
        connection.execute(update(RECEIPT_LINE).values(held=2))
    changed = books.stage("1.00", business_key="K", revision=3, held="12.00")
    assert posting.poster.run_once().returned == (changed,)
    assert books.state(changed) == "proposed"
    [reason] = books.rows(
        "SELECT reason FROM meterpost.transition WHERE transaction_id = :id", one=True, id=changed
    )
    assert "L1 holds 4 instead of 12" in reason
    assert len(fake.committed()) == 2


def test_a_transient_failure_waits_longer_each_time(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """Deferred with growing waits; then posted; the ERP was never asked in a hurry."""
    one = books.stage()
    waits = []
    for _ in range(3):
        fake.faults.append(Fault.REFUSE_CONNECTION)
        assert posting.poster.run_once().deferred == (one,)
        waits.append((books.row(one).not_before - clock.now()).total_seconds())
        assert posting.poster.run_once().idle
        clock.advance(timedelta(seconds=waits[-1]))
    assert waits == [2, 4, 8]
    assert posting.poster.run_once().posted == (one,)
    assert books.path(one)[:3] == ["sending", "deferred", "approved"]


def test_attempts_are_limited(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any
) -> None:
    """After the last attempt the transaction is rejected and a person asked, once."""
    posting = open_posting(attempts_max=3)
    one = books.stage()
    fake.faults.extend([Fault.REFUSE_CONNECTION] * 5)
    for _ in range(6):
        posting.poster.run_once()
        clock.advance(timedelta(hours=1))
    assert books.state(one) == "rejected"
    assert books.row(one).attempts == 3
    assert books.exceptions() == ["attempts_exhausted"]


def test_an_outage_does_not_use_up_everybodys_attempts(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """While the ERP is down one transaction in turn tries; afterwards all are posted."""
    many = [books.stage() for _ in range(12)]
    fake.down = True
    end = clock.now() + timedelta(minutes=10)
    while clock.now() < end:
        report = posting.poster.run_once()
        assert report.next_at is not None
        clock.advance(max(report.next_at - clock.now(), timedelta(seconds=1)))
    assert max(books.row(one).attempts for one in many) <= 5
    fake.down = False
    for _ in range(40):
        posting.poster.run_once()
        clock.advance(timedelta(seconds=60))
    assert books.states() == {"posted"}
    assert len(fake.committed()) == 12


def test_throttling_pauses_the_connection_as_long_as_asked(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """Nothing else is sent before the ERP's own waiting time is over."""
    books.stage()
    books.stage()
    fake.after_s = 30
    fake.faults.append(Fault.THROTTLE)
    report = posting.poster.run_once()
    assert report.paused is not None
    assert report.next_at == clock.now() + timedelta(seconds=30)
    clock.advance(timedelta(seconds=29))
    assert posting.poster.run_once().idle
    assert fake.requests == 1
    clock.advance(timedelta(seconds=1))
    assert len(posting.poster.run_once().posted) == 2


def test_a_closed_period_waits_for_a_person(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """Deferred with an exception, which posting closes once the period is open again."""
    fake.closed_months.add("2026-11")
    one = books.stage()
    posting.poster.run_once()
    assert (books.state(one), books.exceptions()) == ("deferred", ["closed_period"])
    fake.closed_months.clear()
    clock.advance(timedelta(minutes=5))
    assert posting.poster.run_once().posted == (one,)
    assert (books.exceptions(), books.exceptions("closed")) == ([], ["closed_period"])


def test_wrong_credentials_pause_the_connection_and_cost_no_attempt(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any
) -> None:
    """One exception for many transactions; nothing is tried until the check succeeds."""
    connector = FakeErpConnector(fake, token="wrong")
    posting = open_posting(connector=connector)
    many = [books.stage() for _ in range(3)]
    report = posting.poster.run_once()
    assert "token" in report.paused
    assert books.exceptions() == ["connection_credentials"]
    assert books.states() == {"approved"}
    assert {books.row(one).attempts for one in many} == {0}
    fresh = open_posting("p2", connector=connector)
    assert fresh.poster.run_once().paused is not None
    asked = fake.requests
    assert fresh.poster.run_once().paused is not None
    assert fake.requests == asked
    connector.token = "right"
    clock.advance(timedelta(minutes=5))
    assert len(posting.poster.run_once().posted) == 3
    assert books.exceptions() == []
    actions = books.rows("SELECT action FROM meterpost.audit_entry", one=True)
    assert "connection.paused" in actions
    assert "connection.resumed" in actions


def test_what_the_erp_stored_otherwise_is_an_exception_with_both_values(
    books: Any, fake: FakeErp, posting: Any
) -> None:
    """An ERP that moves the date without a word is found out at once."""
    fake.alter = {"date": date(2027, 1, 1)}
    one = books.stage()
    posting.poster.run_once()
    assert books.state(one) == "posted"
    [exception] = books.rows("SELECT * FROM meterpost.exception")
    assert exception.reason == "stored_differently"
    assert exception.detail["differences"] == [
        "date: sent 2026-10-31 to 2026-11-30, the ERP holds 2027-01-01"
    ]
    [receipt] = books.rows("SELECT * FROM meterpost.receipt")
    assert receipt.comparison == "changed"


def test_permits_hold_over_posters(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any
) -> None:
    """Two posters share 3 permits in 10 s, read-back included; a new one inherits the log."""
    limit = RateLimit(3, 10)
    first, second = (open_posting(name, rate_limit=limit) for name in ("p1", "p2"))
    for _ in range(6):
        books.stage()
    assert len(first.poster.run_once().posted) == 3
    report = second.poster.run_once()
    assert report.idle
    assert report.next_at == clock.now() + timedelta(seconds=10)
    clock.advance(timedelta(seconds=10))
    third = open_posting("p3", rate_limit=limit)
    assert len(third.poster.run_once().posted) == 3
    assert len(fake.committed()) == 6


def test_a_lease_that_ran_out_sends_nothing(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender held up between reserving and writing finds its lease over and writes nothing."""
    one = books.stage()

    def held_up(name: str) -> None:
        if name == "posting.reserve.after_commit" and not fake.requests:
            clock.advance(timedelta(seconds=5))
            monkeypatch.undo()

    monkeypatch.setattr("meterpost.posting.sending.reach", held_up)
    assert posting.poster.run_once(sends_max=1).deferred == (one,)
    assert fake.requests == 0
    assert books.path(one) == ["sending", "deferred", "approved"]
    [call] = books.rows("SELECT outcome FROM meterpost.call", one=True)
    assert call == "not_sent"
    assert posting.poster.run_once().posted == (one,)


def test_several_posters_at_once_post_each_once(
    books: Any, fake: FakeErp, open_posting: Any
) -> None:
    """Three posters in threads on 30 transactions: 30 documents, 30 references."""
    for number in range(30):
        books.stage(line=f"L{number}")
    posters = [open_posting(f"p{n}").poster for n in range(3)]
    stop = threading.Event()
    threads = [
        threading.Thread(target=poster.run, args=(stop,), kwargs={"poll_s": 0.05})
        for poster in posters
    ]
    for thread in threads:
        thread.start()
    waited = threading.Event()
    for _ in range(600):
        if books.states() == {"posted"}:
            break
        waited.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert books.states() == {"posted"}
    references = [document.reference for document in fake.committed()]
    assert len(references) == len(set(references)) == 30


def test_retry_needs_a_rejected_transaction(books: Any, posting: Any) -> None:
    """Retrying what is not rejected is refused with its state."""
    one = books.stage()
    with pytest.raises(Conflict, match="approved, not rejected"):
        posting.decisions.retry_rejected(one, actor="bob", reason="why not")
