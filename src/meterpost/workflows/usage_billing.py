"""Usage-based invoicing: one document per contract and billing period, with its lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from meterpost.core.errors import InvalidInput
from meterpost.core.ids import CloseId, LegalEntityId, UsageRecordId
from meterpost.core.money import EXACT, minor_units, round_half_up
from meterpost.masterdata.resolution import BillingLine
from meterpost.rating.model import Charge, Price, PriceModel, rate, usage_split
from meterpost.staging.model import Finding, Proposal, ProposedLine
from meterpost.workflows.model import Workflow
from meterpost.workflows.records import Fate, UsageDraft

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class BilledLine:
    """A billing line with its usage and its charge, or the sentence why it has none."""

    billing: BillingLine
    draft: UsageDraft
    charge: Charge | None
    problem: str = ""


def line_reference(line: BillingLine) -> str:
    """What names the line in records, documents and receipts: a change of terms in mid-period
    gives the later parts a suffix, so that each is a line of its own.
    """
    return line.line if line.version == 1 else f"{line.line}/{line.version}"


def billed(line: BillingLine, draft: UsageDraft, price: Price | None, days_used: int) -> BilledLine:
    """The line with its charge; without a price, or where it cannot be rated (a negative
    quantity), with the reason and a draft that says so.
    """
    if price is None:
        problem = f"Contract line {line_reference(line)} has no price."
    else:
        try:
            return BilledLine(line, draft, rate(draft.quantity, price, line.share(days_used)))
        except InvalidInput as exc:
            problem = f"Contract line {line_reference(line)} cannot be rated: {exc}"
    return BilledLine(line, replace(draft, fate=Fate.NO_PRICE), None, problem)


def proposals(
    workflow: Workflow,
    close: CloseId,
    entity: LegalEntityId,
    accounting_period: str,
    lines: Sequence[BilledLine],
    record_ids: Mapping[object, UsageRecordId],
) -> Iterator[Proposal]:
    """One proposal per contract and billing period; lines without a price are left to exceptions.

    ``lines`` come in the order of contract and period.
    """
    group: list[BilledLine] = []
    for line in lines:
        if line.charge is None:
            continue
        if group and _place(group[0]) != _place(line):
            yield _proposal(workflow, close, entity, accounting_period, group, record_ids)
            group = []
        group.append(line)
    if group:
        yield _proposal(workflow, close, entity, accounting_period, group, record_ids)


def _place(line: BilledLine) -> tuple[object, ...]:
    return line.billing.contract, line.billing.period.start


def _proposal(
    workflow: Workflow,
    close: CloseId,
    entity: LegalEntityId,
    accounting_period: str,
    group: Sequence[BilledLine],
    record_ids: Mapping[object, UsageRecordId],
) -> Proposal:
    first = group[0].billing
    # A contract that changes hands in mid-period is billed to who holds it at the end.
    last = max(group, key=lambda line: line.billing.in_force.end).billing
    return Proposal(
        purpose=workflow.purpose,
        kind=workflow.kind,
        workflow=workflow.name,
        target=workflow.target,
        legal_entity=entity,
        accounting_period=accounting_period,
        business_key=first.contract,
        customer=last.customer,
        period=first.period,
        zone=first.zone,
        currency=first.currency,
        payment_term=last.payment_term,
        close=close,
        lines=tuple(_line(line, record_ids) for line in group),
    )


def _line(line: BilledLine, record_ids: Mapping[object, UsageRecordId]) -> ProposedLine:
    billing, charge = line.billing, line.charge
    assert charge is not None
    split = usage_split(charge)
    return ProposedLine(
        line=type(billing.line)(line_reference(billing)),
        meter=billing.meter,
        usage_record=record_ids[line.draft.key],
        item=billing.item,
        description=billing.description,
        unit=line.draft.unit,
        quantity=line.draft.quantity,
        included=split.included,
        charged=split.charged,
        price=billing.price or "",
        unit_price=simple_price(charge, split.charged),
        amount=charge.amount.amount,
        working=charge.to_plain(),
        tax_category=billing.tax_category,
        revenue_account=billing.revenue_account,
        service=billing.in_force,
    )


def simple_price(charge: Charge, charged: Decimal) -> Decimal | None:
    """The unit price where quantity × price is all there is to the amount."""
    if charge.price.model is not PriceModel.PER_UNIT or charge.price.unit_price is None:
        return None
    with localcontext(EXACT):
        amount = charged * charge.price.unit_price
    if round_half_up(amount, minor_units(charge.amount.currency)) != charge.amount.amount:
        return None
    return charge.price.unit_price


def average_prices(lines: Sequence[BilledLine]) -> dict[str, tuple[Decimal, str]]:
    """Meter → (average charged per unit, currency) over what is billed: the base of estimates."""
    sums: dict[str, tuple[Decimal, Decimal, str]] = {}
    for line in lines:
        meter = line.billing.meter
        if meter is None or line.charge is None or not line.draft.quantity:
            continue
        amount, quantity, currency = sums.get(meter, (_ZERO, _ZERO, line.billing.currency))
        if currency == line.billing.currency:
            sums[meter] = (
                amount + line.charge.amount.amount,
                quantity + line.draft.quantity,
                currency,
            )
    return {
        meter: (amount / quantity, currency)
        for meter, (amount, quantity, currency) in sums.items()
        if quantity
    }


def findings(
    entity: LegalEntityId,
    accounting_period: str,
    drafts: Sequence[UsageDraft],
    prices: Mapping[str, tuple[Decimal, str]],
    problems: Mapping[str, str],
) -> Iterator[Finding]:
    """One finding per subject without owner or contract, and per line that cannot be priced.

    ``problems`` says of a line why not.
    """
    groups: dict[tuple[Fate, str, str], list[UsageDraft]] = {}
    for draft in drafts:
        if draft.fate in _SENTENCES:
            _, line, source, subject, _ = draft.key
            name = line or f"{source} {subject}"
            groups.setdefault((draft.fate, name, line), []).append(draft)
    for (fate, name, line), group in groups.items():
        sentence, suggestion = _SENTENCES[fate]
        source, subject = group[0].key[2], group[0].key[3]
        estimate, currency = _estimate(group, prices)
        yield Finding(
            reason=_REASONS[fate],
            fact_kind="contract_line" if line else "subject",
            fact=f"{name} {accounting_period}",
            sentence=problems.get(line, sentence.format(name=name)),
            suggestion=suggestion.format(source=source, subject=subject, line=line),
            owner="finance" if fate is Fate.NO_PRICE else "customer_success",
            # Several meters may read the same events.
            records=max(draft.components.events for draft in group),
            legal_entity=entity,
            accounting_period=accounting_period,
            estimate=estimate,
            currency=currency,
            detail={
                "source": source,
                "subject": subject,
                "line": line,
                "quantities": {draft.key[0]: draft.quantity for draft in group},
            },
        )


def _estimate(
    drafts: Sequence[UsageDraft], prices: Mapping[str, tuple[Decimal, str]]
) -> tuple[Decimal | None, str | None]:
    known = [(draft, *prices[draft.key[0]]) for draft in drafts if draft.key[0] in prices]
    currencies = {currency for _, _, currency in known}
    if len(currencies) != 1:
        return None, None
    amount = sum((draft.quantity * price for draft, price, _ in known), _ZERO)
    currency = currencies.pop()
    return round_half_up(amount, minor_units(currency)), currency


_REASONS = {
    Fate.UNMATCHED: "unmatched_subject",
    Fate.NO_CONTRACT: "no_contract",
    Fate.NO_PRICE: "no_price",
}
#: Reasons that a close opens, and closes again when it no longer finds them.
REASONS = tuple(_REASONS.values())

_SENTENCES = {
    Fate.UNMATCHED: (
        "Nobody is known to own {name}.",
        "Link it: meterpost crosswalk link {source} subject {subject} SUBSCRIPTION",
    ),
    Fate.NO_CONTRACT: (
        "{name} is linked, but no contract line was in force for its usage.",
        "Add a contract line for the meter, or correct the link or its validity.",
    ),
    Fate.NO_PRICE: (
        "Contract line {name} has no price.",
        "Import a price for contract line {line}.",
    ),
}
