"""People, keys and given answers in the operational database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from meterpost.access.model import ApiKey, Role, Scope, User
from meterpost.audit.model import AuditEntry
from meterpost.core.ids import UserId
from meterpost.storage.postgres.audit import write_entry
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.access import API_KEY, APP_USER, IDEMPOTENCY

#: Held while users are changed: the first, and the last administrator, are then well-defined.
_USERS_LOCK = 0x75736572


class PostgresAccessStore:
    """The port `meterpost.access.ports.AccessStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def writing(self) -> Iterator[PostgresAccessWriting]:
        """A transaction: committed on leaving, rolled back on any exception."""
        with self._database.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_USERS_LOCK)))
            yield PostgresAccessWriting(connection)

    def key_with_user(self, id: str) -> tuple[ApiKey, User] | None:
        """A key and whose it is."""
        with self._database.begin() as connection:
            key = connection.execute(select(API_KEY).where(API_KEY.c.id == id)).one_or_none()
            if key is None:
                return None
            user = connection.execute(select(APP_USER).where(APP_USER.c.id == key.user_id)).one()
        return _key(key), _user(user)

    def user(self, id: UserId) -> User | None:
        """The user of that id."""
        with self._database.begin() as connection:
            row = connection.execute(select(APP_USER).where(APP_USER.c.id == id)).one_or_none()
        return None if row is None else _user(row)

    def users(self) -> list[User]:
        """Everybody, by id."""
        with self._database.begin() as connection:
            return [_user(row) for row in connection.execute(select(APP_USER).order_by("id"))]

    def keys(self, user: UserId | None = None) -> list[ApiKey]:
        """All keys, or one user's, by id."""
        statement = select(API_KEY).order_by(API_KEY.c.id)
        if user is not None:
            statement = statement.where(API_KEY.c.user_id == user)
        with self._database.begin() as connection:
            return [_key(row) for row in connection.execute(statement)]


class PostgresAccessWriting:
    """One transaction; writers of users and keys take turns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def user(self, id: UserId) -> User | None:
        """The user of that id."""
        row = self._connection.execute(select(APP_USER).where(APP_USER.c.id == id)).one_or_none()
        return None if row is None else _user(row)

    def any_user(self) -> bool:
        """Whether there is one at all."""
        return bool(self._connection.execute(select(exists(select(APP_USER.c.id)))).scalar())

    def administrators(self) -> frozenset[UserId]:
        """Active users with the role admin."""
        rows = self._connection.execute(
            select(APP_USER.c.id).where(
                APP_USER.c.active, APP_USER.c.roles.any_() == Role.ADMIN.value
            )
        )
        return frozenset(UserId(row.id) for row in rows)

    def add_user(self, user: User) -> None:
        """Store a new user."""
        self._connection.execute(
            insert(APP_USER).values(
                id=user.id,
                name=user.name,
                roles=_words(user.roles),
                active=user.active,
                created_at=user.created_at,
            )
        )

    def set_roles(self, id: UserId, roles: frozenset[Role]) -> None:
        """Replace a user's roles."""
        self._connection.execute(
            update(APP_USER).where(APP_USER.c.id == id).values(roles=_words(roles))
        )

    def deactivate(self, id: UserId) -> None:
        """Keep the user out."""
        self._connection.execute(update(APP_USER).where(APP_USER.c.id == id).values(active=False))

    def key(self, id: str) -> ApiKey | None:
        """The key of that id."""
        row = self._connection.execute(select(API_KEY).where(API_KEY.c.id == id)).one_or_none()
        return None if row is None else _key(row)

    def add_key(self, key: ApiKey) -> None:
        """Store a new key."""
        self._connection.execute(
            insert(API_KEY).values(
                id=key.id,
                user_id=key.user,
                secret_hash=key.secret_hash,
                scopes=_words(key.scopes),
                created_at=key.created_at,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
            )
        )

    def revoke_key(self, id: str, now: datetime) -> None:
        """Make a key useless; a second time changes nothing."""
        self._connection.execute(
            update(API_KEY)
            .where(API_KEY.c.id == id, API_KEY.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )

    def audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        write_entry(self._connection, entry)


class PostgresIdempotencyStore:
    """The port `meterpost.access.ports.IdempotencyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """Whether the key is the caller's now, and the row as it stands after that."""
        fresh = insert(IDEMPOTENCY).values(
            key=key, api_key=api_key, request_hash=request_hash, created_at=now
        )
        # One statement decides: of two at once, the second finds the first one's row.
        claim = fresh.on_conflict_do_update(
            index_elements=[IDEMPOTENCY.c.key, IDEMPOTENCY.c.api_key],
            set_={
                "request_hash": request_hash,
                "status": None,
                "body": None,
                "created_at": now,
            },
            where=or_(
                IDEMPOTENCY.c.created_at < expired,
                and_(
                    IDEMPOTENCY.c.status.is_(None),
                    IDEMPOTENCY.c.created_at < abandoned,
                    IDEMPOTENCY.c.request_hash == request_hash,
                ),
            ),
        ).returning(IDEMPOTENCY.c.key)
        with self._database.begin() as connection:
            claimed = connection.execute(claim).one_or_none() is not None
            # The row is locked by now, also where the claim changed nothing: it is there.
            row = connection.execute(select(IDEMPOTENCY).where(*_named(key, api_key))).one()
        return claimed, row.request_hash, row.status, row.body

    def answer(
        self, key: str, api_key: str, claimed_at: datetime, status: int, body: bytes
    ) -> bool:
        """Store the answer of a claim; False where the claim is no longer the caller's."""
        statement = (
            update(IDEMPOTENCY)
            .where(*_claimed(key, api_key, claimed_at))
            .values(status=status, body=body)
        )
        with self._database.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def release(self, key: str, api_key: str, claimed_at: datetime) -> None:
        """Forget an unanswered claim, so that the request can be made again."""
        with self._database.begin() as connection:
            connection.execute(delete(IDEMPOTENCY).where(*_claimed(key, api_key, claimed_at)))

    def forget(self, before: datetime) -> int:
        """Delete rows created before; how many."""
        with self._database.begin() as connection:
            result = connection.execute(
                delete(IDEMPOTENCY).where(IDEMPOTENCY.c.created_at < before)
            )
            return result.rowcount


def _named(key: str, api_key: str) -> tuple[Any, ...]:
    return IDEMPOTENCY.c.key == key, IDEMPOTENCY.c.api_key == api_key


def _claimed(key: str, api_key: str, claimed_at: datetime) -> tuple[Any, ...]:
    unanswered = IDEMPOTENCY.c.status.is_(None)
    return *_named(key, api_key), IDEMPOTENCY.c.created_at == claimed_at, unanswered


def _words(words: frozenset[Role] | frozenset[Scope]) -> list[str]:
    return sorted(word.value for word in words)


def _user(row: Row[Any]) -> User:
    roles = frozenset(Role(role) for role in row.roles)
    return User(UserId(row.id), row.name, roles, row.active, row.created_at)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.id,
        UserId(row.user_id),
        bytes(row.secret_hash),
        frozenset(Scope(scope) for scope in row.scopes),
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
