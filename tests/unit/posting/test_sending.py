"""Decisions around one call, without a database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from meterpost.core.errors import (
    Conflict,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Throttled,
    Transient,
)
from meterpost.core.ids import TargetId
from meterpost.posting.calls import CallOutcome
from meterpost.posting.config import ConnectionConfig, SecretReference, require_same_environment
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected
from meterpost.posting.model import Document
from meterpost.posting.sending import call_outcome, changed_due, posting_day


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Transient("x"), CallOutcome.DEFERRED),
        (Throttled("x"), CallOutcome.DEFERRED),
        (ClosedPeriod("x"), CallOutcome.DEFERRED),
        (Rejected("x"), CallOutcome.REJECTED),
        (Conflict("x"), CallOutcome.REJECTED),
        (NotAuthenticated("x"), CallOutcome.NOT_ADMITTED),
        (NotAllowed("x"), CallOutcome.NOT_ADMITTED),
        (OutcomeUnknown("x"), CallOutcome.IN_DOUBT),
        (Duplicate("x"), CallOutcome.IN_DOUBT),
        (KeyError("x"), CallOutcome.IN_DOUBT),
    ],
)
def test_only_definite_answers_are_definite(failure: Exception, outcome: CallOutcome) -> None:
    """Whatever does not say clearly that nothing was stored leaves the call in doubt."""
    assert call_outcome(failure) is outcome


def test_lines_that_hold_otherwise_are_named() -> None:
    """Equal amounts in another notation are no change; a new or vanished line is one."""
    ten, zero = Decimal("10.00"), Decimal(0)
    assert changed_due({"L1": ten}, {"L1": Decimal(10)}) is None
    assert changed_due({"L1": zero}, {}) is None
    assert "L1 holds 0 instead of 10.00" in str(changed_due({"L1": ten}, {}))
    assert "L2 holds 10.00 instead of 0" in str(changed_due({}, {"L2": ten}))


def test_the_posting_day_stays_in_the_permitted_days() -> None:
    """Today where it is permitted, else the nearest permitted day; today is local."""
    document = Document(
        TargetId("erp"),
        "billing.usage",
        "C",
        "EUR",
        "",
        (),
        Decimal(0),
        date(2026, 10, 31),
        date(2026, 11, 5),
        None,
        "m",
        "c",
    )
    evening = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
    assert posting_day(document, evening, "UTC") == date(2026, 11, 1)
    assert posting_day(document, evening, "Asia/Tokyo") == date(2026, 11, 2)
    assert posting_day(document, evening.replace(month=9), "UTC") == date(2026, 10, 31)
    assert posting_day(document, evening.replace(month=12), "UTC") == date(2026, 11, 5)


def test_credentials_do_not_cross_environments() -> None:
    """A production connection does not open in a sandbox installation, nor the other way."""
    config = ConnectionConfig(TargetId("erp"), "sandbox", "production", "http://erp")
    require_same_environment(config, "production")
    with pytest.raises(NotAllowed, match="'production', this installation is 'sandbox'"):
        require_same_environment(config, "sandbox")


def test_a_secret_has_one_place() -> None:
    """A reference names a file or a variable; both or none is a mistake."""
    assert str(SecretReference(env="TOKEN")) == "environment variable TOKEN"
    for wrong in ({}, {"env": "A", "file": "b"}):
        with pytest.raises(ValueError, match="exactly one"):
            SecretReference(**wrong)


@pytest.mark.parametrize("name", ["timeout_s", "lease_s", "request_limit_s", "attempts_max"])
def test_limits_must_limit(name: str) -> None:
    """Zero is no timeout."""
    with pytest.raises(ValueError, match=name):
        ConnectionConfig(TargetId("erp"), "sandbox", "test", "http://erp", **{name: 0})  # type: ignore[arg-type]
