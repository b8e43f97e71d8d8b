"""The vault of personal values: token, look-up and ciphertext in one row, erased by deleting it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, func, select, text

from meterpost.core.errors import Transient
from meterpost.ingest.personal import PersonalKeys, SealedValue
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.ingest import PERSONAL_TOKEN

#: Pairs are inserted where they are new; a concurrent insert of the same value wins or loses as
#: a whole, and the look-up that follows sees the winner. Sorted, so that two writers wait for
#: each other in one order only.
_INSERT = text("""
    INSERT INTO meterpost.personal_token
        (token, field, lookup, ciphertext, wrapped_key, created_at)
    SELECT token, :field, lookup, ciphertext, wrapped_key, now()
      FROM unnest(CAST(:tokens AS text[]), CAST(:lookups AS bytea[]),
                  CAST(:ciphertexts AS bytea[]), CAST(:keys AS bytea[]))
           AS new (token, lookup, ciphertext, wrapped_key)
     ORDER BY lookup
    ON CONFLICT (field, lookup) DO NOTHING
""")
_LOOK_UP = (
    select(PERSONAL_TOKEN.c.lookup, PERSONAL_TOKEN.c.token)
    .where(PERSONAL_TOKEN.c.field == bindparam("field"))
    .where(PERSONAL_TOKEN.c.lookup == func.any(bindparam("lookups")))
)


class PostgresTokenVault:
    """`ingest.ports.TokenVault` over the table of personal tokens; safe for threads.

    Tokens are remembered for up to ``remembered_s``, so an erased value may keep its old,
    meaningless token for that long in another process.
    """

    def __init__(
        self,
        database: Database,
        keys: PersonalKeys,
        *,
        remembered_max: int = 100_000,
        remembered_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._keys = keys
        self._remembered: OrderedDict[bytes, str] = OrderedDict()
        self._remembered_max = remembered_max
        self._remembered_s = remembered_s
        self._monotonic = monotonic
        self._forget_at = monotonic() + remembered_s
        self._lock = threading.Lock()

    def tokens(self, field: str, values: Collection[str]) -> Mapping[str, str]:
        """See `TokenVault`: one look-up, and one insert where values are new.

        Raises: Transient.
        """
        lookups = {value: self._keys.lookup(field, value) for value in values}
        known = self._recall(lookups.values())
        missing = {v: lookup for v, lookup in lookups.items() if lookup not in known}
        if missing:
            with self._database.begin() as connection:
                found = self._select(connection, field, list(missing.values()))
                new = [v for v, lookup in missing.items() if lookup not in found]
                if new:
                    found |= self._insert(connection, field, new)
            self._remember(found)
            known |= found
        if len(known) < len(set(lookups.values())):
            raise Transient(f"A value of {field} was erased while it came in.", after_s=1.0)
        return {value: known[lookup] for value, lookup in lookups.items()}

    def find(self, field: str, value: str) -> str | None:
        """See `TokenVault`; asks the database, not the memory."""
        lookup = self._keys.lookup(field, value)
        with self._database.begin() as connection:
            return self._select(connection, field, [lookup]).get(lookup)

    def reveal(self, tokens: Iterable[str]) -> Mapping[str, str]:
        """See `TokenVault`."""
        query = select(
            PERSONAL_TOKEN.c.token,
            PERSONAL_TOKEN.c.lookup,
            PERSONAL_TOKEN.c.ciphertext,
            PERSONAL_TOKEN.c.wrapped_key,
        ).where(PERSONAL_TOKEN.c.token == func.any(list(tokens)))
        with self._database.begin() as connection:
            rows = connection.execute(query).all()
        return {
            token: self._keys.open(SealedValue(token, bytes(look), bytes(cipher), bytes(key)))
            for token, look, cipher, key in rows
        }

    def erase(self, field: str, value: str) -> str | None:
        """See `TokenVault`."""
        lookup = self._keys.lookup(field, value)
        with self._database.begin() as connection:
            token = connection.execute(
                delete(PERSONAL_TOKEN)
                .where(PERSONAL_TOKEN.c.field == field, PERSONAL_TOKEN.c.lookup == lookup)
                .returning(PERSONAL_TOKEN.c.token)
            ).scalar_one_or_none()
        with self._lock:
            self._remembered.pop(lookup, None)
        return token

    @staticmethod
    def _select(connection: Connection, field: str, lookups: Sequence[bytes]) -> dict[bytes, str]:
        rows = connection.execute(_LOOK_UP, {"field": field, "lookups": list(lookups)})
        return {bytes(lookup): token for lookup, token in rows}

    def _insert(
        self, connection: Connection, field: str, values: Sequence[str]
    ) -> dict[bytes, str]:
        sealed = [self._keys.seal(field, value) for value in values]
        connection.execute(
            _INSERT,
            {
                "field": field,
                "tokens": [one.token for one in sealed],
                "lookups": [one.lookup for one in sealed],
                "ciphertexts": [one.ciphertext for one in sealed],
                "keys": [one.wrapped_key for one in sealed],
            },
        )
        # A statement of its own sees what others committed while ours waited for them.
        return self._select(connection, field, [one.lookup for one in sealed])

    def _recall(self, lookups: Iterable[bytes]) -> dict[bytes, str]:
        with self._lock:
            if self._monotonic() >= self._forget_at:
                self._remembered.clear()
                self._forget_at = self._monotonic() + self._remembered_s
            return {one: self._remembered[one] for one in lookups if one in self._remembered}

    def _remember(self, found: Mapping[bytes, str]) -> None:
        with self._lock:
            self._remembered.update(found)
            while len(self._remembered) > self._remembered_max:
                self._remembered.popitem(last=False)
