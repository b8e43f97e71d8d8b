"""The vault of personal values on a real server."""

from __future__ import annotations

import threading

import pytest

from meterpost.core.errors import NeedsPerson
from meterpost.ingest.personal import PersonalKeys
from meterpost.storage.postgres.tokens import PostgresTokenVault

pytestmark = pytest.mark.integration

SECRET = bytes(range(32))


@pytest.fixture
def vault(database):
    return PostgresTokenVault(database, PersonalKeys(SECRET))


def test_a_value_has_one_token_and_the_way_back(database, vault):
    """Equal values of a field share a token, across processes too; fields do not share."""
    tokens = vault.tokens("subject", {"1.2.3.4", "ümläut", ""})
    other = PostgresTokenVault(database, PersonalKeys(SECRET))
    assert other.tokens("subject", {"1.2.3.4", "new"})["1.2.3.4"] == tokens["1.2.3.4"]
    assert other.find("subject", "ümläut") == tokens["ümläut"]
    assert vault.find("data.client", "1.2.3.4") is None
    assert vault.tokens("data.client", ["1.2.3.4"])["1.2.3.4"] != tokens["1.2.3.4"]
    assert vault.reveal(tokens.values()) == {token: value for value, token in tokens.items()}


def test_nothing_readable_is_stored(database, vault):
    """The row holds neither the value nor a plain hash of it."""
    vault.tokens("subject", ["someone@example.com"])
    with database.raw_connection() as raw:
        (row,) = raw.execute("SELECT * FROM meterpost.personal_token").fetchall()
    assert not any(b"someone" in bytes(cell) for cell in row if isinstance(cell, bytes))


def test_erasure_leaves_a_token_that_stands_for_nobody(vault):
    """After erasing, the token opens no more, and the value gets a new one if it comes again."""
    token = vault.tokens("subject", ["x"])["x"]
    assert vault.erase("subject", "x") == token
    assert vault.reveal([token]) == {}
    assert vault.find("subject", "x") is None
    assert vault.erase("subject", "x") is None
    assert vault.tokens("subject", ["x"])["x"] != token


def test_another_process_forgets_an_erased_value_in_time(database, vault):
    """What is remembered is bounded in number and in time."""
    now = [0.0]
    other = PostgresTokenVault(
        database, PersonalKeys(SECRET), remembered_max=2, monotonic=lambda: now[0]
    )
    token = other.tokens("subject", ["x"])["x"]
    vault.erase("subject", "x")
    assert other.tokens("subject", ["x"])["x"] == token
    now[0] = 61.0
    assert other.tokens("subject", ["x", "y", "z"])["x"] != token


def test_writers_at_once_agree(database):
    """Threads that meet the same new values at the same time end with the same tokens."""
    results = []
    values = [f"v{n}" for n in range(200)]
    gate = threading.Barrier(4)

    def run(order):
        own = PostgresTokenVault(database, PersonalKeys(SECRET))
        gate.wait()
        results.append(dict(own.tokens("subject", order)))

    threads = [
        threading.Thread(target=run, args=(values[:: 1 if n % 2 else -1],)) for n in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert len(results) == 4
    assert all(result == results[0] for result in results)


def test_the_secret_matters(database, vault):
    """A short secret is refused; values sealed under another one do not open."""
    with pytest.raises(NeedsPerson):
        PersonalKeys(b"short")
    token = vault.tokens("subject", ["x"])["x"]
    other = PostgresTokenVault(database, PersonalKeys(bytes(32)))
    assert other.find("subject", "x") is None
    with pytest.raises(NeedsPerson, match="secret"):
        other.reveal([token])
