"""Which servers are trusted to keep what they acknowledge."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg import sql

from meterpost.core.errors import NeedsPerson
from meterpost.storage.embedded import require_durable
from meterpost.testing.postgres import fresh_database

pytestmark = pytest.mark.integration


def system_setting(admin_dsn: str, name: str, value: str | None) -> None:
    """Change a setting of the running server and wait until it holds."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        statement = "ALTER SYSTEM RESET {}" if value is None else "ALTER SYSTEM SET {} = " + value
        admin.execute(sql.SQL(statement).format(sql.Identifier(name)))
        admin.execute("SELECT pg_reload_conf()")
        wanted, deadline = value or "on", time.monotonic() + 10
        while time.monotonic() < deadline:
            with psycopg.connect(admin_dsn) as session:
                row = session.execute(f"SHOW {name}").fetchone()
            if row == (wanted,):
                return
            time.sleep(0.02)
    raise AssertionError(f"{name} did not become {wanted}")


def test_our_own_server_is_durable(admin_dsn: str) -> None:
    """The embedded server passes as it is started."""
    with psycopg.connect(admin_dsn) as connection:
        require_durable(connection)


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_each_setting_turned_off_is_refused(admin_dsn: str, name: str) -> None:
    """A server with one of the three off is refused, naming it and the statement that helps."""
    system_setting(admin_dsn, name, "off")
    try:
        with (
            psycopg.connect(admin_dsn) as connection,
            pytest.raises(NeedsPerson, match=rf'{name} = off.*ALTER SYSTEM SET "{name}" = on'),
        ):
            require_durable(connection)
    finally:
        system_setting(admin_dsn, name, None)


def test_what_a_role_or_database_sets_counts(admin_dsn: str) -> None:
    """Settings of the role or database are seen, with the fix for that very place."""
    with fresh_database(admin_dsn) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(
                    sql.Identifier(name)
                )
            )
        with (
            psycopg.connect(dsn) as connection,
            pytest.raises(NeedsPerson, match=f'ALTER DATABASE "{name}" RESET'),
        ):
            require_durable(connection)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} SET synchronous_commit = 'local'").format(
                    sql.Identifier(name)
                )
            )
        with psycopg.connect(dsn) as connection:
            require_durable(connection)
