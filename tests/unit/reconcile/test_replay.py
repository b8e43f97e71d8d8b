"""Meters run over raw events in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, Meter
from meterpost.metering.quantity import quantity_of
from meterpost.metering.usage_digest import EMPTY
from meterpost.reconcile.replay import replayed
from meterpost.reconcile.trace import TracedEvent

AT = datetime(2026, 10, 3, 10, tzinfo=UTC)


def event(number: int, data: str) -> TracedEvent:
    moment = AT + timedelta(seconds=number)
    return TracedEvent(number, "/s", str(number), "call", "a", moment, AT, data, "c", None)


def meter(aggregation: str, value: str | None = "data.n", **more: str) -> Meter:
    return Meter(MeterId("m"), "call", Aggregation(aggregation), "u", value, **more)


EVENTS = [
    event(1, '{"n": 3, "who": "x"}'),
    event(2, '{"n": "17000000001234.567891234", "who": "y"}'),
    event(3, '{"n": 17000000001234567, "who": "x"}'),
]


@pytest.mark.parametrize(
    ("definition", "quantity"),
    [
        (meter("count", None), "3"),
        (meter("sum"), "17017000001235804.567891234"),
        (meter("min"), "3"),
        (meter("max"), "17000000001234567"),
        (meter("latest"), "17000000001234567"),
        (meter("unique", "data.who"), "2"),
        (meter("average", filter="data.n < 10"), "3"),
    ],
)
def test_every_aggregation_is_exact(definition: Meter, quantity: str) -> None:
    """Also where numbers have more digits than a double carries."""
    replay = replayed(definition, [EVENTS[:2], EVENTS[2:]])
    assert quantity_of(definition, replay.components) == Decimal(quantity)


def test_what_the_meter_leaves_out_is_named() -> None:
    """An event listed under a meter whose filter refuses it is a finding, not a zero."""
    replay = replayed(meter("sum", filter="data.who = 'x'"), [EVENTS])
    assert (replay.events, replay.left_out) == (2, ["/s 2"])


def test_the_digest_follows_content_and_not_order() -> None:
    """Any order gives one digest; another byte of data gives another."""
    count = meter("count", None)
    one = replayed(count, [EVENTS]).digest
    assert one == replayed(count, [EVENTS[::-1]]).digest
    changed = [replace(EVENTS[0], data='{"n": 4, "who": "x"}'), *EVENTS[1:]]
    assert one != replayed(count, [changed]).digest
    assert replayed(count, []).digest == EMPTY
