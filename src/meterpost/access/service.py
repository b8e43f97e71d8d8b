"""Users, roles and keys: every change by an administrator, every change in the audit log."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from meterpost.access.model import (
    ApiKey,
    NewKey,
    Principal,
    Role,
    Scope,
    User,
    require,
    scopes_of,
)
from meterpost.access.ports import AccessStore, AccessWriting
from meterpost.audit.model import AuditEntry
from meterpost.core.canonical import crockford
from meterpost.core.clock import require_utc
from meterpost.core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from meterpost.core.ids import UserId

SECRET_BYTES = 20
TOKEN_LENGTH_MAX = 200
_NAME_LENGTH_MAX = 200
_USER_ID = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,79}")
_TOKEN = re.compile(r"mp_([0-9A-Z]{10})\.([0-9A-Z]{32})")

#: What a key that does not exist is compared with, so that it takes as long as one that does.
_NOBODY = hashlib.sha256(b"no key has this secret").digest()


class AccessService:
    """Who may do what. ``random`` gives that many unguessable bytes."""

    def __init__(
        self, store: AccessStore, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._store = store
        self._random = random

    def first_administrator(
        self, id: str, name: str, now: datetime, roles: Collection[Role] = ()
    ) -> User:
        """The first user of an installation, an administrator with these roles besides.

        Raises: Conflict once there is anybody.
        """
        user = _new_user(id, name, {Role.ADMIN, *roles}, now)
        with self._store.writing() as writing:
            if writing.any_user():
                raise Conflict(
                    "This installation has users already.",
                    hint="An administrator creates further ones.",
                )
            writing.add_user(user)
            _audit(writing, user.id, "user.created", user.id, now, _described(user))
        return user

    def create_user(
        self, actor: Principal, id: str, name: str, roles: Collection[Role], now: datetime
    ) -> User:
        """A new active user. Raises: NotAllowed, InvalidInput, Conflict for a taken id."""
        require(actor, Scope.ADMIN)
        user = _new_user(id, name, roles, now)
        with self._store.writing() as writing:
            if writing.user(user.id) is not None:
                raise Conflict(f"There is a user {user.id} already.")
            writing.add_user(user)
            _audit(writing, actor.user, "user.created", user.id, now, _described(user))
        return user

    def set_roles(
        self, actor: Principal, id: UserId, roles: Collection[Role], now: datetime
    ) -> None:
        """Replace a user's roles. Raises: NotAllowed, NotFound, Conflict for the last admin."""
        require(actor, Scope.ADMIN)
        wanted = frozenset(roles)
        with self._store.writing() as writing:
            if Role.ADMIN not in wanted:
                _keep_an_administrator(writing, id)
            user = _existing(writing, id)
            writing.set_roles(id, wanted)
            detail = {"from": sorted(user.roles), "to": sorted(wanted)}
            _audit(writing, actor.user, "user.roles_changed", id, now, detail)

    def deactivate(self, actor: Principal, id: UserId, now: datetime) -> None:
        """Keep a user and all their keys out. Raises: as `set_roles`."""
        require(actor, Scope.ADMIN)
        with self._store.writing() as writing:
            _keep_an_administrator(writing, id)
            _existing(writing, id)
            writing.deactivate(id)
            _audit(writing, actor.user, "user.deactivated", id, now, {})

    def create_key(
        self,
        actor: Principal,
        user: UserId,
        scopes: Collection[Scope],
        now: datetime,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """A key for a user, with its token, which cannot be shown again.

        Everybody makes their own keys, within their own scopes; administrators anybody's.
        Raises: NotAllowed, NotFound, InvalidInput for scopes the user does not have.
        """
        if actor.user != user:
            require(actor, Scope.ADMIN)
        wanted = frozenset(scopes)
        if not wanted:
            raise InvalidInput("A key needs at least one scope.")
        if expires_at is not None and require_utc(expires_at) <= now:
            raise InvalidInput(f"A key cannot expire at {expires_at.isoformat()}: that has passed.")
        if actor.user == user:
            # A narrow key must not make itself a wide one.
            for scope in sorted(wanted):
                require(actor, scope)
        secret = crockford(self._random(SECRET_BYTES), 32)
        key_id = crockford(self._random(7), 10)
        key = ApiKey(key_id, user, _hashed(secret), wanted, now, expires_at)
        with self._store.writing() as writing:
            owner = _existing(writing, user)
            beyond = sorted(wanted - scopes_of(owner.roles))
            if not owner.active or beyond:
                raise InvalidInput(
                    f"{user} is not active."
                    if not owner.active
                    else f"{user} does not have {', '.join(beyond)}, so no key of theirs can.",
                )
            writing.add_key(key)
            detail = {"user": user, "scopes": sorted(wanted), "expires_at": expires_at}
            _audit(writing, actor.user, "key.created", key_id, now, detail, kind="api_key")
        return NewKey(key, f"mp_{key_id}.{secret}")

    def revoke_key(self, actor: Principal, id: str, now: datetime) -> None:
        """Make a key useless, for good. Raises: NotAllowed, NotFound."""
        with self._store.writing() as writing:
            key = writing.key(id)
            if key is None or key.user != actor.user:
                require(actor, Scope.ADMIN)
            if key is None:
                raise NotFound(f"There is no API key {id}.")
            if key.revoked_at is None:
                writing.revoke_key(id, now)
                detail = {"user": key.user}
                _audit(writing, actor.user, "key.revoked", id, now, detail, kind="api_key")

    def users(self, actor: Principal) -> list[User]:
        """Everybody, by id. Raises: NotAllowed."""
        require(actor, Scope.ADMIN)
        return self._store.users()

    def keys(self, actor: Principal, user: UserId | None = None) -> list[ApiKey]:
        """Keys of a user, or all. Raises: NotAllowed for anybody else's."""
        if user != actor.user:
            require(actor, Scope.ADMIN)
        return self._store.keys(user)

    def person(self, id: UserId) -> Principal:
        """A user at this machine's command line.

        Raises: NotAuthenticated for one who does not exist or was deactivated.
        """
        user = self._store.user(id)
        if user is None or not user.active:
            raise NotAuthenticated(
                f"There is no active user {id}.", hint="Name one with --as; an admin lists them."
            )
        return Principal(user.id, user.roles, scopes_of(user.roles))

    def authenticate(self, token: str, now: datetime) -> Principal:
        """Who a token speaks for.

        What a wrong token gets to know, and how long that takes, does not depend on whether its
        id exists; the reason is told to whoever has the secret. Raises: NotAuthenticated.
        """
        match = _TOKEN.fullmatch(token) if len(token) <= TOKEN_LENGTH_MAX else None
        if match is None:
            raise NotAuthenticated(
                "This is no API key.", hint="Send it as `Authorization: Bearer mp_….…`."
            )
        key_id, secret = match.groups()
        found = self._store.key_with_user(key_id)
        expected = _NOBODY if found is None else found[0].secret_hash
        same = hmac.compare_digest(_hashed(secret), expected)
        if found is None or not same:
            raise NotAuthenticated("This API key is not valid.")
        key, user = found
        if key.revoked_at is not None:
            raise NotAuthenticated(f"The API key {key.id} was revoked.")
        if key.expires_at is not None and key.expires_at <= now:
            raise NotAuthenticated(f"The API key {key.id} has expired.", hint="Create a new one.")
        if not user.active:
            raise NotAuthenticated(f"The user {user.id} of the API key {key.id} is not active.")
        scopes = scopes_of(user.roles) & key.scopes
        return Principal(user.id, user.roles, scopes, key.id, key.expires_at)


def _keep_an_administrator(writing: AccessWriting, losing: UserId) -> None:
    # Asked first, so that of two administrators removing each other one waits and is refused.
    if writing.administrators() == {losing}:
        raise Conflict(f"{losing} is the last administrator.", hint="Make somebody else one first.")


def _existing(writing: AccessWriting, id: UserId) -> User:
    user = writing.user(id)
    if user is None:
        raise NotFound(f"There is no user {id}.")
    return user


def _new_user(id: str, name: str, roles: Collection[Role], now: datetime) -> User:
    if not _USER_ID.fullmatch(id):
        raise InvalidInput(
            f"{id[:80]!r} cannot be a user's id.",
            hint="Use up to 80 lower-case letters, digits and any of . _ @ + -.",
        )
    if not name.strip() or len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        raise InvalidInput(f"A user's name has 1 to {_NAME_LENGTH_MAX} printable characters.")
    return User(UserId(id), name, frozenset(roles), active=True, created_at=require_utc(now))


def _described(user: User) -> dict[str, object]:
    # The name is personal and can be looked up; the log, which cannot be changed, goes without.
    return {"roles": sorted(user.roles)}


def _hashed(secret: str) -> bytes:
    # 160 random bits cannot be guessed, so a slow hash would only slow us down.
    return hashlib.sha256(secret.encode()).digest()


def _audit(
    writing: AccessWriting,
    actor: UserId,
    action: str,
    object_id: str,
    now: datetime,
    detail: Mapping[str, object],
    kind: str = "user",
) -> None:
    writing.audit(AuditEntry(now, actor, action, kind, object_id, detail))
