"""A migrated database, and a master-data store in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.masterdata import PostgresMasterdata
from meterpost.testing.postgres import embedded_server, fresh_database


@pytest.fixture(scope="session")
def masterdata_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as admin, fresh_database(admin) as dsn:
        database = Database(dsn)
        database.migrate()
        yield database
        database.dispose()


@pytest.fixture
def connection(masterdata_database: Database) -> Iterator[Connection]:
    with masterdata_database.engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@pytest.fixture
def store(connection: Connection) -> PostgresMasterdata:
    return PostgresMasterdata(connection)
