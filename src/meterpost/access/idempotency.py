"""Answers to repeated requests: a creating call made twice creates once and answers twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from meterpost.access.ports import IdempotencyStore
from meterpost.core.errors import Conflict, InvalidInput

KEY_LENGTH_MAX = 255
BODY_BYTES_MAX = 1024 * 1024
TTL = timedelta(hours=24)

#: A request that has not answered after this long is taken to have died with its process.
ABANDONED_AFTER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class New:
    """The request is to be carried out, and answered by `Idempotency.finish`."""

    key: str
    api_key: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class InProgress:
    """The same request is being carried out right now (409)."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer given before, to be given again."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was used for another request (422)."""


class Idempotency:
    """The Idempotency-Keys of each API key."""

    def __init__(self, store: IdempotencyStore, ttl: timedelta = TTL) -> None:
        self._store = store
        self._ttl = ttl

    def begin(
        self, key: str, api_key: str, request_hash: str, now: datetime
    ) -> New | InProgress | Replay | Mismatch:
        """What to do with a request; ``request_hash`` covers method, path and body.

        Raises: InvalidInput for a key that is empty, too long or not printable ASCII.
        """
        if not 0 < len(key) <= KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
            raise InvalidInput(
                f"An Idempotency-Key has 1 to {KEY_LENGTH_MAX} printable ASCII characters.",
                hint="A fresh UUID per intended creation is a good one.",
            )
        claimed, first_hash, status, body = self._store.claim(
            key,
            api_key,
            request_hash,
            now,
            expired=now - self._ttl,
            abandoned=now - ABANDONED_AFTER,
        )
        if claimed:
            return New(key, api_key, now)
        if first_hash != request_hash:
            return Mismatch()
        if status is None or body is None:
            return InProgress()
        return Replay(status, body)

    def finish(self, claim: New, status: int, body: bytes) -> None:
        """Keep the answer for repetitions.

        Raises: Conflict where the request took so long that a repetition was let through.
        """
        if len(body) > BODY_BYTES_MAX:
            raise InvalidInput(f"An answer of {len(body):,} bytes is too long to be kept.")
        if not self._store.answer(claim.key, claim.api_key, claim.claimed_at, status, body):
            raise Conflict(f"The claim on the Idempotency-Key {claim.key} was taken over.")

    def release(self, claim: New) -> None:
        """The request failed without effect: a repetition is carried out."""
        self._store.release(claim.key, claim.api_key, claim.claimed_at)

    def forget(self, now: datetime) -> int:
        """Delete answers past their time; how many."""
        return self._store.forget(now - self._ttl)
