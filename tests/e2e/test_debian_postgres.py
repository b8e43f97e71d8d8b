"""A database URL: the whole product on Debian's PostgreSQL, and when it is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from meterpost.core.errors import NeedsPerson
from meterpost.testing.debian_postgres import (
    DebianServer,
    debian_programs,
    debian_server,
    ensure_debian_programs,
)
from meterpost.testing.postgres import fresh_database
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server

pytestmark = pytest.mark.e2e

VARIABLE = "SOMEBODY_ELSES_DATABASE"
MASTERDATA = """
legal_entities: [{id: acme, name: Acme GmbH, currency: EUR, zone: Europe/Vienna}]
accounting_periods: [{legal_entity: acme, id: 2026-10}]
customers: [{id: initech, name: Initech, tax_category: domestic}]
items: [{id: tokens, name: Tokens, unit: token, revenue_account: "4000"}]
contracts:
  - id: C-1
    customer: initech
    legal_entity: acme
    lines:
      - {id: L-1, meter: api-tokens, item: tokens, price: {model: per_unit, unit_price: "0.02"}}
subscriptions: [{id: S-1, contract: C-1}]
crosswalk:
  - {system: test, kind: subject, external_id: s, canonical_id: S-1}
  - {system: erp, kind: customer, external_id: C-100, canonical_id: initech}
  - {system: erp, kind: item, external_id: TOKENS, canonical_id: tokens}
  - {system: erp, kind: tax_category, external_id: VAT20, canonical_id: domestic}
  - {system: erp, kind: revenue_account, external_id: "4000", canonical_id: "4000"}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[DebianServer]:
    with debian_server() as made:
        yield made


@pytest.fixture
def database(server: DebianServer) -> Iterator[str]:
    with fresh_database(server.url) as dsn:
        yield dsn


@pytest.fixture
def erp(tmp_path: Path) -> Iterator[SandboxServer]:
    with sandbox_server(tmp_path / "erp") as made:
        months = [f"{year}-{month:02d}" for year in range(2026, 2036) for month in range(1, 13)]
        made.master("periods", *({"code": month, "state": "open"} for month in months))
        yield made


@pytest.fixture
def there(
    tmp_path: Path,
    database: str,
    commands_here: None,
    installation_in: Callable[[Path], AbstractContextManager[Any]],
) -> Iterator[Any]:
    """A new workspace on Debian's server by `init --database-env`; its administrator is ed."""
    with installation_in(tmp_path / "ws") as made:
        made.user = "ed"
        made.environment[VARIABLE] = database
        made.ok("init", str(made.root), "--user", "ed", "--database-env", VARIABLE)
        yield made


def test_a_month_on_somebody_elses_server(there: Any, erp: SandboxServer) -> None:
    """Events over HTTP, a close, a posting, late events after a restart: unexplained=0."""
    prepare(there, erp)
    up = there.up()
    configure(there)
    there.send(300)
    closed = there.json("close", "run", "2026-10", user="olga")
    assert closed["staging"]["staged"] == {"in_review": 1}
    there.ok("tx", "approve", "--all", "--yes", user="ada")
    posted = there.json("post", "run", "erp", "--seconds", "30", user="olga")
    assert posted["connections"][0]["left"] == {}
    assert last_line(there.ok("balance", "2026-10")) == "unexplained=0"
    said = there.down(up)
    assert "postgres is ready" not in said
    assert f"environment variable {VARIABLE}" in said

    up = there.up()
    there.send(200)
    there.json("close", "run", "2026-10", "--ask", "late", user="olga")
    there.ok("tx", "approve", "--all", "--yes", user="ada")
    there.json("post", "run", "erp", "--seconds", "30", user="olga")
    assert there.json("reconcile", user="olga")["clean"] is True
    assert [row["due"] for row in there.json("tx", "list")["items"]] == ["8", "12"]
    assert last_line(there.ok("balance", "2026-10")) == "unexplained=0"
    there.down(up)
    assert there.stored() == there.sent == 500
    assert not (there.root / ".meterpost" / "pg").exists()


def prepare(there: Any, erp: SandboxServer) -> None:
    connection = there.root / "connections" / "erp.yaml"
    connection.write_text(connection.read_text().replace("http://127.0.0.1:8470", erp.url))
    token = there.root / "secrets" / "erp-token"
    token.touch(mode=0o600)
    token.write_text(erp.token)
    (there.root / "workflows" / "usage-billing.yaml").write_text(
        "name: usage-billing\npurpose: bill\nmeters: [api-tokens]\ntarget: erp\n"
        "approval: {role: approver}\n"
    )
    (there.root / "masterdata" / "all.yaml").write_text(MASTERDATA)


def configure(there: Any) -> None:
    there.ok("apply")
    there.ok("masterdata", "import", str(there.root / "masterdata" / "all.yaml"))
    for user, role in (("olga", "operator"), ("ada", "approver")):
        there.ok("users", "create", user, "--role", role, "--key")
    there.token = there.json("keys", "create", "--scope", "events:write")["token"]


