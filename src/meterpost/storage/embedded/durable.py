"""The check that a PostgreSQL server, embedded or not, keeps what it acknowledges."""

from __future__ import annotations

import psycopg
from psycopg import sql

from meterpost.core.errors import NeedsPerson

VERSION_MIN = 15
#: Without any of these a crash can lose or tear transactions that were reported committed.
_NEEDED = ("fsync", "full_page_writes", "synchronous_commit")


def require_durable(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Return where the server is new enough and its commits survive a crash.

    The settings are read as they hold in this very session, so what a role or a database sets
    counts too. ``synchronous_commit`` may have any value but ``off``: all others wait for the
    local disk.

    Raises: NeedsPerson naming the setting, its value, where it comes from, and the fix.
    """
    version = connection.info.server_version // 10_000
    if version < VERSION_MIN:
        raise NeedsPerson(
            f"The database server is PostgreSQL {version}; meterpost needs {VERSION_MIN} or newer.",
            hint="Upgrade the server, or leave out the database URL to use the embedded one.",
        )
    rows = connection.execute(
        "SELECT name, setting, source, current_database(), session_user"
        " FROM pg_catalog.pg_settings WHERE name = ANY(%s) ORDER BY name",
        (list(_NEEDED),),
    ).fetchall()
    found = {str(name): row for name, *row in rows}
    for name in _NEEDED:
        setting, source, database, role = map(str, found[name])
        if setting == "off":
            raise NeedsPerson(
                f"The database server runs with {name} = {setting} (set by: {source}): a crash "
                "would lose or damage what it has acknowledged.",
                hint=f"Set it with `{_fix(name, source, database, role, connection)}`, "
                "then start again.",
            )


def _fix(
    name: str,
    source: str,
    database: str,
    role: str,
    connection: psycopg.Connection[tuple[object, ...]],
) -> str:
    """The statement that undoes the setting where it was made."""
    words = {
        "name": sql.Identifier(name),
        "database": sql.Identifier(database),
        "role": sql.Identifier(role),
    }
    match source:
        case "database":
            statement = sql.SQL("ALTER DATABASE {database} RESET {name}")
        case "user":
            statement = sql.SQL("ALTER ROLE {role} RESET {name}")
        case "database user":
            statement = sql.SQL("ALTER ROLE {role} IN DATABASE {database} RESET {name}")
        case "session" | "client":
            statement = sql.SQL("SET {name} = on")
        case _:
            statement = sql.SQL("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()")
    return statement.format(**words).as_string(connection)
