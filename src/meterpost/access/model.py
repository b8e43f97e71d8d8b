"""Roles, scopes, and who is asking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from meterpost.core.errors import NotAllowed
from meterpost.core.ids import UserId


class Scope(StrEnum):
    """One thing that can be allowed."""

    EVENTS_WRITE = "events:write"
    EVENTS_CORRECT = "events:correct"
    USAGE_READ = "usage:read"
    MASTERDATA_READ = "masterdata:read"
    MASTERDATA_WRITE = "masterdata:write"
    CLOSES_RUN = "closes:run"
    TRANSACTIONS_READ = "transactions:read"
    TRANSACTIONS_REVIEW = "transactions:review"
    TRANSACTIONS_APPROVE = "transactions:approve"
    EXCEPTIONS_WRITE = "exceptions:write"
    POSTING_RUN = "posting:run"
    RECONCILE_RUN = "reconcile:run"
    AUDIT_READ = "audit:read"
    ADMIN = "admin"


class Role(StrEnum):
    """What a person is here for; one person may have several."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    APPROVER = "approver"
    OPERATOR = "operator"
    ENGINEER = "engineer"
    AUDITOR = "auditor"
    ADMIN = "admin"


_READ = frozenset({Scope.USAGE_READ, Scope.MASTERDATA_READ, Scope.TRANSACTIONS_READ})

#: Administrators manage people and keys; money is moved by those they appoint for it, and the
#: appointment stands in the audit log.
ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: _READ,
    Role.REVIEWER: _READ | {Scope.TRANSACTIONS_REVIEW, Scope.EXCEPTIONS_WRITE},
    Role.APPROVER: _READ | {Scope.TRANSACTIONS_REVIEW, Scope.TRANSACTIONS_APPROVE},
    Role.OPERATOR: _READ
    | {Scope.CLOSES_RUN, Scope.POSTING_RUN, Scope.RECONCILE_RUN, Scope.EXCEPTIONS_WRITE},
    Role.ENGINEER: _READ
    | {
        Scope.EVENTS_WRITE,
        Scope.EVENTS_CORRECT,
        Scope.MASTERDATA_WRITE,
        Scope.EXCEPTIONS_WRITE,
    },
    Role.AUDITOR: _READ | {Scope.AUDIT_READ},
    Role.ADMIN: _READ | {Scope.AUDIT_READ, Scope.ADMIN},
}


def scopes_of(roles: Iterable[Role]) -> frozenset[Scope]:
    """Everything that any of the roles allows."""
    return frozenset(scope for role in roles for scope in ROLE_SCOPES[role])


def roles_with(scope: Scope) -> list[str]:
    """The roles that allow it, in the order of the table."""
    return [role.value for role, scopes in ROLE_SCOPES.items() if scope in scopes]


@dataclass(frozen=True, slots=True)
class User:
    """A person, or a program with a name of its own."""

    id: UserId
    name: str
    roles: frozenset[Role]
    active: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: the secret itself is shown once and never stored."""

    id: str
    user: UserId
    secret_hash: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key with its token, which exists nowhere else; it does not print."""

    key: ApiKey
    token: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.id}, token=***)"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. ``key`` is None for a person at the command line.

    ``scopes`` are those of the roles, cut down to the key's. ``until`` is when the key expires.
    """

    user: UserId
    roles: frozenset[Role]
    scopes: frozenset[Scope]
    key: str | None = None
    until: datetime | None = None


def require(principal: Principal, scope: Scope) -> None:
    """Nothing, where the principal may.

    Raises: NotAllowed naming the roles that may, or saying that the key is the narrow part.
    """
    if scope in principal.scopes:
        return
    if principal.key is not None and scope in scopes_of(principal.roles):
        raise NotAllowed(
            f"The API key {principal.key} of {principal.user} lacks the scope {scope}.",
            hint="Its user may do this: create a key with that scope.",
        )
    able = " or ".join(roles_with(scope))
    raise NotAllowed(
        f"{principal.user} may not do this: it takes the scope {scope}.",
        hint=f"The role {able} has it; an administrator can grant it.",
    )
