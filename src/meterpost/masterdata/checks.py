"""What must hold over all master data after an import, whoever said which part of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from meterpost.core.problem import Problem
from meterpost.masterdata.model import SUBJECT, TARGET_KINDS
from meterpost.masterdata.outcome import Key, Outcome
from meterpost.masterdata.timeline import Span

#: (entity, column) → the entity whose id stands there.
REFERENCES: Mapping[tuple[str, str], str] = {
    ("contracts", "customer"): "customers",
    ("contracts", "legal_entity"): "legal_entities",
    ("contract_lines", "contract"): "contracts",
    ("contract_lines", "item"): "items",
    ("contract_lines", "price"): "prices",
    ("subscriptions", "customer"): "customers",
    ("subscriptions", "contract"): "contracts",
    ("accounting_periods", "legal_entity"): "legal_entities",
}
#: The crosswalk's kinds whose canonical ids must exist.
_LINKED = {SUBJECT: "subscriptions", "customer": "customers", "item": "items"}

#: What stays the same over a thing's whole life; another value is another thing.
_FIXED = {
    "contracts": (
        "customer",
        "legal_entity",
        "currency",
        "billing_interval",
        "billing_anchor",
        "zone",
    ),
    "contract_lines": ("contract", "meter"),
    "accounting_periods": ("starts_at", "ends_at"),
}


def outcome_problems(outcome: Outcome, mentioned: Mapping[str, set[str]]) -> Iterator[Problem]:
    """Everything that must not become true.

    ``mentioned`` has the ids of refused records too, so one mistake is not reported twice.
    """
    yield from _dangling(outcome, mentioned)
    yield from _orphaned(outcome)
    yield from _not_fixed(outcome)
    yield from _currencies(outcome)
    yield from _doubled_meters(outcome)
    yield from _accounting_periods(outcome)
    yield from _ambiguous_targets(outcome)


def _dangling(outcome: Outcome, mentioned: Mapping[str, set[str]]) -> Iterator[Problem]:
    needed: dict[str, dict[str, tuple[str, Key, str]]] = defaultdict(dict)
    for (entity, column), target in REFERENCES.items():
        for key, value in _values(outcome, entity, column):
            needed[target].setdefault(value, (entity, key, column))
    for key, value in _values(outcome, "crosswalk", "canonical_id"):
        if key[1] in _LINKED:
            needed[_LINKED[key[1]]].setdefault(value, ("crosswalk", key, "canonical_id"))
    for target, wanted in needed.items():
        known = {key[0] for key in outcome.final(target, "id", wanted.keys())}
        for value in wanted.keys() - known - mentioned.get(target, set()):
            entity, key, column = wanted[value]
            yield Problem(
                "dangling",
                f"{column} {value} of {entity} {'/'.join(key)} is not known in {target}.",
                outcome.where(entity, key),
                f"Import it under `{target}:` first or in the same import.",
            )


def _values(outcome: Outcome, entity: str, column: str) -> Iterator[tuple[Key, str]]:
    for key, spans in outcome.new.get(entity, {}).items():
        for span in spans:
            value = span.values.get(column, key[0] if column == "legal_entity" else None)
            if isinstance(value, str):
                yield key, value


def _orphaned(outcome: Outcome) -> Iterator[Problem]:
    users = [(*place, target) for place, target in REFERENCES.items()]
    users.extend(("crosswalk", "canonical_id", target) for target in _LINKED.values())
    for entity, column, target in users:
        gone = outcome.vanished(target)
        users_of: dict[str, Key] = {}
        for key, spans in outcome.final(entity, column, gone).items():
            if entity == "crosswalk" and _LINKED.get(key[1]) != target:
                continue
            users_of.setdefault(str(spans[0].values.get(column, key[0])), key)
        for value, key in users_of.items():
            yield Problem(
                "still-used",
                f"{target} {value} cannot be withdrawn: {entity} {'/'.join(key)} names it.",
                outcome.where(target, (value,)),
                "End it from a date (valid_to), or end what names it too.",
            )


def _not_fixed(outcome: Outcome) -> Iterator[Problem]:
    for entity, columns in _FIXED.items():
        for key, spans in outcome.new.get(entity, {}).items():
            for column in columns:
                if len({str(span.values[column]) for span in spans}) > 1:
                    yield Problem(
                        "fixed",
                        f"{column} of {entity} {'/'.join(key)} cannot change from a date on.",
                        outcome.where(entity, key),
                        "End it there and start another with its own id; to correct a mistake, "
                        "state its whole validity anew.",
                    )


def _currencies(outcome: Outcome) -> Iterator[Problem]:
    lines = dict(outcome.new.get("contract_lines", {}))
    for entity, column in (("prices", "price"), ("contracts", "contract")):
        touched = {key[0] for key in outcome.new.get(entity, ())}
        lines.update(outcome.final("contract_lines", column, touched))
    pairs = {
        (str(span.values["contract"]), str(span.values["price"])): key
        for key, spans in lines.items()
        for span in spans
        if span.values["price"] is not None
    }
    contracts = _currencies_of(outcome, "contracts", {contract for contract, _ in pairs})
    prices = _currencies_of(outcome, "prices", {price for _, price in pairs})
    for (contract, price), key in pairs.items():
        ours, theirs = contracts.get(contract), prices.get(price)
        if ours and theirs and ours != theirs:
            yield Problem(
                "currency-mismatch",
                f"line {key[0]} has price {price} in {'/'.join(sorted(theirs))}, but contract "
                f"{contract} is in {'/'.join(sorted(ours))}.",
                outcome.where("contract_lines", key)
                or outcome.where("prices", (price,))
                or outcome.where("contracts", (contract,)),
                "Amounts are never converted: give the contract a price in its own currency.",
            )


def _currencies_of(outcome: Outcome, entity: str, ids: set[str]) -> dict[str, set[str]]:
    return {
        key[0]: {str(span.values["currency"]) for span in spans}
        for key, spans in outcome.final(entity, "id", ids).items()
    }


def _doubled_meters(outcome: Outcome) -> Iterator[Problem]:
    contracts = {value for _, value in _values(outcome, "contract_lines", "contract")}
    lines: dict[tuple[object, object], list[tuple[Span, Key]]] = defaultdict(list)
    for key, spans in outcome.final("contract_lines", "contract", contracts).items():
        for span in spans:
            if span.values["meter"] is not None:
                lines[span.values["contract"], span.values["meter"]].append((span, key))
    for (contract, meter), used in lines.items():
        for key, other, moment in _overlaps(used):
            yield Problem(
                "doubled-meter",
                f"lines {key[0]} and {other[0]} of contract {contract} both bill meter {meter} "
                f"from {moment:%Y-%m-%dT%H:%MZ}; its usage would be charged twice.",
                outcome.where("contract_lines", other) or outcome.where("contract_lines", key),
                "End one of them (valid_to) where the other starts (valid_from).",
            )


def _accounting_periods(outcome: Outcome) -> Iterator[Problem]:
    entities = {key[0] for key in outcome.new.get("accounting_periods", ())}
    books: dict[str, list[tuple[datetime, datetime, Key]]] = defaultdict(list)
    for key, spans in outcome.final("accounting_periods", "legal_entity", entities).items():
        latest = spans[-1].values
        starts_at, ends_at = latest["starts_at"], latest["ends_at"]
        if isinstance(starts_at, datetime) and isinstance(ends_at, datetime):
            books[key[0]].append((starts_at, ends_at, key))
    for entity, periods in books.items():
        for (_, end, key), (start, _, following) in pairwise(sorted(periods)):
            if start == end:
                continue
            where = outcome.where("accounting_periods", following) or outcome.where(
                "accounting_periods", key
            )
            code, what = ("overlap", "overlap") if start < end else ("gap", "leave a gap")
            yield Problem(
                f"period-{code}",
                f"accounting periods {key[1]} and {following[1]} of {entity} {what}: "
                f"{key[1]} ends at {end:%Y-%m-%dT%H:%MZ}, {following[1]} starts at "
                f"{start:%Y-%m-%dT%H:%MZ}.",
                where,
                "Each period starts where the one before it ends.",
            )


def _ambiguous_targets(outcome: Outcome) -> Iterator[Problem]:
    ours = {
        value
        for key, value in _values(outcome, "crosswalk", "canonical_id")
        if key[1] in TARGET_KINDS
    }
    links: dict[tuple[str, str, object], list[tuple[Span, Key]]] = defaultdict(list)
    for key, spans in outcome.final("crosswalk", "canonical_id", ours).items():
        if key[1] in TARGET_KINDS:
            for span in spans:
                links[key[0], key[1], span.values["canonical_id"]].append((span, key))
    for (system, kind, canonical_id), used in links.items():
        for key, other, moment in _overlaps(used):
            yield Problem(
                "ambiguous-link",
                f"{kind} {canonical_id} is both {key[2]} and {other[2]} in {system} from "
                f"{moment:%Y-%m-%dT%H:%MZ}; a document could name only one.",
                outcome.where("crosswalk", other) or outcome.where("crosswalk", key),
                "End one of the two links.",
            )


def _overlaps(
    used: Sequence[tuple[Span, Key]],
) -> Iterable[tuple[Key, Key, datetime]]:
    """Neighbouring spans of different things that share a moment, and the first such moment."""
    ordered = sorted(used, key=lambda pair: (pair[0].start, pair[0].end))
    reach: tuple[datetime, Key] | None = None
    for span, key in ordered:
        if reach is not None and span.start < reach[0] and key != reach[1]:
            yield reach[1], key, span.start
        if reach is None or span.end > reach[0]:
            reach = span.end, key
