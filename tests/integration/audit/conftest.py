"""A migrated database per test, on one server for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meterpost.storage.postgres.database import Database
from meterpost.testing.postgres import embedded_server, fresh_database


@pytest.fixture(scope="session")
def admin_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("server")) as dsn:
        yield dsn


@pytest.fixture
def database(admin_dsn: str) -> Iterator[Database]:
    with fresh_database(admin_dsn) as dsn:
        database = Database(dsn)
        database.migrate()
        yield database
        database.dispose()
