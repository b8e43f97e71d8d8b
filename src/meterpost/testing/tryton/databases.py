"""Tryton databases: built once, kept as a dump, copied from a template in a moment.

Building takes a minute or two: Tryton creates its tables, then the set-up script adds company,
books, products and customers. The result is dumped to a file of about one megabyte whose name
carries a digest of all that went into it. On a server that has not seen it, the dump is restored
to a template database (two seconds); every database after that is a copy (a third of a second).
"""

from __future__ import annotations

import json
import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from meterpost.core.errors import InvalidInput, Permanent
from meterpost.storage.embedded.binaries import clean_environment, wheel_binaries
from meterpost.testing.tryton.environment import TOOLS, TrytonInstall, file_digest, locked, run

#: Code, name, unit, list price. The first four exercise units; the rest are the demo's.
PRODUCTS = (
    ("USE-HOUR", "Machine operating hour", "Hour", "42.50"),
    ("USE-UNIT", "Produced unit", "Unit", "0.12"),
    ("USE-RENT", "Equipment rental day", "Unit", "95.00"),
    ("SRV-TECH", "Technician hour", "Hour", "88.00"),
    ("LLM-REQ", "LLM requests", "Metered unit", "0.0020"),
    ("LLM-TOK-IN", "LLM input tokens", "Metered unit", "0"),
    ("LLM-TOK-OUT", "LLM output tokens", "Metered unit", "0"),
    ("WEB-REQ", "Web requests", "Metered unit", "0.0010"),
    ("WEB-GB", "Web traffic in GB", "Metered unit", "0.08"),
    ("BASE-FEE", "Base fee", "Metered unit", "49.00"),
)
PARTIES = (
    ("C-1001", "Alpha Bau AG"),
    ("C-1002", "Beta Logistik GmbH"),
    ("C-1003", "Gamma Werke KG"),
)
#: Years of the demo's real input, beside the present and the previous one.
DEMO_YEARS = (2015, 2023)
MODULES = ("account_invoice", "account_product", "sale")

BUILD_TIMEOUT_S = 900
COMMAND_TIMEOUT_S = 180
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LOCK_NUMBER = 7_310_551  # one advisory lock per server, held while a template is made


@dataclass(frozen=True, slots=True)
class TrytonDatabase:
    """A database with the set-up data; ``ids`` is what the set-up script wrote."""

    name: str
    uri: str
    ids: Mapping[str, Any]

    def password(self, login: str) -> str:
        """The password of ``integration``, ``clerk`` or ``salesonly``."""
        return str(self.ids["passwords"][login])

    def __repr__(self) -> str:
        return f"TrytonDatabase({self.name!r})"


def create_database(
    install: TrytonInstall, admin_dsn: str, name: str, *, today: datetime | None = None
) -> TrytonDatabase:
    """A new database with the set-up data, on the server of ``admin_dsn`` (a superuser's URL).

    ``today`` decides which years have books; the present moment where not given.

    Raises: InvalidInput for a name that Tryton's URLs could not carry; Permanent where building
    fails or the database exists already.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no database name; use small letters, digits and _.")
    year = (today or datetime.now(UTC)).year
    dump = install.folder / f"tryton-{_digest(year)[:12]}.dump"
    ids_file = dump.with_suffix(".json")
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_advisory_lock(%s)", (_LOCK_NUMBER,))
        with locked(install.folder / "template.lock"):
            if not dump.exists() or not ids_file.exists():
                _build(install, admin, admin_dsn, dump, year)
        # Named after the dump's bytes: a server that outlives the dump holds a template of
        # other passwords, which must not be taken for this one.
        template = f"tryton_template_{file_digest([dump, ids_file])[:12]}"
        if not _exists(admin, template):
            _restore_template(admin, admin_dsn, dump, template)
        if _exists(admin, name):
            raise Permanent(f"The database {name} exists already.", hint="Drop it first.")
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        admin.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_NUMBER,))
    return TrytonDatabase(name, _server_uri(admin_dsn), json.loads(ids_file.read_text("utf-8")))


def drop_database(admin_dsn: str, name: str) -> None:
    """Remove the database with whoever is still connected; a missing one is fine."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


def write_configuration(install: TrytonInstall, uri: str, folder: Path) -> Path:
    """Tryton's configuration file for that server, readable by its owner only."""
    text = (TOOLS / "trytond.conf.in").read_text("utf-8")
    files = folder / "files"
    files.mkdir(mode=0o700, exist_ok=True)
    path = folder / "trytond.conf"
    path.touch(mode=0o600)
    path.write_text(text.replace("@URI@", uri).replace("@PATH@", str(files)), "utf-8")
    return path


def _digest(year: int) -> str:
    files = [TOOLS / "requirements.lock", TOOLS / "setup_database.py"]
    return file_digest(files, json.dumps([year, PRODUCTS, PARTIES, DEMO_YEARS, MODULES, 1]))


def _restore_template(
    admin: psycopg.Connection[tuple[Any, ...]], admin_dsn: str, dump: Path, template: str
) -> None:
    """Make the template from its dump; it gets its name only once it is whole."""
    unfinished = f"tryton_restore_{secrets.token_hex(6)}"
    _create_empty(admin, unfinished)
    try:
        _restore(admin_dsn, unfinished, dump)
        _rename(admin, unfinished, template)
    except BaseException:
        _drop(admin, unfinished)
        raise


