"""The workspace that kills happen in: one meter's worth of everything, and many contracts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from meterpost.access.model import Role, Scope
from meterpost.bootstrap import Application
from meterpost.config import open_workspace
from meterpost.config.workspace import Workspace
from meterpost.core.ids import UserId
from meterpost.masterdata.importing import import_files
from meterpost.testing.kills import books
from meterpost.testing.sandbox_erp import SandboxServer

ENTITY, CONNECTION, CLOSER = "acme", "erp", "carol"

_SETTINGS = """
installation: kills
environment: sandbox
database: embedded
edge: {{host: 127.0.0.1, port: {port}}}
engine: {{memory_limit: 256MB, threads: 1}}
logging: {{level: info, format: json}}
"""
_METERS = f"""
- {{id: tokens, event_type: {books.EVENT_TYPE}, aggregation: sum, unit: token, value: data.tokens}}
- {{id: calls, event_type: {books.EVENT_TYPE}, aggregation: count, unit: call}}
"""
_EVENTS = f"type: {books.EVENT_TYPE}\n"
_WORKFLOW = f"""
name: usage-billing
purpose: bill
meters: [tokens, calls]
target: {CONNECTION}
approval: {{automatic_up_to: 100000000.00, role: approver}}
late: delta
"""
#: Short, so that absence is certain soon and a kill does not cost a minute of waiting.
_CONNECTION = """
connector: sandbox
environment: sandbox
url: {url}
secrets:
  token: {{file: secrets/erp-token}}
timeout_s: 3
lease_s: 2
request_limit_s: 1
margin_s: 0.5
"""


def write_workspace(root: Path, erp: SandboxServer) -> Workspace:
    """A checked workspace at ``root`` whose connection leads to the sandbox ERP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, text in {
        "meterpost.yaml": _SETTINGS.format(port=port),
        "events/call.yaml": _EVENTS,
        "meters/call.yaml": _METERS,
        "workflows/usage-billing.yaml": _WORKFLOW,
        f"connections/{CONNECTION}.yaml": _CONNECTION.format(url=erp.url),
        "secrets/erp-token": erp.token,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.strip() + "\n")
    (root / "secrets/erp-token").chmod(0o600)
    return open_workspace(root)


def furnish(app: Application, contracts: Sequence[str], month: books.Month) -> str:
    """People, an API key (returned) and master data, in an empty database."""
    app.database.migrate()
    now = app.clock.now()
    roles = {Role.ENGINEER, Role.OPERATOR, Role.VIEWER}
    user = app.access.first_administrator(CLOSER, "Carol", now, roles)
    person = app.access.person(UserId(user.id))
    key = app.access.create_key(person, user.id, {Scope.EVENTS_WRITE}, now)
    path = app.workspace.root / "masterdata.yaml"
    path.write_text(json.dumps(_masterdata(contracts, month)))  # JSON is YAML
    with app.masterdata_store() as store:
        report = import_files(store, [path], actor=CLOSER, now=now)
    if report.refused:
        raise ValueError(f"the master data of the kills is refused: {report.refused}")
    return str(key.token)


def furnish_erp(erp: SandboxServer, contracts: Sequence[str], now: datetime) -> None:
    """Customers, items and open periods in the sandbox."""
    erp.master("customers", *({"code": _customer(each), "currency": "EUR"} for each in contracts))
    for item in ("TOKENS", "CALLS", "FEE"):
        erp.master("items", {"code": item, "unit": "unit", "account": "4000", "tax_code": "VAT20"})
    months = {f"{now + timedelta(days=30 * step):%Y-%m}" for step in range(-3, 4)}
    erp.master("periods", *({"code": code} for code in sorted(months)))


def contract_of(customer: str) -> str:
    """The contract of a customer in the ERP; each customer has one."""
    return customer.removeprefix("E-")


def _customer(contract: str) -> str:
    return f"E-{contract}"


def _masterdata(contracts: Sequence[str], month: books.Month) -> Mapping[str, object]:
    return {
        "legal_entities": [{"id": ENTITY, "name": "Acme", "currency": "EUR", "zone": "UTC"}],
        "accounting_periods": [{"legal_entity": ENTITY, "id": month.name}],
        "customers": [
            {"id": f"customer-{each}", "name": each, "tax_category": "domestic"}
            for each in contracts
        ],
        "items": [
            {"id": "tokens", "name": "Tokens", "unit": "token"},
            {"id": "calls", "name": "Calls", "unit": "call"},
            {"id": "fee", "name": "Fee", "unit": "month"},
        ],
        "contracts": [_contract(each) for each in contracts],
        "subscriptions": [{"id": f"S-{each}", "contract": each} for each in contracts],
        "crosswalk": list(_crosswalk(contracts)),
    }


def _contract(name: str) -> Mapping[str, object]:
    tiers = [
        {"up_to": books.CALLS_BEFORE, "unit_price": str(books.CALL_PRICE_BEFORE)},
        {"unit_price": str(books.CALL_PRICE_AFTER)},
    ]
    per_token = {
        "model": "per_unit",
        "included": str(books.INCLUDED),
        "unit_price": str(books.TOKEN_PRICE),
    }
    fee = {"model": "flat", "flat_amount": str(books.FEE)}
    return {
        "id": name,
        "customer": f"customer-{name}",
        "legal_entity": ENTITY,
        "lines": [
            {"id": f"{name}/tokens", "meter": "tokens", "item": "tokens", "price": per_token},
            {
                "id": f"{name}/calls",
                "meter": "calls",
                "item": "calls",
                "price": {"model": "graduated", "tiers": tiers},
            },
            {"id": f"{name}/fee", "item": "fee", "price": fee},
        ],
    }


def _crosswalk(contracts: Sequence[str]) -> Iterator[Mapping[str, str]]:
    def link(system: str, kind: str, external: str, ours: str) -> Mapping[str, str]:
        return {"system": system, "kind": kind, "external_id": external, "canonical_id": ours}

    for each in contracts:
        yield link(books.SOURCE, "subject", each, f"S-{each}")
        yield link(CONNECTION, "customer", _customer(each), f"customer-{each}")
    for item in ("tokens", "calls", "fee"):
        yield link(CONNECTION, "item", item.upper(), item)
    yield link(CONNECTION, "tax_category", "VAT20", "domestic")