def last_line(text: str) -> str:
    return text.rstrip().splitlines()[-1]


def test_init_names_the_variable_and_never_its_value(there: Any, database: str) -> None:
    """The settings refer to the variable; no file of the workspace holds the URL."""
    assert f"url: {{env: {VARIABLE}}}" in (there.root / "meterpost.yaml").read_text()
    files = [path for path in there.root.rglob("*") if path.is_file()]
    assert not [path for path in files if database.encode() in path.read_bytes()]
    assert there.json("db", "url") == {"url": database}
    assert there.ok("db", "url").strip() == database


def test_init_without_the_variable_writes_nothing(there: Any, tmp_path: Path) -> None:
    """The sentence names the variable, and the same command works once it is set."""
    folder = tmp_path / "second"
    said = there.refused(5, "init", str(folder), "--database-env", "NOT_SET_ANYWHERE")
    assert "environment variable NOT_SET_ANYWHERE is not set" in said
    assert not folder.exists()


def test_a_database_without_our_schema_is_migrated_by_command(
    there: Any, server: DebianServer
) -> None:
    """`up` refuses and names `db migrate`; that names its steps once, and then has none."""
    with fresh_database(server.url) as empty:
        there.environment[VARIABLE] = empty
        refused = there.command("up")
        output, _ = refused.communicate(timeout=60)
        assert refused.returncode == 5, output
        assert "meterpost db migrate" in output
        migrate = there.command("db", "migrate")
        output, _ = migrate.communicate(timeout=60)
        assert migrate.returncode == 0, output
        assert output.startswith("Migrated: ")
        assert there.json("db", "migrate") == {"steps": []}
        assert "this version's already" in there.ok("db", "migrate")


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync", "full_page_writes"])
def test_a_server_that_may_lose_data_is_refused(
    there: Any, server: DebianServer, setting: str
) -> None:
    """`up` ends with 5, names the setting and the statement that mends it; nothing is started."""
    with turned_off(server, setting):
        output = there.refused(5, "up")
    assert f"runs with {setting} = off" in output
    assert f'ALTER SYSTEM SET "{setting}" = on' in output
    assert "is ready" not in output


@contextmanager
def turned_off(server: DebianServer, setting: str) -> Iterator[None]:
    name = sql.Identifier(setting)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(name))
        reloaded(admin, server, setting, "off")
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER SYSTEM SET {} = on").format(name))
            reloaded(admin, server, setting, "on")


def reloaded(admin: Any, server: DebianServer, setting: str, value: str) -> None:
    """Return once new sessions see the value."""
    admin.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + 30
    while True:
        with psycopg.connect(server.url) as fresh:
            row = fresh.execute("SELECT current_setting(%s)", (setting,)).fetchone()
        if row == (value,):
            return
        assert time.monotonic() < deadline, f"{setting} does not become {value}"
        time.sleep(0.05)


def test_the_server_is_debians_and_asks_for_a_password(server: DebianServer) -> None:
    """Not our embedded build; a wrong password is refused."""
    assert server.version >= 15
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT version()").fetchone()
        assert row is not None
        assert "Debian" in row[0] or "Ubuntu" in row[0]
    before, _, after = server.url.rpartition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{before}x@{after}")


def test_programs_too_old_or_missing_are_named(tmp_path: Path) -> None:
    """Without root's rights the sentence says what is there and what to install."""
    with pytest.raises(NeedsPerson, match=r"holds no PostgreSQL 15 or newer\."):
        ensure_debian_programs(tmp_path / "nowhere", may_install=False)
    made(tmp_path, "9", "14")
    with pytest.raises(NeedsPerson, match=r"only 9, 14\.") as refusal:
        ensure_debian_programs(tmp_path, may_install=False)
    assert "apt-get install postgresql" in str(refusal.value)
    made(tmp_path, "15", "17")
    assert debian_programs(tmp_path) == (17, tmp_path / "17" / "bin")


def test_missing_programs_are_installed_once(tmp_path: Path) -> None:
    """The installer runs where programs are missing; one that fails is quoted."""
    installer, root = tmp_path / "installer", tmp_path / "postgresql"
    log = tmp_path / "log"
    installer.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f"[ $1 = update ] && exit 100\nmkdir -p {root}/15/bin\n"
        f"touch {root}/15/bin/initdb {root}/15/bin/postgres\n"
    )
    installer.chmod(0o755)
    for _ in range(2):
        found = ensure_debian_programs(root, installer=str(installer), may_install=True)
        assert found == (15, root / "15" / "bin")
    assert log.read_text().splitlines()[0] == "update"
    assert len(log.read_text().splitlines()) == 2
    installer.write_text("#!/bin/sh\necho E: no such package\nexit 100\n")
    with pytest.raises(NeedsPerson, match="E: no such package"):
        ensure_debian_programs(tmp_path / "other", installer=str(installer), may_install=True)


def made(root: Path, *versions: str) -> None:
    for version in versions:
        programs = root / version / "bin"
        programs.mkdir(parents=True)
        for name in ("initdb", "postgres"):
            (programs / name).touch()
