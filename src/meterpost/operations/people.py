"""Users, their roles, and the keys programs and command lines speak with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meterpost.access.model import ApiKey, Role, Scope, User, scopes_of
from meterpost.core.errors import NotFound
from meterpost.core.ids import UserId
from meterpost.operations.arguments import Moment, Name
from meterpost.operations.registry import Context, operation

_Roles = Annotated[tuple[Role, ...], Field(max_length=len(Role))]
_UserName = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class CreateUser:
    """``id`` is what approvals and the audit log name."""

    id: Name
    roles: _Roles
    name: _UserName | None = None


@operation("users.create", scope=Scope.ADMIN, summary="A new user with roles.", creates=True)
def create_user(context: Context, asked: CreateUser) -> object:
    """They can do nothing before they have a key."""
    app = context.app
    user = app.access.create_user(
        context.principal, asked.id, asked.name or asked.id, asked.roles, app.clock.now()
    )
    return _user(user)


@dataclass(frozen=True)
class ListUsers:
    """All of them."""


@operation("users.list", scope=Scope.ADMIN, summary="Everybody, by id.")
def list_users(context: Context, asked: ListUsers) -> object:
    """Inactive ones too."""
    users = context.app.access.users(context.principal)
    return {"items": [_user(user) for user in users], "next": None}


@dataclass(frozen=True)
class SetRoles:
    """``roles`` replace those the user has."""

    id: Name
    roles: _Roles


@operation("users.roles", scope=Scope.ADMIN, summary="Replace a user's roles.")
def set_roles(context: Context, asked: SetRoles) -> object:
    """The last administrator stays one."""
    access, now = context.app.access, context.app.clock.now()
    access.set_roles(context.principal, UserId(asked.id), asked.roles, now)
    return {"id": asked.id, "roles": sorted(asked.roles)}


@dataclass(frozen=True)
class DeactivateUser:
    """One user."""

    id: Name


@operation("users.deactivate", scope=Scope.ADMIN, summary="Keep a user and their keys out.")
def deactivate(context: Context, asked: DeactivateUser) -> object:
    """What they decided stays."""
    access, now = context.app.access, context.app.clock.now()
    access.deactivate(context.principal, UserId(asked.id), now)
    return {"id": asked.id, "active": False}


@dataclass(frozen=True)
class CreateKey:
    """For oneself, or (administrators) for anybody; without scopes, all that the user has."""

    user: Name | None = None
    scopes: Annotated[tuple[Scope, ...], Field(max_length=len(Scope))] = ()
    expires_at: Moment | None = None


@operation(
    # Not `creates`: an answer kept for Idempotency-Key would keep the token readable.
    "keys.create",
    scope=Scope.TRANSACTIONS_READ,
    summary="An API key; its token is in this answer and nowhere else.",
)
def create_key(context: Context, asked: CreateKey) -> object:
    """Everybody makes their own keys, within their own scopes."""
    access, principal = context.app.access, context.principal
    user = UserId(asked.user or principal.user)
    scopes = asked.scopes
    if not scopes:
        scopes = tuple(
            principal.scopes if user == principal.user else scopes_of(_roles(context, user))
        )
    now = context.app.clock.now()
    made = access.create_key(principal, user, scopes, now, asked.expires_at)
    return {**_key(made.key), "token": made.token}


def _roles(context: Context, id_: UserId) -> frozenset[Role]:
    for user in context.app.access.users(context.principal):
        if user.id == id_:
            return user.roles
    raise NotFound(f"There is no user {id_}.")


@dataclass(frozen=True)
class ListKeys:
    """One's own; administrators name a user, or ask for ``everybody``'s."""

    user: Name | None = None
    everybody: bool = False


@operation("keys.list", scope=Scope.TRANSACTIONS_READ, summary="API keys, without secrets.")
def list_keys(context: Context, asked: ListKeys) -> object:
    """Revoked and expired ones too."""
    user = None if asked.everybody else UserId(asked.user or context.principal.user)
    keys = context.app.access.keys(context.principal, user)
    return {"items": [_key(key) for key in keys], "next": None}


@dataclass(frozen=True)
class RevokeKey:
    """By the key's id: the part of the token between ``mp_`` and the dot."""

    id: Name


@operation("keys.revoke", scope=Scope.TRANSACTIONS_READ, summary="Make a key useless, for good.")
def revoke_key(context: Context, asked: RevokeKey) -> object:
    """One's own; administrators anybody's."""
    context.app.access.revoke_key(context.principal, asked.id, context.app.clock.now())
    return {"id": asked.id, "revoked": True}


def _user(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "name": user.name,
        "roles": sorted(user.roles),
        "active": user.active,
        "created_at": user.created_at,
    }


def _key(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "user": key.user,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
