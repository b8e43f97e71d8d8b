"""A workspace made by the command line alone, from `init` to a balanced period."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from meterpost.cli.app import app
from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server

MASTERDATA = """
legal_entities: [{id: acme, name: Acme GmbH, currency: EUR, zone: Europe/Vienna}]
accounting_periods:
  - {legal_entity: acme, id: 2025-10}
customers: [{id: initech, name: Initech, tax_category: domestic}]
items:
  - {id: tokens, name: Tokens, unit: token, revenue_account: "4000"}
contracts:
  - id: C-1
    customer: initech
    legal_entity: acme
    lines:
      - {id: L-1, meter: api-tokens, item: tokens, price: {model: per_unit, unit_price: "0.02"}}
subscriptions: [{id: S-1, contract: C-1}]
crosswalk:
  - {system: /files/requests, kind: subject, external_id: alpha, canonical_id: S-1}
  - {system: erp, kind: customer, external_id: C-100, canonical_id: initech}
  - {system: erp, kind: item, external_id: TOKENS, canonical_id: tokens}
  - {system: erp, kind: tax_category, external_id: VAT20, canonical_id: domestic}
  - {system: erp, kind: revenue_account, external_id: "4000", canonical_id: "4000"}
"""
LINES = [
    "timestamp,account,tokens,model",
    *(f"2025-10-{day:02d} 10:00:00,alpha,{day * 1000},small" for day in range(1, 29)),
    "2025-10-05 11:00:00,beta,5000,large",
    "2025-10-06 11:00:00,beta,7000,large",
    "nonsense,alpha,1,small",
]


@dataclass
class Workspace:
    """A folder, and the command line over it."""

    root: Path
    runner: CliRunner = field(default_factory=CliRunner)

    def run(self, *arguments: str, user: str | None = None) -> Result:
        """A command, whatever its end."""
        who = ["--as", user] if user else []
        return self.runner.invoke(
            app,
            [*arguments, *who, "--workspace", str(self.root)],
            env={"METERPOST_API_KEY": "", "METERPOST_USER": "ed", "COLUMNS": "200"},
        )

    def ok(self, *arguments: str, user: str | None = None) -> str:
        """What a command says that ends with 0."""
        result = self.run(*arguments, user=user)
        assert result.exit_code == 0, (arguments, result.stdout, result.stderr)
        return result.stdout

    def json(self, *arguments: str, user: str | None = None) -> Any:
        """The plain result of a command that ends with 0."""
        return json.loads(self.ok(*arguments, "--json", user=user))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder the embedded server's user can reach into, also where we are root."""
    made = Path(tempfile.mkdtemp(prefix="meterpost-cli-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def erp(folder: Path) -> Iterator[SandboxServer]:
    """A sandbox ERP whose periods are open."""
    with sandbox_server(folder / "erp") as server:
        months = [f"{year}-{month:02d}" for year in range(2025, 2036) for month in range(1, 13)]
        server.master("periods", *({"code": month, "state": "open"} for month in months))
        yield server


@pytest.fixture(scope="module")
def workspace(folder: Path, erp: SandboxServer) -> Iterator[Workspace]:
    """Made by `init`, with users, master data and usage; the server stays up meanwhile."""
    made = Workspace(folder / "ws")
    handlers = list(logging.getLogger().handlers)
    level = logging.getLogger().level
    started = made.runner.invoke(
        app, ["init", str(made.root), "--installation", "acme", "--user", "ed"]
    )
    assert started.exit_code == 0, (started.stdout, started.stderr)
    connection = made.root / "connections" / "erp.yaml"
    connection.write_text(connection.read_text().replace("http://127.0.0.1:8470", erp.url))
    token = made.root / "secrets" / "erp-token"
    token.touch(mode=0o600)
    token.write_text(erp.token)
    (made.root / "workflows" / "usage-billing.yaml").write_text(
        "name: usage-billing\npurpose: bill\nmeters: [api-tokens]\ntarget: erp\n"
        "approval: {role: approver}\n"
    )
    (made.root / "masterdata" / "all.yaml").write_text(MASTERDATA)
    (folder / "requests.csv").write_text("\n".join(LINES) + "\n")
    with EmbeddedPostgres(made.root / ".meterpost" / "pg"):
        made.ok("apply")
        made.ok("masterdata", "import", str(made.root / "masterdata" / "all.yaml"))
        for user, role in (("olga", "operator"), ("ada", "approver"), ("vera", "viewer")):
            made.ok("users", "create", user, "--role", role, "--key")
        yield made
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level)
