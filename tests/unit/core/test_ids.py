"""Keys that follow from meaning, and fresh names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from meterpost.core.ids import PostingKeyParts, RandomIds, TargetId

PARTS = PostingKeyParts(
    installation="i-1",
    environment="production",
    target=TargetId("erp"),
    purpose="bill",
    business_key="C-1",
    period_start=datetime(2026, 10, 1, tzinfo=UTC),
    period_end=datetime(2026, 11, 1, tzinfo=UTC),
    revision=1,
)


def test_a_posting_key_stays_the_same_for_ever() -> None:
    """Documents already posted carry it: another key for the same parts would post twice."""
    assert PARTS.key() == "UX02W6ST2BBT1928"
    plus2 = timezone(timedelta(hours=2))
    moved = replace(PARTS, period_start=PARTS.period_start.astimezone(plus2))
    assert moved.key() == PARTS.key()


@pytest.mark.parametrize(
    "change",
    [
        {"installation": "i-2"},
        {"environment": "sandbox"},
        {"target": TargetId("other")},
        {"purpose": "accrue"},
        {"business_key": "C-2"},
        {"period_start": datetime(2026, 10, 2, tzinfo=UTC)},
        {"period_end": datetime(2026, 11, 2, tzinfo=UTC)},
        {"revision": 2},
    ],
)
def test_every_part_makes_another_document(change: dict[str, Any]) -> None:
    """Environments never collide, revisions never overwrite."""
    key = replace(PARTS, **change).key()
    assert key != PARTS.key()
    assert len(key) == 16
    assert key.startswith("U")


def test_correlation_ids_are_long_and_fresh() -> None:
    """26 characters that do not repeat."""
    ids = RandomIds()
    fresh = {ids.correlation_id() for _ in range(1000)}
    assert len(fresh) == 1000
    assert {len(one) for one in fresh} == {26}
