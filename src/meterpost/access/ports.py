"""What the room needs of a store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from meterpost.access.model import ApiKey, Role, User
from meterpost.audit.model import AuditEntry
from meterpost.core.ids import UserId


class AccessWriting(Protocol):
    """One transaction that changes who may do what, and says so in the audit log."""

    def user(self, id: UserId) -> User | None:
        """The user, locked until the transaction ends."""
        ...

    def any_user(self) -> bool:
        """Whether there is one at all; nobody else can create the first meanwhile."""
        ...

    def administrators(self) -> frozenset[UserId]:
        """Active users with the role admin; they stay that way until the transaction ends."""
        ...

    def add_user(self, user: User) -> None:
        """Store a new user."""
        ...

    def set_roles(self, id: UserId, roles: frozenset[Role]) -> None:
        """Replace a user's roles."""
        ...

    def deactivate(self, id: UserId) -> None:
        """Keep the user out."""
        ...

    def key(self, id: str) -> ApiKey | None:
        """The key of that id."""
        ...

    def add_key(self, key: ApiKey) -> None:
        """Store a new key."""
        ...

    def revoke_key(self, id: str, now: datetime) -> None:
        """Make a key useless; a second time changes nothing."""
        ...

    def audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        ...


class AccessStore(Protocol):
    """People and keys in the operational database."""

    def writing(self) -> AbstractContextManager[AccessWriting]:
        """A transaction: committed on leaving, rolled back on any exception."""
        ...

    def key_with_user(self, id: str) -> tuple[ApiKey, User] | None:
        """A key and whose it is."""
        ...

    def user(self, id: UserId) -> User | None:
        """The user of that id."""
        ...

    def users(self) -> list[User]:
        """Everybody, by id."""
        ...

    def keys(self, user: UserId | None = None) -> list[ApiKey]:
        """All keys, or one user's, by id."""
        ...


class IdempotencyStore(Protocol):
    """Answers by (Idempotency-Key, API key)."""

    def claim(
        self,
        key: str,
        api_key: str,
        request_hash: str,
        now: datetime,
        *,
        expired: datetime,
        abandoned: datetime,
    ) -> tuple[bool, str, int | None, bytes | None]:
        """Whether the key is the caller's now, and the row as it stands after that.

        A row created before ``expired``, or before ``abandoned`` and without an answer, is
        taken over; the latter only by an equal request. Shape: (claimed, request hash, status,
        body).
        """
        ...

    def answer(
        self, key: str, api_key: str, claimed_at: datetime, status: int, body: bytes
    ) -> bool:
        """Store the answer of a claim; False where the claim is no longer the caller's."""
        ...

    def release(self, key: str, api_key: str, claimed_at: datetime) -> None:
        """Forget an unanswered claim, so that the request can be made again."""
        ...

    def forget(self, before: datetime) -> int:
        """Delete rows created before; how many."""
        ...
