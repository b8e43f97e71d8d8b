"""Users, roles and keys in a real database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from meterpost.access.model import Principal, Role, Scope
from meterpost.access.service import AccessService
from meterpost.core.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
)
from meterpost.core.ids import UserId
from meterpost.storage.postgres.access import PostgresAccessStore
from meterpost.storage.postgres.database import Database
from meterpost.storage.tables.access import API_KEY
from meterpost.storage.tables.audit import AUDIT_ENTRY

pytestmark = pytest.mark.integration

NOW = datetime(2026, 10, 1, 8, tzinfo=UTC)
ADMIN, BOB = UserId("admin"), UserId("bob")


@pytest.fixture
def service(database: Database) -> AccessService:
    return AccessService(PostgresAccessStore(database))


@pytest.fixture
def admin(service: AccessService) -> Principal:
    service.first_administrator("admin", "The first", NOW)
    return service.person(ADMIN)


def actions(database: Database) -> list[tuple[str, str, str]]:
    with database.begin() as connection:
        rows = connection.execute(select(AUDIT_ENTRY).order_by(AUDIT_ENTRY.c.sequence)).all()
    return [(row.actor, row.action, row.object_id) for row in rows]


def test_the_first_administrator_is_made_once(service: AccessService, admin: Principal) -> None:
    """Only an installation without anybody lets itself be taken over."""
    assert Scope.ADMIN in admin.scopes
    with pytest.raises(Conflict, match="users already"):
        service.first_administrator("eve", "Eve", NOW)


def test_every_change_is_audited_by_its_actor(
    service: AccessService, admin: Principal, database: Database
) -> None:
    """Who made, changed, keyed and removed whom stands in the log; names and secrets do not."""
    service.create_user(admin, "bob", "Bob Secretname", [Role.VIEWER], NOW)
    service.set_roles(admin, BOB, [Role.OPERATOR], NOW)
    key = service.create_key(admin, BOB, [Scope.CLOSES_RUN], NOW)
    service.revoke_key(admin, key.key.id, NOW)
    service.revoke_key(admin, key.key.id, NOW)
    service.deactivate(admin, BOB, NOW)
    assert actions(database) == [
        ("admin", "user.created", "admin"),
        ("admin", "user.created", "bob"),
        ("admin", "user.roles_changed", "bob"),
        ("admin", "key.created", key.key.id),
        ("admin", "key.revoked", key.key.id),
        ("admin", "user.deactivated", "bob"),
    ]
    with database.begin() as connection:
        details = str(connection.execute(select(AUDIT_ENTRY.c.detail)).all())
    assert "Secretname" not in details
    assert key.token.split(".")[1] not in details


def test_a_key_is_shown_once_and_speaks_for_its_user(
    service: AccessService, admin: Principal, database: Database
) -> None:
    """The token opens with the key's scopes within the user's; only its hash is kept."""
    service.create_user(admin, "bob", "Bob", [Role.OPERATOR], NOW)
    new = service.create_key(admin, BOB, [Scope.CLOSES_RUN, Scope.USAGE_READ], NOW)
    principal = service.authenticate(new.token, NOW)
    assert (principal.user, principal.key) == ("bob", new.key.id)
    assert principal.scopes == {Scope.CLOSES_RUN, Scope.USAGE_READ}
    secret = new.token.split(".")[1]
    assert len(secret) * 5 == 160
    assert secret not in repr(new)
    with database.begin() as connection:
        assert secret not in str(connection.execute(select(API_KEY)).all())
    service.set_roles(admin, BOB, [Role.VIEWER], NOW)
    assert service.authenticate(new.token, NOW).scopes == {Scope.USAGE_READ}


def test_unusable_keys_open_nothing(service: AccessService, admin: Principal) -> None:
    """Revoked, expired, another secret, an unknown id, an inactive user, garbage: all refused."""
    service.create_user(admin, "bob", "Bob", [Role.VIEWER], NOW)
    day = timedelta(days=1)
    made = [service.create_key(admin, BOB, [Scope.USAGE_READ], NOW, NOW + day) for _ in range(3)]
    service.revoke_key(admin, made[0].key.id, NOW)
    swapped = made[1].token.split(".")[0] + "." + made[2].token.split(".")[1]
    unknown = "mp_" + "0" * 10 + "." + made[1].token.split(".")[1]
    sentences = []
    for token, now, expected in (
        (made[0].token, NOW, "was revoked"),
        (made[1].token, NOW + day, "has expired"),
        (swapped, NOW, "not valid"),
        (unknown, NOW, "not valid"),
        ("", NOW, "no API key"),
        ("mp_x.y\x00", NOW, "no API key"),
        ("x" * 100_000, NOW, "no API key"),
    ):
        with pytest.raises(NotAuthenticated, match=expected) as raised:
            service.authenticate(token, now)
        sentences.append(str(raised.value))
    assert sentences[2] == sentences[3]
    service.authenticate(made[1].token, NOW)
    service.deactivate(admin, BOB, NOW)
    with pytest.raises(NotAuthenticated, match="not active"):
        service.authenticate(made[1].token, NOW)
    with pytest.raises(NotAuthenticated, match="no active user"):
        service.person(BOB)


def test_only_administrators_change_people(service: AccessService, admin: Principal) -> None:
    """Everybody else is told so, and may make and revoke keys of their own, no wider than they."""
    service.create_user(admin, "bob", "Bob", [Role.OPERATOR], NOW)
    bob = service.person(BOB)
    attempts: list[Callable[[], object]] = [
        lambda: service.create_user(bob, "eve", "Eve", [Role.ADMIN], NOW),
        lambda: service.set_roles(bob, BOB, [Role.ADMIN], NOW),
        lambda: service.deactivate(bob, ADMIN, NOW),
        lambda: service.create_key(bob, ADMIN, [Scope.ADMIN], NOW),
        lambda: service.create_key(bob, BOB, [Scope.ADMIN], NOW),
        lambda: service.revoke_key(bob, "0" * 10, NOW),
        lambda: service.users(bob),
        lambda: service.keys(bob),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowed):
            attempt()
    own = service.create_key(bob, BOB, [Scope.USAGE_READ], NOW)
    narrow = service.authenticate(own.token, NOW)
    with pytest.raises(NotAllowed):
        service.create_key(narrow, BOB, [Scope.CLOSES_RUN], NOW)
    assert [key.id for key in service.keys(bob, BOB)] == [own.key.id]
    service.revoke_key(bob, own.key.id, NOW)
    assert [user.id for user in service.users(admin)] == ["admin", "bob"]


def test_wrong_requests_are_refused(service: AccessService, admin: Principal) -> None:
    """Bad ids and names, taken ids, unknown users, scopes beyond the user's, past expiry."""
    for id_, name in (("Bob", "B"), ("", "B"), ("a" * 81, "B"), ("bob", " "), ("bob", "a\x00")):
        with pytest.raises(InvalidInput):
            service.create_user(admin, id_, name, [], NOW)
    service.create_user(admin, "bob", "Bob", [Role.VIEWER], NOW)
    with pytest.raises(Conflict):
        service.create_user(admin, "bob", "Bob", [], NOW)
    with pytest.raises(NotFound):
        service.set_roles(admin, UserId("eve"), [], NOW)
    with pytest.raises(NotFound):
        service.revoke_key(admin, "0" * 10, NOW)
    with pytest.raises(InvalidInput, match="does not have closes:run"):
        service.create_key(admin, BOB, [Scope.CLOSES_RUN], NOW)
    with pytest.raises(InvalidInput, match="at least one scope"):
        service.create_key(admin, BOB, [], NOW)
    with pytest.raises(InvalidInput, match="has passed"):
        service.create_key(admin, BOB, [Scope.USAGE_READ], NOW, NOW)


def test_nobody_removes_the_last_administrator(
    service: AccessService, admin: Principal, database: Database
) -> None:
    """Neither by role nor by deactivation; of two removing each other, one stays."""
    with pytest.raises(Conflict, match="last administrator"):
        service.set_roles(admin, ADMIN, [Role.VIEWER], NOW)
    with pytest.raises(Conflict, match="last administrator"):
        service.deactivate(admin, ADMIN, NOW)
    service.create_user(admin, "bob", "Bob", [Role.ADMIN], NOW)
    bob = service.person(BOB)
    refused: list[Exception] = []

    def remove(actor: Principal, other: UserId) -> None:
        try:
            service.deactivate(actor, other, NOW)
        except Conflict as exc:
            refused.append(exc)

    threads = [threading.Thread(target=remove, args=pair) for pair in ((admin, BOB), (bob, ADMIN))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 1
    assert sum(user.active for user in PostgresAccessStore(database).users()) == 1
