"""The ERP's books: one SQLite file (WAL, synchronous=FULL) that outlives SIGKILL.

One process writes it at a time, held by a lock file beside it; anyone may read. Whatever is
answered to a client was committed before.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS master (
    kind TEXT NOT NULL, code TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, code)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('invoice', 'credit_note')),
    origin TEXT NOT NULL CHECK (origin IN ('api', 'clerk')),
    state TEXT NOT NULL CHECK (state IN ('draft', 'posted', 'cancelled', 'deleted')),
    number TEXT UNIQUE,
    reference TEXT NOT NULL,
    customer TEXT NOT NULL,
    date TEXT NOT NULL,
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    net TEXT NOT NULL,
    tax TEXT NOT NULL,
    gross TEXT NOT NULL,
    taxes TEXT NOT NULL,
    created_reference TEXT NOT NULL,
    created_net TEXT NOT NULL,
    credit_of INTEGER REFERENCES documents (id),
    credited_net TEXT NOT NULL,
    credited_gross TEXT NOT NULL,
    posted_at TEXT,
    created_at TEXT NOT NULL,
    modified_at TEXT NOT NULL,
    modified_sequence INTEGER NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    visible_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS documents_reference ON documents (reference);
CREATE INDEX IF NOT EXISTS documents_date ON documents (date);
CREATE TABLE IF NOT EXISTS lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (id),
    position INTEGER NOT NULL,
    reference TEXT NOT NULL,
    description TEXT NOT NULL,
    item TEXT NOT NULL,
    unit TEXT NOT NULL,
    quantity TEXT NOT NULL,
    unit_price TEXT NOT NULL,
    net TEXT NOT NULL,
    account TEXT NOT NULL,
    tax_code TEXT NOT NULL,
    service_from TEXT,
    service_to TEXT
);
CREATE INDEX IF NOT EXISTS lines_document ON lines (document);
CREATE TABLE IF NOT EXISTS native_keys (
    key TEXT PRIMARY KEY, digest TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrivals (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    wall REAL NOT NULL, monotonic REAL NOT NULL, kind TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, items INTEGER NOT NULL, status TEXT NOT NULL, fault TEXT
);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL NOT NULL, kind TEXT NOT NULL
);
"""


class LedgerInUse(Exception):
    """Another sandbox server holds this ledger."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it came and how it ended; times are the moment it was read."""

    wall: float
    monotonic: float
    kind: str
    method: str
    path: str
    items: int
    status: str
    fault: str | None


class Ledger:
    """The open books. Threads share it: one writes at a time, reads see committed data only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _create(path)
        self._writer, self._reader = _connect(path), _connect(path)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._notes_lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._faults: list[tuple[float, str]] = []

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A durable transaction: committed and fsynced when the block ends, else rolled back."""
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            arrivals, faults = self._take_notes()
            try:
                _insert_notes(self._writer, arrivals, faults)
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk may have ended it already
                    self._writer.execute("ROLLBACK")
                with self._notes_lock:
                    self._arrivals[:0] = arrivals
                    self._faults[:0] = faults
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of what is committed."""
        with self._read_lock:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("ROLLBACK")

    def note_arrival(self, arrival: Arrival) -> None:
        """Keep an arrival; it reaches the file with the next write or flush."""
        with self._notes_lock:
            self._arrivals.append(arrival)

    def note_fault(self, kind: str) -> None:
        """Keep that a fault struck; written before a call ends, with what it struck."""
        with self._notes_lock:
            self._faults.append((time.time(), kind))

    def flush(self) -> None:
        """Write the kept arrivals and faults, if there are any."""
        with self._notes_lock:
            empty = not (self._arrivals or self._faults)
        if not empty:
            with self.write():
                pass

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush()
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def _take_notes(self) -> tuple[list[Arrival], list[tuple[float, str]]]:
        with self._notes_lock:
            taken = self._arrivals, self._faults
            self._arrivals, self._faults = [], []
        return taken


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the ledger as its only server; the kernel lets go when the process dies.

    Raises: LedgerInUse.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise LedgerInUse(f"another sandbox server is using {path}; stop it first") from exc
        yield
    finally:
        os.close(handle)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger file opened for reading only, also while a server writes it.

    Raises: FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no ledger at {path}")
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=30
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def next_value(connection: sqlite3.Connection, counter: str) -> int:
    """The next number of a gapless series (gapless because it rolls back with its transaction)."""
    row = connection.execute(
        "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        " RETURNING value",
        (counter,),
    ).fetchone()
    return int(row[0])


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, object]) -> int:
    """The id of the new row; ``table`` and the column names are ours, values are bound."""
    sql = (
        f"INSERT INTO {table} ({', '.join(row)})"  # noqa: S608 (names are literals of this package)
        f" VALUES ({', '.join('?' * len(row))}) RETURNING id"
    )
    return int(connection.execute(sql, tuple(row.values())).fetchone()[0])


def update(
    connection: sqlite3.Connection, table: str, row_id: int, row: Mapping[str, object]
) -> None:
    """Set the given columns of one row; ``table`` and the column names are ours."""
    sql = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in row)} WHERE id = ?"  # noqa: S608
    connection.execute(sql, (*row.values(), row_id))


def now_utc() -> datetime:
    """The machine's time."""
    return datetime.now(UTC)


def _insert_notes(
    connection: sqlite3.Connection, arrivals: list[Arrival], faults: list[tuple[float, str]]
) -> None:
    if arrivals:
        connection.executemany(
            "INSERT INTO arrivals (wall, monotonic, kind, method, path, items, status, fault)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (a.wall, a.monotonic, a.kind, a.method, a.path, a.items, a.status, a.fault)
                for a in arrivals
            ],
        )
    if faults:
        connection.executemany("INSERT INTO faults (wall, kind) VALUES (?, ?)", faults)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise ValueError(
                f"{path} was written by another version (schema {version}, this one knows"
                f" {SCHEMA_VERSION}); start with a new ledger"
            )
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