def _build(
    install: TrytonInstall,
    admin: psycopg.Connection[tuple[Any, ...]],
    admin_dsn: str,
    dump: Path,
    year: int,
) -> None:
    """Create the tables, run the set-up script, dump the database and the ids beside it."""
    started = time.monotonic()
    name = f"tryton_build_{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(dir=install.folder, prefix="build-") as temporary:
        folder = Path(temporary)
        config = write_configuration(install, _server_uri(admin_dsn), folder)
        admin_password = folder / "admin-password"
        admin_password.touch(mode=0o600)
        admin_password.write_text(secrets.token_urlsafe(18))
        settings = folder / "settings.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(_settings(year)), "utf-8")
        _create_empty(admin, name)
        try:
            run(
                [
                    *(install.program("trytond-admin"), "-c", str(config), "-d", name),
                    *("-u", *MODULES, "--activate-dependencies"),
                    *("--email", "admin@example.invalid"),
                ],
                timeout_s=BUILD_TIMEOUT_S,
                environment={"TRYTONPASSFILE": str(admin_password)},
            )
            tables_s = time.monotonic() - started
            ids_file = folder / "ids.json"
            run(
                [
                    *(install.program("python"), str(TOOLS / "setup_database.py")),
                    *(str(config), name, str(settings), str(ids_file)),
                ],
                timeout_s=BUILD_TIMEOUT_S,
            )
            data = folder / "database.dump"
            run(
                [
                    *(_postgres_program("pg_dump"), "--format=custom", "--no-owner"),
                    *(f"--file={data}", f"--dbname={_database_url(admin_dsn, name)}"),
                ],
                timeout_s=COMMAND_TIMEOUT_S,
                environment=_postgres_environment(admin_dsn),
            )
            ids = json.loads(ids_file.read_text("utf-8"))
            ids["seconds"] |= {"tables": tables_s, "all": time.monotonic() - started}
            target = dump.with_suffix(".json")
            target.touch(mode=0o600)
            target.write_text(json.dumps(ids, indent=1) + "\n", "utf-8")
            data.replace(dump)
        finally:
            _drop(admin, name)


def _settings(year: int) -> dict[str, Any]:
    logins = ("integration", "clerk", "salesonly")
    return {
        "years": sorted({*DEMO_YEARS, year - 1, year}),
        "closed_year": year - 1,
        "passwords": {login: secrets.token_urlsafe(12) for login in logins},
        "products": PRODUCTS,
        "parties": PARTIES,
    }


def _restore(admin_dsn: str, name: str, dump: Path) -> None:
    # An older server does not know every setting that a newer pg_dump writes at the top of its
    # script; with no other error the data is whole, so the script is filtered, not excused.
    with tempfile.TemporaryDirectory(dir=dump.parent, prefix="restore-") as temporary:
        script = Path(temporary) / "restore.sql"
        run(
            [_postgres_program("pg_restore"), "--no-owner", f"--file={script}", str(dump)],
            timeout_s=COMMAND_TIMEOUT_S,
            environment=clean_environment(),
        )
        lines = script.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("SET transaction_timeout")]
        script.write_text("".join(kept), "utf-8")
        run(
            [
                *(_postgres_program("psql"), "--no-psqlrc", "--quiet", "--single-transaction"),
                *("--output=/dev/null", "--set=ON_ERROR_STOP=1", f"--file={script}"),
                f"--dbname={_database_url(admin_dsn, name)}",
            ],
            timeout_s=COMMAND_TIMEOUT_S,
            environment=_postgres_environment(admin_dsn),
        )


def _postgres_environment(admin_dsn: str) -> dict[str, str]:
    """With the password, which a command line would show to everybody."""
    password = unquote(urlsplit(admin_dsn).password or "")
    return clean_environment() | ({"PGPASSWORD": password} if password else {})


def _postgres_program(name: str) -> str:
    return str(wheel_binaries(18).program(name))


def _server_uri(admin_dsn: str) -> str:
    """The URL without a database: Tryton puts each name in; a socket stays in the query."""
    return urlunsplit(urlsplit(admin_dsn)._replace(scheme="postgresql", path="/"))


def _database_url(admin_dsn: str, name: str) -> str:
    """The URL of one database, without the password."""
    parts = urlsplit(admin_dsn)
    login, at, place = parts.netloc.rpartition("@")
    netloc = f"{login.partition(':')[0]}{at}{place}"
    return urlunsplit(parts._replace(scheme="postgresql", netloc=netloc, path=f"/{name}"))


def _exists(admin: psycopg.Connection[tuple[Any, ...]], name: str) -> bool:
    found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
    return found is not None


def _create_empty(admin: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
    admin.execute(
        sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(
            sql.Identifier(name)
        )
    )


def _rename(admin: psycopg.Connection[tuple[Any, ...]], old: str, new: str) -> None:
    admin.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
    )


def _drop(admin: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def parties_from_file(path: Path) -> Sequence[tuple[str, str]]:
    """Codes and names of customers from a JSON file: ``[{"code": ..., "name": ...}]``.

    Raises: InvalidInput naming the entry that has no code or name.
    """
    entries = json.loads(path.read_text("utf-8"))
    found: list[tuple[str, str]] = []
    for n, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        if not isinstance(entry, dict) or not entry.get("code") or not entry.get("name"):
            raise InvalidInput(f"{path}, entry {n}: a customer needs a code and a name.")
        found.append((str(entry["code"]), str(entry["name"])))
    return found
