"""Idempotency-Keys in a real database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from meterpost.access.idempotency import (
    ABANDONED_AFTER,
    BODY_BYTES_MAX,
    Idempotency,
    InProgress,
    Mismatch,
    New,
    Replay,
)
from meterpost.core.errors import Conflict, InvalidInput
from meterpost.storage.postgres.access import PostgresIdempotencyStore
from meterpost.storage.postgres.database import Database

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 1, 8, tzinfo=UTC)


@pytest.fixture
def idempotency(database: Database) -> Idempotency:
    return Idempotency(PostgresIdempotencyStore(database))


def begun(idempotency: Idempotency, now: datetime = NOW) -> New:
    claim = idempotency.begin("k", "K1", "h", now)
    assert isinstance(claim, New)
    return claim


def test_a_repeated_request_gets_the_first_answer(idempotency: Idempotency) -> None:
    """New, in progress, then replay; another body is a mismatch; other API keys are apart."""
    claim = begun(idempotency)
    assert idempotency.begin("k", "K1", "h", NOW) == InProgress()
    assert idempotency.begin("k", "K1", "other", NOW) == Mismatch()
    idempotency.finish(claim, 201, b'{"id":1}')
    assert idempotency.begin("k", "K1", "h", NOW) == Replay(201, b'{"id":1}')
    assert idempotency.begin("k", "K1", "other", NOW) == Mismatch()
    assert isinstance(idempotency.begin("k", "K2", "h", NOW), New)


def test_one_of_many_at_once_is_carried_out(idempotency: Idempotency) -> None:
    """Parallel requests with one key: exactly one is new."""
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(idempotency.begin("k", "K1", "h", NOW)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(type(answer).__name__ for answer in answers) == ["InProgress"] * 7 + ["New"]


def test_a_dead_requests_claim_is_taken_over(idempotency: Idempotency) -> None:
    """After a crash a repetition is carried out, and the first can no longer answer."""
    dead = begun(idempotency)
    late = NOW + ABANDONED_AFTER + timedelta(seconds=1)
    assert idempotency.begin("k", "K1", "other", late) == Mismatch()
    second = begun(idempotency, late)
    with pytest.raises(Conflict, match="taken over"):
        idempotency.finish(dead, 201, b"1")
    idempotency.release(dead)
    idempotency.finish(second, 201, b"2")
    assert idempotency.begin("k", "K1", "h", late) == Replay(201, b"2")


def test_a_failed_request_can_be_made_again(idempotency: Idempotency) -> None:
    """Releasing a claim forgets it; an answer that was given is not forgotten by that."""
    idempotency.release(begun(idempotency))
    claim = begun(idempotency)
    idempotency.finish(claim, 200, b"")
    idempotency.release(claim)
    assert idempotency.begin("k", "K1", "h", NOW) == Replay(200, b"")


def test_answers_are_kept_for_a_day(idempotency: Idempotency) -> None:
    """After that the key is free again, cleaned up or not."""
    idempotency.finish(begun(idempotency), 200, b"x")
    later = NOW + timedelta(hours=24, seconds=1)
    assert isinstance(idempotency.begin("k", "K1", "other", later), New)
    assert idempotency.forget(later) == 0
    assert idempotency.forget(later + timedelta(days=2)) == 1


def test_keys_and_answers_are_bounded(idempotency: Idempotency) -> None:
    """Empty, long or unprintable keys and huge answers are refused."""
    for key in ("", "x" * 256, "a\nb", "ä"):
        with pytest.raises(InvalidInput, match="Idempotency-Key"):
            idempotency.begin(key, "K1", "h", NOW)
    with pytest.raises(InvalidInput, match="too long"):
        idempotency.finish(begun(idempotency), 200, b"x" * (BODY_BYTES_MAX + 1))
