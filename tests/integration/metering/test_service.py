"""Following a journal, and relaying what a drain owes."""

from __future__ import annotations

import pytest

from meterpost.core.errors import Conflict
from meterpost.metering.model import Position
from meterpost.metering.service import Metering, drain_to

pytestmark = pytest.mark.integration


class ListJournal:
    def __init__(self, rows):
        self.rows = rows

    def end(self):
        return Position("j1", len(self.rows))

    def read(self, after, events_max):
        return self.rows[after.sequence : after.sequence + max(events_max // 2, 1)]


class Sink:
    def __init__(self):
        self.items = {}

    def accept(self, items):
        self.items.update({(i.incarnation, i.first_sequence, i.ordinal): i for i in items})


def test_a_drain_reaches_the_journals_end_in_batches(store, feed, event, meter):
    """Batches are bounded, progress is reported, and the cells of all batches add up."""
    journal = ListJournal([feed.row([event(f"{n}"), event(f"{n % 3}")]) for n in range(9)])
    seen = []
    report = drain_to(journal, store, journal.end(), on_progress=seen.append, batch_events_max=4)
    assert (report.accepted, report.duplicate, report.no_meter) == (18, 9, 9)
    assert [one.position.sequence for one in seen] == [2, 4, 6, 8, 9]
    with pytest.raises(Conflict, match="nothing behind"):
        drain_to(journal, store, Position("j1", 99))
    with pytest.raises(Conflict, match="follows journal"):
        drain_to(journal, store, Position("other", 99))


def test_what_a_drain_owes_is_relayed_once(store, feed, event, meter):
    """Failed measurements of new and of stored events reach the sink and leave the outbox."""
    sink = Sink()
    rows = [feed.row([event("a", data={"n": "x"}), event("b", data={"n": "y"})])]
    metering = Metering(ListJournal(rows), store, sink)
    metering.drain()
    assert metering.apply([meter()]) == ["Meter m is new."]
    rows.append(feed.row([event("c", data={})]))
    metering.drain()
    assert [item.payload["id"] for item in sink.items.values()] == ["a", "b", "c"]
    assert metering.relay() == 0
