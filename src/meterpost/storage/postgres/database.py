"""The way to the operational database: connections, transactions, schema version, COPY."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from meterpost.core.errors import Conflict, Transient
from meterpost.storage.tables import METADATA, SCHEMA

# Alembic is imported where it is used: every command opens a database, few migrate one.
if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent.parent / "migrations"


class Database:
    """One PostgreSQL database of ours (version 15 or later)."""

    def __init__(self, dsn: str, *, pool_size: int = 5, application: str = "meterpost") -> None:
        self.dsn = dsn
        self._application = application
        self.engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=self.raw_connection,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
        )

    def raw_connection(self, *, autocommit: bool = False) -> psycopg.Connection[Any]:
        """A psycopg connection outside the pool, for COPY and session locks.

        Raises: Transient when the server cannot be reached.
        """
        try:
            return psycopg.connect(
                self.dsn,
                autocommit=autocommit,
                application_name=self._application,
                connect_timeout=10,
                options="-c timezone=UTC -c lock_timeout=60s",
            )
        except psycopg.OperationalError as exc:
            raise Transient(
                f"PostgreSQL does not answer: {str(exc).strip().splitlines()[-1]}.",
                hint="Is `meterpost up` running, or the database URL right?",
                after_s=1.0,
            ) from exc

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed on leaving, rolled back on any exception.

        Raises: Transient when the connection breaks; what was written then is rolled back, or,
        if it broke in the commit itself, may stand: callers' writes are idempotent by key.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as exc:
            raise _broken(exc) from exc

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction that sees one state throughout."""
        try:
            with self.engine.connect() as connection:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    connection.execute(text("SET TRANSACTION READ ONLY"))
                    yield connection
        except OperationalError as exc:
            raise _broken(exc) from exc

    def migrate(self) -> Sequence[str]:
        """Bring the schema to this version's; the names of the steps that ran.

        Raises: Conflict when the database was migrated by a newer meterpost.
        """
        from alembic import command
        from alembic.script import ScriptDirectory

        config = self._alembic()
        with self.engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('meterpost.migrate'))"))
            before = self._revision(connection)
            scripts = ScriptDirectory.from_config(config)
            known = {script.revision for script in scripts.walk_revisions()}
            if before is not None and before not in known:
                raise Conflict(
                    f"The database is at schema {before}, which this meterpost does not know.",
                    hint="It was migrated by a newer version: install that one.",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            steps = [
                script.revision
                for script in scripts.iterate_revisions("head", before or "base")
                if script.revision != before
            ]
        return list(reversed(steps))

    def schema_is_current(self) -> bool:
        """Whether no migration is due."""
        from alembic.script import ScriptDirectory

        try:
            with self.engine.connect() as connection:
                head = ScriptDirectory.from_config(self._alembic()).get_current_head()
                return self._revision(connection) == head
        except OperationalError as exc:
            raise _broken(exc) from exc

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @staticmethod
    def _revision(connection: Connection) -> str | None:
        from alembic.runtime.migration import MigrationContext

        context = MigrationContext.configure(
            connection, opts={"version_table_schema": SCHEMA, "version_table": "schema_version"}
        )
        return context.get_current_revision()

    @staticmethod
    def _alembic() -> Config:
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        return config


def _broken(error: OperationalError) -> Transient:
    return Transient(f"The database connection failed: {str(error.orig).strip()}.", after_s=1.0)


def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> int:
    """Bulk-insert rows into a table of ours by COPY; how many there were.

    ``table`` and ``columns`` are names of our own tables, never input.
    """
    raw = _psycopg(connection)
    known = METADATA.tables[f"{SCHEMA}.{table}"].columns
    unknown = set(columns) - {column.name for column in known}
    if unknown:
        raise KeyError(f"{table} has no columns {sorted(unknown)}")
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
    statement = psycopg.sql.SQL("COPY {} ({}) FROM STDIN").format(
        psycopg.sql.Identifier(SCHEMA, table), names
    )
    count = 0
    with raw.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
            count += 1
    return count


def _psycopg(connection: Connection) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw
