"""One record as a person wrote it, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from meterpost.core.problem import Problem

#: Keys that every record may carry beside its own fields.
VALIDITY_KEYS = ("valid_from", "valid_to", "ends", "zone")


@dataclass(frozen=True, slots=True)
class Record:
    """What one place in a file (or a request) says about one thing.

    ``where`` is ``file:line`` or a path; ``places`` has the line of single fields where known.
    ``zone`` is the file's own for dates, used where nothing nearer names one. ``contract`` is the
    contract that a nested line or price is written under.
    """

    entity: str
    values: Mapping[str, object]
    where: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None
    contract: object = None

    def problem(self, code: str, name: str, sentence: str, hint: str = "") -> Problem:
        """A problem of one field, at the field's own line."""
        return Problem(code, f"{name} {sentence}", self.places.get(name, self.where), hint)


class Mapped(dict[str, object]):
    """A mapping that remembers where it and its keys stood."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.places: dict[str, str] = {}


def record_of(
    entity: str, values: Mapping[str, object], where: str = "", zone: str | None = None
) -> Record:
    """A record, with the places that the parser left in the mapping."""
    if isinstance(values, Mapped):
        return Record(entity, values, values.where, values.places, zone)
    return Record(entity, values, where, {}, zone)


def unnested(record: Record, problems: list[Problem]) -> Iterator[Record]:
    """The record and those written inside it: lines of contracts, prices of lines."""
    if record.entity == "contracts" and "lines" in record.values:
        lines = record.values["lines"]
        yield Record(
            "contracts", _but(record.values, "lines"), record.where, record.places, record.zone
        )
        yield from _lines(record, lines, problems)
    elif record.entity == "contract_lines":
        yield from _line(record, problems)
    else:
        yield record


def _lines(contract: Record, lines: object, problems: list[Problem]) -> Iterator[Record]:
    if not isinstance(lines, (list, tuple)):
        problems.append(contract.problem("wrong-type", "lines", "must be a list of lines."))
        return
    for index, line in enumerate(lines):
        where = f"{contract.where}.lines[{index}]"
        if not isinstance(line, Mapping):
            problems.append(Problem("wrong-type", "a line is a mapping of fields.", where))
            continue
        nested = record_of("contract_lines", line, where, contract.zone)
        if "contract" in line:
            problems.append(
                nested.problem(
                    "superfluous",
                    "contract",
                    "is the contract that the line stands under.",
                    "Remove it.",
                )
            )
        values = {**line, "contract": contract.values.get("id")}
        yield from _line(
            Record(
                "contract_lines",
                values,
                nested.where,
                nested.places,
                contract.zone,
                values["contract"],
            ),
            problems,
        )


def _line(line: Record, problems: list[Problem]) -> Iterator[Record]:
    price = line.values.get("price")
    if not isinstance(price, Mapping):
        yield line
        return
    where = line.places.get("price", f"{line.where}.price")
    nested = record_of("prices", price, where, line.zone)
    problems.extend(
        nested.problem(
            "superfluous",
            key,
            "of a price inside a line is the line's.",
            "Write it in the line, or the price under `prices:` with an id.",
        )
        for key in VALIDITY_KEYS
        if key in price
    )
    own = {"id": line.values.get("id"), **price}
    yield Record(
        "contract_lines",
        {**line.values, "price": own["id"]},
        line.where,
        line.places,
        line.zone,
        line.contract,
    )
    if not line.values.get("ends"):
        # The price of a line that ends stays: other lines may name it.
        own.update((key, line.values[key]) for key in VALIDITY_KEYS if key in line.values)
        contract = line.values.get("contract")
        yield Record("prices", own, nested.where, nested.places, line.zone, contract)


def _but(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}
