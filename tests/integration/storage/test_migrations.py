"""A migrated database is the declared one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from meterpost.core.errors import Conflict
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables import METADATA, SCHEMA
from meterpost.testing.postgres import embedded_server, fresh_database

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("pg")) as dsn:
        yield dsn


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    with fresh_database(server) as dsn:
        database = Database(dsn)
        yield database
        database.dispose()


def test_a_migrated_database_equals_the_declared_tables(database: Database) -> None:
    """Autogenerate finds nothing to do after all migrations ran."""
    assert database.migrate() == ["0001_spine"]
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": SCHEMA,
                "version_table": "schema_version",
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            },
        )
        assert compare_metadata(context, METADATA) == []


def test_migrating_twice_does_nothing(database: Database) -> None:
    """The second run has no steps, and the schema counts as current."""
    database.migrate()
    assert database.migrate() == []
    assert database.schema_is_current()


def test_a_newer_database_is_refused(database: Database) -> None:
    """A schema this version does not know is left alone, with a sentence."""
    database.migrate()
    with database.begin() as connection:
        connection.execute(text("UPDATE meterpost.schema_version SET version_num = '9999_future'"))
    with pytest.raises(Conflict, match="9999_future"):
        database.migrate()


def test_the_frozen_sql_is_the_declared_tables(tmp_path: Path) -> None:
    """Changing a table without freezing the migration again is noticed without a database."""
    import subprocess
    import sys

    root = Path(__file__).parents[3]
    frozen = root / "src/meterpost/storage/migrations/versions/0001_spine.sql"
    made = subprocess.run(
        [sys.executable, root / "tools/freeze_schema.py"], capture_output=True, check=True
    )
    assert made.stdout == frozen.read_bytes()
