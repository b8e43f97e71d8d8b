"""What an import may lean on: the rows it touches or names, as they are stored, and itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from meterpost.masterdata.fields import as_text
from meterpost.masterdata.model import SUBJECT
from meterpost.masterdata.ports import MasterdataStore
from meterpost.masterdata.record import Record


class Surroundings:
    """Zones, currencies and owners that records leave out, found in the import or in the store.

    Where a thing has several versions, the latest is meant.
    """

    def __init__(self, records: Sequence[Record], store: MasterdataStore) -> None:
        self._facts: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
        self._read(store, "subscriptions", _named(records, ("crosswalk",), "canonical_id"))
        self._take(records, "subscriptions")
        contracts = _named(records, ("contract_lines", "subscriptions"), "contract")
        contracts |= {text for r in records if (text := as_text(r.contract))}
        contracts |= {s["contract"] for s in self._of("subscriptions") if "contract" in s}
        self._read(store, "contracts", contracts)
        self._take(records, "contracts")
        entities = _named(records, ("contracts", "accounting_periods"), "legal_entity")
        entities |= {c["legal_entity"] for c in self._of("contracts") if "legal_entity" in c}
        self._read(store, "legal_entities", entities)
        self._take(records, "legal_entities")

    def zone(self, record: Record) -> str | None:
        """The zone that the record's dates are in, apart from its own and its file's."""
        values = record.values
        match record.entity:
            case "contracts" | "accounting_periods":
                return self.of("legal_entities", values.get("legal_entity"), "zone")
            case "contract_lines" | "subscriptions":
                return self.of_contract(values.get("contract"), "zone")
            case "prices" if record.contract is not None:
                return self.of_contract(record.contract, "zone")
            case "crosswalk" if values.get("kind") == SUBJECT:
                contract = self.of("subscriptions", values.get("canonical_id"), "contract")
                return self.of_contract(contract, "zone")
            case _:
                return None

    def of_contract(self, contract: object, name: str) -> str | None:
        """A contract's zone or currency, or else its legal entity's."""
        own = self.of("contracts", contract, name)
        return own or self.of(
            "legal_entities", self.of("contracts", contract, "legal_entity"), name
        )

    def of(self, entity: str, id: object, name: str) -> str | None:
        """A field of a thing by its id."""
        text = as_text(id)
        return None if text is None else self._facts[entity].get(text, {}).get(name)

    def _of(self, entity: str) -> Iterable[dict[str, str]]:
        return self._facts[entity].values()

    def _read(self, store: MasterdataStore, entity: str, ids: set[str]) -> None:
        rows = store.current_rows(entity, {"id": ids}) if ids else ()
        for row in sorted(rows, key=lambda row: row.valid_from):
            facts = {name: text for name, v in row.values.items() if (text := as_text(v))}
            self._facts[entity][row.key[0]] = facts

    def _take(self, records: Sequence[Record], entity: str) -> None:
        for record in records:
            if record.entity == entity and (name := as_text(record.values.get("id"))):
                facts = {key: text for key, v in record.values.items() if (text := as_text(v))}
                self._facts[entity][name] = {**self._facts[entity].get(name, {}), **facts}


def _named(records: Sequence[Record], entities: tuple[str, ...], name: str) -> set[str]:
    return {
        text
        for record in records
        if record.entity in entities and (text := as_text(record.values.get(name)))
    }
