"""A real PostgreSQL server for a test session, and empty databases on it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from meterpost.storage.embedded import EmbeddedPostgres

#: A server given by URL (with a superuser's role) is used instead of an embedded one.
URL_VARIABLE = "METERPOST_TEST_POSTGRES_URL"


@contextmanager
def embedded_server(tmp_root: Path) -> Iterator[str]:
    """The superuser's URL of a fresh server, which is stopped and removed afterwards.

    Its settings are those of production, ``fsync`` included. Under root, whose temporary
    folders are closed to the server's user, the data goes to a folder beside them.
    """
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    root = Path(
        tempfile.mkdtemp(prefix="meterpost-test-", dir=None if os.geteuid() == 0 else tmp_root)
    )
    if os.geteuid() == 0:
        root.chmod(0o711)
    try:
        with EmbeddedPostgres(root / "pg", settings={"max_connections": "200"}) as server:
            yield server.admin_dsn()
    finally:
        shutil.rmtree(root)


@contextmanager
def fresh_database(dsn: str) -> Iterator[str]:
    """The URL of a new empty database, dropped afterwards with whoever is still connected.

    Its role owns the database and is no superuser, as in production.
    """
    name, password = f"test_{secrets.token_hex(6)}", secrets.token_urlsafe(16)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(password)
            )
        )
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(name)
            )
        )
    try:
        yield with_database(dsn, name, user=name, password=password)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def with_database(dsn: str, database: str, *, user: str, password: str) -> str:
    """The URL of another database on the same server, as another user."""
    parts = urlsplit(dsn)
    _, at, place = parts.netloc.rpartition("@")
    netloc = f"{quote(user)}:{quote(password, safe='')}@{place if at else parts.netloc}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{quote(database)}"))
