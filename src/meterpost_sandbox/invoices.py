"""The invoice part of the API: create one or many, with this ERP's settings and faults."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from meterpost_sandbox import documents
from meterpost_sandbox.answers import Answer, Refused, invalid
from meterpost_sandbox.documents import Search
from meterpost_sandbox.faults import Fate, Faults
from meterpost_sandbox.fields import Fields, moment_text, parse_day, parse_moment
from meterpost_sandbox.ledger import Ledger
from meterpost_sandbox.rules import CachedLookup, check_invoice

BATCH_MAX = 100
PAGE_MAX = 200
REFERENCES_MAX = 200
_BATCH = frozenset({"atomic", "invoices"})
_KEY_MAX = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """How strict this ERP is about repeats."""

    unique_reference: bool = False
    native_keys: bool = False


class _RolledBack(Exception):
    """Ends a transaction without keeping it; carries the answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Invoices:
    """Creates and finds invoices in one ledger."""

    def __init__(self, ledger: Ledger, faults: Faults, settings: Settings) -> None:
        self._ledger = ledger
        self._faults = faults
        self._settings = settings

    def create(self, body: object, raw: bytes, key: str | None, fate: Fate) -> Answer:
        """201 with the new draft, committed.

        Raises: Refused.
        """

        def carry_out(connection: sqlite3.Connection) -> Answer:
            document = self._store(connection, body, CachedLookup(connection), fate)
            return Answer(201, documents.read_many(connection, [document])[0])

        return self._once(raw, key, carry_out)

    def batch(self, body: object, raw: bytes, key: str | None, fate: Fate) -> Answer:
        """An outcome per invoice, committed together; see the README for `atomic`.

        Raises: Refused where the batch itself is malformed.
        """
        fields = Fields(body, _BATCH)
        atomic = fields.flag("atomic", False)
        values = fields.array("invoices", BATCH_MAX)
        if not values:
            raise invalid("a batch needs at least one invoice", "invoices", "empty_batch")
        if fate.ending == "partial_then_drop":
            values = values[: len(values) // 2]
            key = None  # a server that died half way had no answer to keep under the key

        def carry_out(connection: sqlite3.Connection) -> Answer:
            return self._store_all(connection, values, atomic, fate)

        try:
            return self._once(raw, key, carry_out)
        except _RolledBack as rolled_back:
            return rolled_back.answer

    def read(self, document: str) -> Answer:
        """200 with the document.

        Raises: Refused (404, also while it is not yet visible).
        """
        with self._ledger.read() as connection:
            return Answer(200, documents.read(connection, document))

    def search(self, query: Sequence[tuple[str, str]]) -> Answer:
        """200 with a page of documents.

        Raises: Refused (400).
        """
        wanted = search_from_query(query)
        with self._ledger.read() as connection:
            found, more = documents.search(connection, wanted)
        cursor = documents.cursor_text(more) if more else None
        return Answer(200, {"invoices": found, "next_cursor": cursor})

    def _store_all(
        self, connection: sqlite3.Connection, values: Sequence[object], atomic: bool, fate: Fate
    ) -> Answer:
        lookup = CachedLookup(connection)
        stored: dict[int, int] = {}
        refused: dict[int, Refused] = {}
        for index, value in enumerate(values):
            try:
                stored[index] = self._store(connection, value, lookup, fate)
            except Refused as refusal:
                refused[index] = refusal
        created = dict(
            zip(stored, documents.read_many(connection, list(stored.values())), strict=True)
        )
        undone = Refused(424, "not_created", "another invoice of this atomic batch was refused")
        if atomic and refused:
            refused |= dict.fromkeys(created, undone)
            created = {}
        outcomes: list[dict[str, object]] = [
            {"index": index, "status": 201, "invoice": created[index]}
            if index in created
            else {
                "index": index,
                "status": refused[index].status,
                "error": refused[index].as_json(),
            }
            for index in range(len(values))
        ]
        answer: dict[str, object] = {
            "created": len(created),
            "rejected": len(values) - len(created),
            "outcomes": outcomes,
        }
        if atomic and refused:
            whole = Refused(422, "batch_rejected", "nothing was created; see the outcomes")
            raise _RolledBack(Answer(422, {"error": whole.as_json(), **answer}))
        return Answer(200, answer)

    def _store(
        self, connection: sqlite3.Connection, value: object, lookup: CachedLookup, fate: Fate
    ) -> int:
        invoice = check_invoice(value, lookup)
        if self._faults.rejects(invoice.reference):
            self._ledger.note_fault("reject_reference")
            raise invalid(
                f"reference {invoice.reference} is not accepted", "reference", "rejected_reference"
            )
        if self._settings.unique_reference:
            existing = documents.with_reference(connection, invoice.reference)
            if existing is not None:
                raise Refused(
                    409,
                    "duplicate_reference",
                    f"document {existing} bears the reference {invoice.reference} already",
                    "reference",
                    extra={"existing_id": str(existing)},
                )
        return documents.store(connection, invoice, "api", hidden_s=fate.hidden_s)

    def _once(
        self, raw: bytes, key: str | None, carry_out: Callable[[sqlite3.Connection], Answer]
    ) -> Answer:
        """The answer, or the first answer again where native keys are on and the key is known."""
        if key is None or not self._settings.native_keys:
            with self._ledger.write() as connection:
                return carry_out(connection)
        if not 1 <= len(key) <= _KEY_MAX:
            raise invalid(f"expected 1 to {_KEY_MAX} characters", "Idempotency-Key")
        digest = hashlib.sha256(raw).hexdigest()
        with self._ledger.write() as connection:
            known = connection.execute(
                "SELECT digest, status, body FROM native_keys WHERE key = ?", (key,)
            ).fetchone()
            if known is None:
                answer = carry_out(connection)
                connection.execute(
                    "INSERT INTO native_keys VALUES (?, ?, ?, ?)",
                    (key, digest, answer.status, json_bytes(answer.body)),
                )
                return answer
        if known["digest"] != digest:
            raise Refused(
                409,
                "idempotency_key_reused",
                "this Idempotency-Key was used for another body",
                "Idempotency-Key",
            )
        return Answer(known["status"], known["body"], {"Idempotent-Replay": "true"})


def search_from_query(query: Sequence[tuple[str, str]]) -> Search:
    """What a query string asks for.

    Raises: Refused (400).
    """
    references: list[str] = []
    filters: dict[str, str] = {}
    after, limit = 0, 100
    for name, value in query:
        if name == "reference":
            references.extend(each for each in value.split(",") if each)
        elif name == "cursor":
            after = documents.cursor_position(value, int)
        elif name == "limit":
            limit = page_limit(value)
        elif name in documents.FILTER_NAMES:
            filters[name] = _filter_value(name, value)
        else:
            raise bad_query(name, "unknown parameter")
    if len(references) > REFERENCES_MAX:
        raise bad_query("reference", f"at most {REFERENCES_MAX} references are looked up at once")
    if any(name == "reference" for name, _ in query) and not references:
        raise bad_query("reference", "expected at least one reference")
    return Search(tuple(dict.fromkeys(references)), tuple(filters.items()), after, limit)


def page_limit(text: str) -> int:
    """The page size asked for.

    Raises: Refused (400).
    """
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= PAGE_MAX:
        return int(text)
    raise bad_query("limit", f"expected 1 to {PAGE_MAX}")


def bad_query(name: str, message: str) -> Refused:
    """A 400 about one query parameter."""
    return Refused(400, "invalid_query", message, name[:80])


def json_bytes(body: object) -> bytes:
    """Compact JSON in UTF-8; bytes pass as they are."""
    if isinstance(body, bytes):
        return body
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def parse_json(raw: bytes) -> Any:
    """The JSON value of a request body.

    Raises: Refused (400).
    """

    def no_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(raw.decode(), parse_constant=no_constant)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, "malformed", f"the body is not JSON in UTF-8: {exc}"[:300]) from exc


def _filter_value(name: str, value: str) -> str:
    try:
        if name in ("date_from", "date_to"):
            return parse_day(value)
        if name == "modified_since":
            return moment_text(parse_moment(value))
    except ValueError as exc:
        raise bad_query(name, str(exc)) from exc
    return value
