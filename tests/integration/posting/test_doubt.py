"""Doubt: lost answers, late commits, dead posters; with a clock that moves only when told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from meterpost.core.clock import ManualClock
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.posting.decisions import Absent, Exists
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector, Fault

pytestmark = pytest.mark.integration

#: lease 5 + timeout 10 (send_before), then request limit 60 + visibility 0 + margin 5.
CERTAIN = timedelta(seconds=15 + 65)


def test_a_lost_reply_is_found_and_linked(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """The probe finds the document by its key; nothing is sent again."""
    one = books.stage()
    fake.faults.append(Fault.LOSE_REPLY)
    assert posting.poster.run_once().in_doubt == (one,)
    clock.advance(timedelta(seconds=1))
    assert posting.poster.run_once().posted == (one,)
    assert books.path(one) == ["sending", "in_doubt", "posted"]
    assert len(fake.committed()) == 1
    outcomes = books.rows("SELECT outcome FROM meterpost.call_item ORDER BY call_id", one=True)
    assert outcomes == ["in_doubt", "found"]


def test_empty_look_ups_before_the_certain_time_never_send_again(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """Second by second nothing is sent until absence is certain; then once, same key, same hash."""
    one = books.stage()
    sent = clock.now()
    fake.faults.append(Fault.LOSE_REQUEST)
    posting.poster.run_once()
    approved_hash = books.row(one).document_hash
    while clock.now() < sent + CERTAIN - timedelta(seconds=1):
        clock.advance(timedelta(seconds=1))
        posting.poster.run_once()
        assert books.state(one) == "in_doubt"
        assert fake.committed() == []
    assert 3 <= fake.searches <= 12
    clock.advance(timedelta(seconds=1))
    report = posting.poster.run_once()
    assert report.absent == (one,)
    assert report.posted == (one,)
    assert [d.reference for d in fake.committed()] == [books.key(one)]
    hashes = set(
        books.rows(
            "SELECT document_hash FROM meterpost.call_item WHERE document_hash <> ''", one=True
        )
    )
    assert hashes == {approved_hash}


def test_a_late_commit_is_found_before_absence_is_certain(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """We gave up, look-ups found nothing for 60 s, then it was there: one document."""
    fake.late_commit_s = 60
    fake.faults.append(Fault.COMMIT_LATE)
    one = books.stage()
    for _ in range(100):
        posting.poster.run_once()
        clock.advance(timedelta(seconds=1))
    assert books.state(one) == "posted"
    assert len(fake.committed()) == 1


def test_a_document_that_hides_is_waited_for(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any
) -> None:
    """Delayed visibility counts into the certain time."""
    fake.visibility_s = 70
    connector = FakeErpConnector(fake, request_limit_s=20, visibility_s=75, margin_s=1)
    posting = open_posting(connector=connector)
    fake.faults.append(Fault.LOSE_REPLY)
    one = books.stage()
    for _ in range(140):
        posting.poster.run_once()
        clock.advance(timedelta(seconds=1))
    assert books.state(one) == "posted"
    assert len(fake.committed()) == 1


def test_two_documents_with_one_key_are_never_silent(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """The first is linked; the exception names both ids."""
    one = books.stage()
    fake.faults.append(Fault.LOSE_REPLY)
    posting.poster.run_once()
    fake.store(fake.committed()[0])
    clock.advance(timedelta(seconds=1))
    posting.poster.run_once()
    assert books.state(one) == "posted"
    [exception] = books.rows("SELECT * FROM meterpost.exception")
    assert exception.reason == "duplicate_in_erp"
    assert exception.detail["documents"] == ["1", "2"]


def test_a_connectors_defect_leaves_doubt_not_a_second_document(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """A KeyError after the write is treated as unknown, reported, and settled by looking."""
    one = books.stage()
    fake.faults.append(Fault.DEFECT)
    assert posting.poster.run_once().in_doubt == (one,)
    assert books.exceptions() == ["connector_defect"]
    clock.advance(timedelta(seconds=1))
    assert posting.poster.run_once().posted == (one,)
    assert len(fake.committed()) == 1
    assert books.exceptions() == []


def test_a_duplicate_refusal_is_looked_up_at_once(
    books: Any, fake: FakeErp, open_posting: Any
) -> None:
    """Where the ERP enforces unique references, its refusal leads to the document."""
    fake.unique_reference = True
    posting = open_posting()
    one = books.stage()
    fake.faults.append(Fault.LOSE_REPLY)
    posting.poster.run_once()
    books.rows(
        "UPDATE meterpost.staged_transaction SET state = 'approved', not_before = NULL RETURNING id"
    )
    posting.poster.run_once()
    assert books.state(one) == "in_doubt"
    assert posting.poster.run_once().posted == (one,)
    assert len(fake.committed()) == 1


def test_probes_that_fail_go_on_and_tell_a_person(
    books: Any, clock: ManualClock, fake: FakeErp, posting: Any
) -> None:
    """An ERP down for an hour after a lost reply: an exception meanwhile, then the link."""
    one = books.stage()
    fake.faults.append(Fault.LOSE_REPLY)
    posting.poster.run_once()
    fake.down = True
    for _ in range(60):
        clock.advance(timedelta(minutes=1))
        posting.poster.run_once()
    assert books.state(one) == "in_doubt"
    assert books.exceptions() == ["probe_failing"]
    fake.down = False
    clock.advance(timedelta(minutes=1))
    posting.poster.run_once()
    assert (books.state(one), books.exceptions()) == ("posted", [])


def test_without_search_a_person_decides(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any
) -> None:
    """Both buttons: absent only once that is certain, exists only for a document that does."""
    posting = open_posting(connector=FakeErpConnector(fake, search=False))
    lost, gone = books.stage(), books.stage()
    fake.faults.extend([Fault.LOSE_REPLY, Fault.LOSE_REQUEST])
    posting.poster.run_once()
    clock.advance(timedelta(seconds=1))
    posting.poster.run_once()
    assert books.exceptions() == ["needs_person", "needs_person"]
    resolve = posting.decisions.resolve_in_doubt
    with pytest.raises(Conflict, match="may still appear"):
        resolve(gone, Absent(), actor="bob", reason="looked")
    with pytest.raises(NotFound):
        resolve(lost, Exists("77"), actor="bob", reason="looked")
    with pytest.raises(InvalidInput):
        resolve(lost, Exists("1"), actor="bob", reason=" ")
    assert resolve(lost, Exists("1"), actor="bob", reason="looked") == "posted"
    with pytest.raises(Conflict, match="already belongs"):
        resolve(gone, Exists("1"), actor="bob", reason="looked")
    clock.advance(CERTAIN)
    assert resolve(gone, Absent(), actor="bob", reason="looked") == "approved"
    assert posting.poster.run_once().posted == (gone,)
    assert books.exceptions() == []
    actors = set(books.rows("SELECT actor FROM meterpost.transition", one=True))
    assert actors == {"bob", "poster:erp"}


def test_a_dead_posters_call_is_taken_over_a_living_ones_is_not(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any, monkeypatch: Any
) -> None:
    """A successor leaves a living poster's open call alone and looks up a dead one's."""

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "posting.send.after":
            raise Killed

    first, second = open_posting("p1"), open_posting("p2")
    one = books.stage()
    with monkeypatch.context() as patch:
        patch.setattr("meterpost.posting.sending.reach", die)
        with pytest.raises(Killed):
            first.poster.run_once()
    assert second.poster.run_once().taken_over == ()
    assert books.state(one) == "sending"
    first.poster.close()
    report = second.poster.run_once()
    assert report.taken_over == (one,)
    assert report.posted == (one,)
    assert len(fake.committed()) == 1


def test_a_posters_own_open_call_is_settled_in_its_next_round(
    books: Any, fake: FakeErp, posting: Any, monkeypatch: Any
) -> None:
    """Our database failed after the ERP stored the document: the next round finds it."""

    def fail(name: str) -> None:
        if name == "posting.record.before_commit":
            raise OSError("the disk is full")

    one = books.stage()
    with monkeypatch.context() as patch:
        patch.setattr("meterpost.posting.sending.reach", fail)
        with pytest.raises(OSError, match="disk"):
            posting.poster.run_once()
    assert books.state(one) == "sending"
    assert posting.poster.run_once().posted == (one,)
    assert len(fake.committed()) == 1


def test_an_answer_after_take_over_still_counts(
    books: Any, fake: FakeErp, open_posting: Any, monkeypatch: Any
) -> None:
    """A poster cut off from the database was taken over and posted; its answer changes nothing."""
    first, second = open_posting("p1"), open_posting("p2")
    one = books.stage()

    def cut_off(name: str) -> None:
        if name == "posting.send.after":
            patch.undo()
            first.poster.close()
            assert second.poster.run_once().posted == (one,)

    with monkeypatch.context() as patch:
        patch.setattr("meterpost.posting.sending.reach", cut_off)
        first.poster.run_once()
    assert books.state(one) == "posted"
    assert books.exceptions() == []
    assert len(fake.committed()) == 1


def test_an_answer_after_certain_absence_holds_the_transaction(
    books: Any, clock: ManualClock, fake: FakeErp, open_posting: Any, monkeypatch: Any
) -> None:
    """A sender stopped for minutes beyond every limit: its document is reported, none is added."""
    first, second = open_posting("p1"), open_posting("p2")
    one = books.stage()

    def stopped(name: str) -> None:
        if name == "posting.send.before":
            patch.undo()
            first.poster.close()
            clock.advance(timedelta(seconds=1))
            second.poster.run_once()
            clock.advance(CERTAIN)
            assert second.poster.run_once(sends_max=0).absent == (one,)

    with monkeypatch.context() as patch:
        patch.setattr("meterpost.posting.sending.reach", stopped)
        first.poster.run_once(sends_max=1)
    assert books.state(one) == "held"
    assert books.exceptions() == ["late_answer"]
    assert len(fake.committed()) == 1
