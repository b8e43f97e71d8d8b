"""A proposal with its dues, written as the document an ERP will be told.

The rounded amount is the truth: quantity × price is shown only where the ERP's own rounding
gives that amount, otherwise 1 × amount with the real quantity in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from meterpost.core.canonical import digest, plain_decimal
from meterpost.core.ids import TargetId
from meterpost.core.money import EXACT, minor_units, round_half_up
from meterpost.core.period import add_months
from meterpost.core.problem import Problem
from meterpost.posting.model import Document, DocumentLine, Precision
from meterpost.staging.model import Proposal, TransactionLine

#: Line texts longer than this are cut: the tightest common vendor field is wider.
DESCRIPTION_MAX = 200


@dataclass(frozen=True, slots=True)
class TargetNames:
    """The target's own ids of our things, as the crosswalk knows them, and its precision."""

    target: TargetId
    precision: Precision
    customers: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)
    tax_categories: Mapping[str, str] = field(default_factory=dict)
    revenue_accounts: Mapping[str, str] = field(default_factory=dict)
    payment_terms: Mapping[str, str] = field(default_factory=dict)


def render(
    proposal: Proposal,
    lines: tuple[TransactionLine, ...],
    unit_prices: Mapping[str, Decimal | None],
    names: TargetNames,
    config_digest: str,
    today: date,
) -> tuple[Document | None, tuple[Problem, ...]]:
    """The document for what is due, or the problems that keep it from being written.

    Lines with nothing due are left out. The posting day may lie from the last service day (or
    today, where that is earlier) to the end of the month after ``today``.
    """
    problems: list[Problem] = []
    used: dict[str, str] = {}

    def name(kind: str, table: Mapping[str, str], ours: str | None) -> str | None:
        if ours is None:
            return None
        theirs = table.get(ours)
        if theirs is None:
            problems.append(
                Problem(
                    f"unmapped-{kind.replace(' ', '-')}",
                    f"{names.target} has no {kind} for {ours}.",
                    where=f"crosswalk {names.target}/{kind.replace(' ', '_')}/{ours}",
                    hint=f"Link it: meterpost crosswalk link {names.target} "
                    f"{kind.replace(' ', '_')} THEIR_ID {ours}",
                )
            )
            return None
        used[f"{kind}/{ours}"] = theirs
        return theirs

    customer = name("customer", names.customers, proposal.customer)
    document_lines: list[DocumentLine] = []
    for line in lines:
        if line.due == 0:
            continue
        item = name("item", names.items, line.item)
        account = name("revenue account", names.revenue_accounts, line.revenue_account)
        tax_code = name("tax category", names.tax_categories, line.tax_category)
        if line.tax_category is None:
            problems.append(
                Problem(
                    "missing-tax-category",
                    f"Contract line {line.line} has no tax category.",
                    where=f"contract line {line.line}",
                    hint="Set it on the line, its item or the customer.",
                )
            )
        quantity, unit_price, shown = _quantity_and_price(
            line, unit_prices.get(line.line), proposal.currency, names.precision
        )
        first, last = line.service.local_days(proposal.zone)
        document_lines.append(
            DocumentLine(
                ordinal=len(document_lines) + 1,
                reference=line.line,
                item=item or "",
                description=_description(line, shown),
                quantity=quantity,
                unit_price=unit_price,
                amount=line.due,
                account=account,
                tax_code=tax_code,
                service_from=first,
                service_to=last,
            )
        )
    payment_term = name("payment term", names.payment_terms, proposal.payment_term)
    if problems or customer is None:
        return None, tuple(dict.fromkeys(problems))
    first, last = proposal.period.local_days(proposal.zone)
    return (
        Document(
            connection=proposal.target,
            kind=proposal.kind,
            customer=customer,
            currency=proposal.currency,
            description=f"Usage {first.isoformat()} to {last.isoformat()}, {proposal.business_key}",
            lines=tuple(document_lines),
            net=sum((line.amount for line in document_lines), Decimal(0)),
            date_from=min(last, today),
            date_to=add_months(today.replace(day=1), 2) - timedelta(days=1),
            payment_term=payment_term,
            mapping_digest=digest(used),
            config_digest=config_digest,
        ),
        (),
    )


def _quantity_and_price(
    line: TransactionLine, unit_price: Decimal | None, currency: str, precision: Precision
) -> tuple[Decimal, Decimal, bool]:
    """Quantity, unit price, and whether they show the real ones."""
    if (
        unit_price is not None
        and line.held == 0
        and line.due == line.amount
        and line.charged != 0
        and _fits(line.charged, precision.quantity_decimals)
        and _fits(unit_price, precision.price_decimals)
        and _rounds_alike(line.charged * unit_price, minor_units(currency), line.due)
    ):
        return line.charged, unit_price, True
    # A credit is a negative quantity at a positive price: the form every ERP takes.
    return Decimal(1 if line.due > 0 else -1), abs(line.due), False


def _rounds_alike(exact: Decimal, decimals: int, amount: Decimal) -> bool:
    """Whether every way an ERP rounds halves gives the amount."""
    even = exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN, EXACT)
    return round_half_up(exact, decimals) == even == amount


def _fits(value: Decimal, decimals: int | None) -> bool:
    return decimals is None or round_half_up(value, decimals) == value


def _description(line: TransactionLine, shown: bool) -> str:
    quantity = f"{plain_decimal(line.quantity)} {line.unit}"
    text = line.description
    if line.held != 0:
        text += f": {quantity} in all, difference to {plain_decimal(line.held)} billed before"
    elif not shown and line.meter is not None:
        text += f": {quantity}"
    elif line.included:
        text += f": {quantity}, {plain_decimal(line.included)} included"
    return text[:DESCRIPTION_MAX]
