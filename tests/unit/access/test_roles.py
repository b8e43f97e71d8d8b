"""Roles and scopes: who may do what, and what is said to those who may not."""

from __future__ import annotations

import pytest

from meterpost.access.model import (
    ROLE_SCOPES,
    Principal,
    Role,
    Scope,
    require,
    roles_with,
    scopes_of,
)
from meterpost.core.errors import NotAllowed
from meterpost.core.ids import UserId

READ = {Scope.USAGE_READ, Scope.MASTERDATA_READ, Scope.TRANSACTIONS_READ}


def person(*roles: Role, key: str | None = None, scopes: set[Scope] | None = None) -> Principal:
    held = scopes_of(roles) if scopes is None else frozenset(scopes)
    return Principal(UserId("ann"), frozenset(roles), held, key)


def test_every_role_reads_and_every_scope_has_a_role() -> None:
    """Nobody is locked out of seeing; nothing can be done by nobody."""
    assert set(ROLE_SCOPES) == set(Role)
    for scopes in ROLE_SCOPES.values():
        assert scopes >= READ
    for scope in Scope:
        assert roles_with(scope)


def test_who_manages_people_moves_no_money() -> None:
    """Administering and approving are different duties."""
    assert roles_with(Scope.TRANSACTIONS_APPROVE) == ["approver"]
    assert roles_with(Scope.ADMIN) == ["admin"]
    assert Scope.POSTING_RUN not in scopes_of([Role.ADMIN, Role.APPROVER])


def test_the_refusal_names_the_role_that_would_do() -> None:
    """A sentence says which scope is missing and whose it is."""
    require(person(Role.APPROVER), Scope.TRANSACTIONS_APPROVE)
    with pytest.raises(NotAllowed, match=r"ann may not.*transactions:approve.*role approver"):
        require(person(Role.VIEWER, Role.REVIEWER), Scope.TRANSACTIONS_APPROVE)


def test_a_narrow_key_is_told_apart_from_a_missing_role() -> None:
    """Where the person may and the key may not, the key is what to change."""
    narrow = person(Role.OPERATOR, key="K1", scopes={Scope.USAGE_READ})
    with pytest.raises(NotAllowed, match=r"API key K1 of ann lacks the scope closes:run"):
        require(narrow, Scope.CLOSES_RUN)
