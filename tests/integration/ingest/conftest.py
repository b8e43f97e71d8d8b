"""A migrated database on a real server, and events as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meterpost.ingest.checks import Checks
from meterpost.ingest.model import Submission
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal_writer import JournalWriter
from meterpost.testing.postgres import embedded_server, fresh_database


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(Path(tmp_path_factory.mktemp("pg"))) as dsn:
        yield dsn


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    with fresh_database(server) as dsn:
        opened = Database(dsn)
        opened.migrate()
        yield opened
        opened.dispose()


@pytest.fixture
def writer(database: Database) -> Iterator[JournalWriter]:
    started = JournalWriter(database)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def submission() -> Callable[..., Submission]:
    checks = Checks(metered={"t": ()})

    def make(*ids: str, source: str = "s", bad: int = 0) -> Submission:
        events = [{"specversion": "1.0", "id": one, "source": source, "type": "t"} for one in ids]
        broken = [{"specversion": "1.0", "id": "", "source": source, "type": "t"}] * bad
        return Submission(checks.batch(json.dumps(events + broken).encode()), "c1", "k1", "tp")

    return make
