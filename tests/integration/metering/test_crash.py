"""SIGKILL in the middle of a drain leaves a store that goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meterpost.core.crashpoints import ENVIRONMENT_VARIABLE
from meterpost.core.errors import Conflict
from meterpost.core.ids import MeterId
from meterpost.core.period import Period
from meterpost.metering.model import Aggregation, Meter, UsageQuery
from meterpost.storage.duckdb import DuckDbEventStore

pytestmark = pytest.mark.integration

METER = Meter(MeterId("m"), "call", Aggregation.SUM, "u", "data.n")
BATCHES = 6

#: Drains batches of 500 events, with one repeated and one bad event in each.
CHILD = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, JournalRow, Meter
from meterpost.storage.duckdb import DuckDbEventStore

def body(n):
    made = [{"specversion": "1.0", "id": f"{n}-{i}", "source": "/s", "type": "call",
             "subject": "acme", "time": "2026-03-10T10:00:00Z", "data": {"n": i}}
            for i in range(498)]
    bad = {**made[0], "id": f"bad-{n}", "time": "never"}
    return json.dumps([*made, {**made[1], "data": {"n": -1}}, bad]).encode()

with DuckDbEventStore(Path(sys.argv[1]), epoch_events=1000) as store:
    store.apply_meters([Meter(MeterId("m"), "call", Aggregation.SUM, "u", "data.n")])
    store.bind("j")
    print("open", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    for n in range(store.position().sequence + 1, 7):
        store.drain([JournalRow(n, datetime(2026, 4, 1, tzinfo=UTC), body(n), 500, "c", None)])
"""


def drain(folder: Path, crashpoint: str | None = None) -> int:
    environment = {k: v for k, v in os.environ.items() if k != ENVIRONMENT_VARIABLE}
    if crashpoint:
        environment[ENVIRONMENT_VARIABLE] = crashpoint
    child = [sys.executable, "-c", CHILD, str(folder), "go"]
    return subprocess.run(child, env=environment, timeout=120, check=False).returncode


@pytest.mark.parametrize("point", ["before_commit:1", "before_commit:4", "after_commit:3"])
def test_a_killed_drain_is_repeated_without_a_trace(tmp_path, point):
    """Killed before or just after a commit, the next drain ends with the same counts."""
    assert drain(tmp_path, f"engine.drain.{point}") == -signal.SIGKILL
    assert drain(tmp_path) == 0
    with DuckDbEventStore(tmp_path) as store:
        [row] = store.usage(UsageQuery(METER, Period.month("2026-03"))).to_pylist()
        assert (row["events"], row["total"]) == (498 * BATCHES, sum(range(498)) * BATCHES)
        [ledger, *_] = [r for r in store.ledger_counts() if r["source"] == "/s"]
        assert (ledger["conflicting"], ledger["quarantined"], ledger["processed"]) == (
            BATCHES, BATCHES, 498 * BATCHES
        )  # fmt: skip
        items = store.outbox(100)
        assert len(items) == 2 * BATCHES
        assert len({item.ordinal for item in items}) == len(items)


def test_a_second_process_is_refused_with_a_sentence(tmp_path):
    """The file belongs to the process that has it open."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(Conflict, match="open in another process"):
            DuckDbEventStore(tmp_path)
    finally:
        child.kill()
        child.communicate()
