"""Company, books, products, customers and users in a fresh Tryton database.

Runs inside Tryton's own environment (never in meterpost's): the schema and the modules exist
already, this adds the data through proteus, Tryton's client library, and writes what it made as
JSON: ids, codes, logins, passwords, one REST key, a day of a closed period.

Usage: setup_database.py CONFIG DATABASE SETTINGS.json OUT.json
SETTINGS is {"years": [2025, 2026], "closed_year": 2025, "passwords": {login: password},
"products": [[code, name, unit, price]], "parties": [[code, name]]}.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from proteus import Model
from proteus import config as proteus_config

#: Groups of the person or program that writes invoices, and of one that may only see sales.
INVOICING = ("Accounting", "Party Administration", "Product Administration")
SALES_ONLY = ("Sales",)
#: Tryton's own unit counts whole pieces; metered quantities need decimals.
METERED_UNIT = "Metered unit"


class Marks:
    """Seconds since the start at each step, for the measured times."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str) -> None:
        """Note that the step has ended."""
        self.seconds[step] = round(time.monotonic() - self._started, 1)


def company_with_chart() -> tuple[Any, dict[str, Any]]:
    """The company (EUR) with the minimal chart of accounts, and its accounts by kind."""
    from trytond.modules.account.tests.tools import create_chart, get_accounts
    from trytond.modules.company.tests.tools import create_company, get_company
    from trytond.modules.currency.tests.tools import get_currency

    own = Model.get("party.party")(name="Meterpost Demo GmbH", code="OWN")
    own.save()
    create_company(party=own, currency=get_currency("EUR"))
    company = get_company()
    proteus_config.get_config()._context["company"] = company.id
    create_chart(company)
    return company, get_accounts(company)


def fiscal_years(company: Any, years: list[int], closed_year: int) -> dt.date:
    """Calendar years with invoice numbering; closes January to November of one of them.

    Returns: a day in a closed period.
    """
    from trytond.modules.account.tests.tools import create_fiscalyear
    from trytond.modules.account_invoice.tests.tools import set_fiscalyear_invoice_sequences

    for year in years:
        first, last = dt.date(year, 1, 1), dt.date(year, 12, 31)
        fiscal_year = create_fiscalyear(company, (first, last))
        fiscal_year.name, fiscal_year.start_date, fiscal_year.end_date = str(year), first, last
        set_fiscalyear_invoice_sequences(fiscal_year)
        fiscal_year.save()
        fiscal_year.click("create_period")
    periods = Model.get("account.period")
    closed = periods.find(
        [
            ("start_date", ">=", dt.date(closed_year, 1, 1)),
            ("end_date", "<", dt.date(closed_year, 12, 1)),
        ]
    )
    periods.click(closed, "close")
    return min(period.start_date for period in closed)


def vat(company: Any) -> Any:
    """A tax of 19 % on sales."""
    from trytond.modules.account.tests.tools import create_tax

    tax = create_tax(Decimal("0.19"), company)
    tax.name = tax.description = "VAT 19%"
    tax.save()
    return tax


def payment_term() -> Any:
    """Payable after 30 days."""
    term = Model.get("account.invoice.payment_term")(name="30 days")
    line = term.lines.new(type="remainder")
    if line.relativedeltas:
        line.relativedeltas[0].days = 30
    else:
        delta = Model.get("account.invoice.payment_term.line.delta")
        line.relativedeltas.append(delta(days=30))
    term.save()
    return term


def products(wanted: list[list[str]], accounts: dict[str, Any], tax: Any) -> dict[str, int]:
    """Service products by code, all in one accounting category with the tax."""
    category = Model.get("product.category")(
        name="Usage services",
        accounting=True,
        account_revenue=accounts["revenue"],
        account_expense=accounts["expense"],
    )
    category.customer_taxes.append(tax)
    category.save()
    template_model, uom_model = Model.get("product.template"), Model.get("product.uom")
    units = {uom.name: uom for uom in uom_model.find([])}
    metered = uom_model(name=METERED_UNIT, symbol="mu", category=units["Unit"].category)
    metered.factor = metered.rate = 1
    metered.digits, metered.rounding = 6, 0.000001
    metered.save()
    units[METERED_UNIT] = metered
    made: dict[str, int] = {}
    for code, name, unit, price in wanted:
        template = template_model(
            name=name,
            default_uom=units[unit],
            type="service",
            list_price=Decimal(price),
            account_category=category,
        )
        template.salable = True
        template.sale_uom = units[unit]
        template.code = code
        template.save()
        (product,) = template.products
        if product.code != code:
            raise SystemExit(f"product {code} was saved with code {product.code}")
        made[code] = product.id
    return made


def parties(wanted: list[list[str]], term: Any) -> dict[str, int]:
    """Customers by code, each with an invoice address and the payment term."""
    made: dict[str, int] = {}
    for code, name in wanted:
        party = Model.get("party.party")(name=name, code=code, customer_payment_term=term)
        address = party.addresses[0] if party.addresses else party.addresses.new()
        address.street, address.postal_code, address.city = "Main Street 1", "10115", "Berlin"
        party.save()
        made[code] = party.id
    return made


def user(login: str, password: str, groups: tuple[str, ...], company: Any) -> Any:
    """A person or program that may sign in and belongs to the groups."""
    group_model = Model.get("res.group")
    made = Model.get("res.user")(name=login.title(), login=login, password=password)
    # A proteus record belongs to one parent, so each user gets instances of its own.
    made.companies.append(type(company)(company.id))
    made.company = company
    for name in groups:
        (group,) = group_model.find([("name", "=", name)])
        made.groups.append(group)
    made.save()
    return made


def rest_key(owner: Any) -> str:
    """A key for Tryton's REST routes, valid at once."""
    application = Model.get("res.user.application")(user=owner, application="rest")
    application.save()
    if application.state == "requested":
        application.click("validate_")
    return str(application.key)


def main(config: str, database: str, settings_file: str, out: str) -> None:
    """Fill the database and write the ids."""
    settings = json.loads(Path(settings_file).read_text("utf-8"))
    mark = Marks()
    proteus_config.set_trytond(database, config_file=config)
    mark("pool")
    wizard_items = Model.get("ir.module.config_wizard.item")
    for item in wizard_items.find([("state", "!=", "done")]):
        item.state = "done"
        item.save()
    company, accounts = company_with_chart()
    mark("chart")
    closed_day = fiscal_years(company, settings["years"], settings["closed_year"])
    mark("fiscal years")
    tax, term = vat(company), payment_term()
    made_products = products(settings["products"], accounts, tax)
    made_parties = parties(settings["parties"], term)
    mark("master data")
    passwords = settings["passwords"]
    integration = user("integration", passwords["integration"], INVOICING, company)
    user("clerk", passwords["clerk"], INVOICING, company)
    user("salesonly", passwords["salesonly"], SALES_ONLY, company)
    (journal,) = Model.get("account.journal").find([("type", "=", "revenue")])
    document = {
        "company": company.id,
        "currency": {"code": company.currency.code, "id": company.currency.id},
        "accounts": {kind: account.id for kind, account in accounts.items()},
        "revenue_journal": journal.id,
        "tax": tax.id,
        "payment_term": term.id,
        "products": made_products,
        "parties": made_parties,
        "passwords": passwords,
        "rest_key": rest_key(integration),
        "closed_day": closed_day.isoformat(),
        "seconds": mark.seconds,
    }
    mark("users")
    Path(out).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
