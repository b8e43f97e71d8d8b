"""Writing and reading the journal on a real server."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from psycopg import sql

from meterpost.core.errors import Conflict, NeedsPerson, Transient
from meterpost.ingest.model import Recorded
from meterpost.metering.model import Position
from meterpost.storage.postgres import journal
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.intake import (
    intake_cells,
    quarantined,
    quarantined_counts,
    settle_quarantined,
)
from meterpost.storage.postgres.journal import PostgresJournal, renew_incarnation
from meterpost.storage.postgres.journal_writer import JournalWriter

pytestmark = pytest.mark.integration


class Collected(list):
    """Outcomes as they arrive, to wait for."""

    def __init__(self):
        super().__init__()
        self._arrived = threading.Condition()

    def __call__(self, outcome):
        with self._arrived:
            self.append(outcome)
            self._arrived.notify()

    def wait_for(self, count):
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self) >= count, 30), f"only {len(self)}"
        return self


def read_all(database, events_max=50):
    reader = PostgresJournal(database)
    at = Position(reader.end().incarnation, 0)
    rows = []
    while found := reader.read(at, events_max):
        rows += found
        at = Position(at.incarnation, found[-1].sequence)
    return rows


def test_what_was_recorded_can_be_read_in_order(database, writer, submission):
    """Rows come back as written, numbered from 1 without gaps."""
    outcomes = Collected()
    for n in range(20):
        writer.submit(submission(f"a{n}", f"b{n}"), outcomes)
    outcomes.wait_for(20)
    rows = read_all(database, 7)
    assert [row.sequence for row in rows] == list(range(1, 21))
    assert [outcome.sequence for outcome in outcomes] == list(range(1, 21))
    assert [json.loads(row.body)[0]["id"] for row in rows] == [f"a{n}" for n in range(20)]
    row = rows[0]
    assert (row.events, row.correlation_id, row.traceparent) == (2, "c1", "tp")
    assert row.recorded_at == outcomes[0].recorded_at
    assert PostgresJournal(database).end().sequence == 20


def test_a_read_stops_at_its_bound_and_gives_at_least_one_row(database, writer, submission):
    """Events and bytes bound a read, but one row always comes."""
    outcomes = Collected()
    for n in range(3):
        writer.submit(submission(*(f"{n}-{k}" for k in range(10))), outcomes)
    outcomes.wait_for(3)
    reader = PostgresJournal(database)
    start = Position(reader.end().incarnation, 0)
    assert [len(reader.read(start, bound)) for bound in (1, 10, 20, 29, 30)] == [1, 1, 2, 2, 3]
    assert len(PostgresJournal(database, read_bytes_max=1).read(start, 100)) == 1
    assert reader.read(reader.end(), 10) == []


def test_positions_of_another_journal_are_refused(database, writer, submission):
    """Another incarnation, a position past the end, and dropped rows are conflicts."""
    outcomes = Collected()
    writer.submit(submission("a"), outcomes)
    outcomes.wait_for(1)
    reader = PostgresJournal(database)
    end = reader.end()
    with pytest.raises(Conflict, match="incarnation"):
        reader.read(Position("other", 0), 10)
    with pytest.raises(Conflict, match="ends at 1"):
        reader.read(Position(end.incarnation, 2), 10)
    with database.raw_connection() as raw:
        renewed = renew_incarnation(raw)
    with pytest.raises(Conflict, match="incarnation"):
        reader.read(end, 10)
    with database.raw_connection() as raw:
        raw.execute("DELETE FROM meterpost.journal")
    with pytest.raises(Conflict, match="no longer holds"):
        reader.read(Position(renewed.incarnation, 0), 10)


def test_counts_and_quarantine_agree(database, writer, submission):
    """Per source and hour, received = invalid + accepted; refused bytes are kept."""
    outcomes = Collected()
    writer.submit(submission("a", "b", bad=2), outcomes)
    writer.submit(submission(bad=1, source="only-bad"), outcomes)
    writer.submit(submission("c"), outcomes)
    outcomes.wait_for(3)
    assert [outcome.sequence for outcome in outcomes] == [1, None, 2]
    with database.begin() as connection:
        cells = {cell.source: cell for cell in intake_cells(connection)}
        witness = quarantined_counts(connection)
        rows = quarantined(connection)
    assert (cells["s"].received, cells["s"].invalid, cells["s"].accepted) == (5, 2, 3)
    assert {key: cell.invalid for cell in cells.values() if cell.invalid for key in [
        (cell.interval_start, cell.source)
    ]} == witness  # fmt: skip
    assert json.loads(rows[0].rejected.raw)["id"] == ""
    assert (rows[0].rejected.index, rows[0].rejected.problem.code) == (2, "empty-id")
    now = rows[0].recorded_at
    with database.begin() as connection:
        settle_quarantined(connection, rows[0].id, by="ann", settlement="sent again", at=now)
        assert len(quarantined(connection, open_only=True)) == 2
        with pytest.raises(Conflict, match="ann"):
            settle_quarantined(connection, rows[0].id, by="bob", settlement="x", at=now)


def test_partitions_are_made_ahead(database, submission, monkeypatch):
    """Sequences run across partitions without anybody waiting for one."""
    monkeypatch.setattr(journal, "JOURNAL_PARTITION_ROWS", 10)
    monkeypatch.setattr(journal, "PARTITION_MARGIN_ROWS", 5)
    monkeypatch.setattr("meterpost.storage.postgres.journal_writer.PARTITION_MARGIN_ROWS", 5)
    writer = JournalWriter(database, group_requests_max=3)
    writer.start()
    outcomes = Collected()
    for n in range(45):
        writer.submit(submission(str(n)), outcomes)
    outcomes.wait_for(45)
    writer.stop()
    assert [one.sequence for one in outcomes] == list(range(1, 46))
    assert len(read_all(database)) == 45
    with database.raw_connection() as raw:
        kind = raw.execute(
            "SELECT DISTINCT attstorage FROM pg_attribute JOIN pg_inherits ON inhrelid = attrelid"
            " WHERE inhparent = 'meterpost.journal'::regclass AND attname = 'body'"
        ).fetchall()
    assert [row[0] for row in kind] in (["e"], [b"e"])


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_may_lose_data_is_refused(server, database, setting):
    """The writer does not start where a setting gives up durability."""
    name = psycopg.conninfo.conninfo_to_dict(database.dsn)["dbname"]
    with psycopg.connect(server, autocommit=True) as admin:
        if setting == "synchronous_commit":
            off = sql.SQL("ALTER DATABASE {} SET synchronous_commit = off")
            admin.execute(off.format(sql.Identifier(name)))
        else:
            admin.execute(f"ALTER SYSTEM SET {setting} = off")
            admin.execute("SELECT pg_reload_conf()")
        try:
            deadline = time.monotonic() + 20
            while True:
                with psycopg.connect(database.dsn) as probe:
                    if probe.execute(f"SHOW {setting}").fetchone() == ("off",):
                        break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with pytest.raises(NeedsPerson, match=setting):
                JournalWriter(database).start()
        finally:
            if setting != "synchronous_commit":
                admin.execute(f"ALTER SYSTEM RESET {setting}")
                admin.execute("SELECT pg_reload_conf()")
    with psycopg.connect(server) as admin:
        deadline = time.monotonic() + 20
        while setting != "synchronous_commit":
            with psycopg.connect(server) as probe:
                if probe.execute(f"SHOW {setting}").fetchone() == ("on",):
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_lost_connection_is_made_again(server, database, writer, submission):
    """A connection killed between groups costs a reconnect, no request."""
    outcomes = Collected()
    writer.submit(submission("a"), outcomes)
    outcomes.wait_for(1)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            (psycopg.conninfo.conninfo_to_dict(database.dsn)["dbname"],),
        )
    writer.submit(submission("b"), outcomes)
    assert isinstance(outcomes.wait_for(2)[1], Recorded)
    database.dispose()
    assert [json.loads(row.body)[0]["id"] for row in read_all(database)] == ["a", "b"]


def test_after_stop_nothing_is_taken(database, submission):
    """What was queued is written before stop returns; later submissions are told to come back."""
    writer = JournalWriter(database)
    writer.start()
    outcomes = Collected()
    for n in range(50):
        writer.submit(submission(str(n)), outcomes)
    writer.stop()
    assert len(outcomes) == 50
    assert all(isinstance(one, Recorded) for one in outcomes)
    with pytest.raises(Transient):
        writer.submit(submission("late"), outcomes)


def _write_many(dsn, name, count, make):
    database = Database(dsn)
    writer = JournalWriter(database, group_requests_max=5)
    writer.start()
    outcomes = Collected()
    for n in range(count):
        writer.submit(make[n], outcomes)
        if n % 10 == 0:
            time.sleep(0.001)
    outcomes.wait_for(count)
    writer.stop()
    database.dispose()
    os._exit(0 if all(isinstance(one, Recorded) for one in outcomes) else 1)


def test_a_reader_that_remembers_the_highest_sequence_misses_nothing(database, submission):
    """Four processes write; one reader follows by position and sees every row exactly once."""
    start = PostgresJournal(database).end()
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(
            target=_write_many,
            args=(database.dsn, name, 150, [submission(f"{name}{n}") for n in range(150)]),
        )
        for name in "abcd"
    ]
    for one in writers:
        one.start()
    reader = PostgresJournal(database)
    seen: list[int] = []
    ids: list[str] = []
    deadline = time.monotonic() + 90
    at = Position(start.incarnation, 0)
    while len(ids) < 600 and time.monotonic() < deadline:
        rows = reader.read(at, 40)
        if not rows:
            time.sleep(0.005)
            continue
        seen += [row.sequence for row in rows]
        ids += [event["id"] for row in rows for event in json.loads(row.body)]
        at = Position(at.incarnation, rows[-1].sequence)
    for one in writers:
        one.join(30)
        assert one.exitcode == 0
    assert seen == list(range(1, 601))
    assert sorted(ids) == sorted(f"{name}{n}" for name in "abcd" for n in range(150))


CRASH = """
import sys
from meterpost.ingest.checks import Checks
from meterpost.ingest.model import Submission
from meterpost.ingest.service import Intake
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal_writer import JournalWriter
writer = JournalWriter(Database(sys.argv[1]))
writer.start()
intake = Intake(Checks(metered={"t": ()}), writer)
for n in range(5):
    body = '[{"specversion":"1.0","id":"%d","source":"s","type":"t"}]' % n
    intake.accept(Submission(intake.checks.batch(body.encode()), "c", "k")).result(30)
    print(n, flush=True)
"""


@pytest.mark.parametrize(
    ("point", "rows"), [("edge.journal.before_commit", 2), ("edge.journal.after_commit", 3)]
)
def test_a_killed_edge_loses_nothing_it_acknowledged(database, writer, submission, point, rows):
    """Killed before the commit nothing of the group stands; after it, all, acknowledged or not."""
    died = subprocess.run(
        [sys.executable, "-c", CRASH, database.dsn],
        env={**os.environ, "METERPOST_CRASHPOINT": f"{point}:3"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert died.stdout.split() == [b"0", b"1"]
    stored = read_all(database)
    assert len(stored) == rows
    with database.begin() as connection:
        assert sum(cell.accepted for cell in intake_cells(connection)) == rows
    outcomes = Collected()
    writer.submit(submission("next"), outcomes)
    assert outcomes.wait_for(1)[0].sequence == rows + 1
