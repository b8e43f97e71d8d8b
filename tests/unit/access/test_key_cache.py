"""The edge's memory of keys: short, bounded, and never longer than a key lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from meterpost.access.cache import TTL, KeyCache
from meterpost.access.model import Principal
from meterpost.core.errors import NotAuthenticated
from meterpost.core.ids import UserId

NOW = datetime(2026, 10, 1, tzinfo=UTC)


class Door:
    """Knows some tokens and counts how often it is asked."""

    def __init__(self, **known: datetime | None) -> None:
        self.known = known
        self.asked = 0

    def authenticate(self, token: str, now: datetime) -> Principal:
        self.asked += 1
        if token not in self.known:
            raise NotAuthenticated("This API key is not valid.")
        return Principal(UserId("ann"), frozenset(), frozenset(), token, self.known[token])


def test_a_good_key_is_asked_about_once_in_five_seconds() -> None:
    """Within the time to live the database is not asked; revocation takes effect after it."""
    door = Door(good=None)
    cache = KeyCache(door.authenticate)
    assert timedelta(seconds=5) == TTL
    first = cache.authenticate("good", NOW)
    assert cache.authenticate("good", NOW + timedelta(seconds=4.9)) is first
    assert door.asked == 1
    door.known.clear()
    with pytest.raises(NotAuthenticated):
        cache.authenticate("good", NOW + timedelta(seconds=5))


def test_a_key_expires_on_time_all_the_same() -> None:
    """A remembered key is forgotten at its expiry, not at the end of the time to live."""
    door = Door(brief=NOW + timedelta(seconds=2))
    cache = KeyCache(door.authenticate)
    cache.authenticate("brief", NOW)
    cache.authenticate("brief", NOW + timedelta(seconds=1))
    cache.authenticate("brief", NOW + timedelta(seconds=2))
    assert door.asked == 2


def test_a_clock_set_back_prolongs_nothing() -> None:
    """A moment before the key was checked is no reason to trust it."""
    door = Door(good=None)
    cache = KeyCache(door.authenticate)
    cache.authenticate("good", NOW)
    cache.authenticate("good", NOW - timedelta(hours=1))
    assert door.asked == 2


def test_memory_is_bounded_and_wrong_keys_take_none() -> None:
    """The oldest good keys make room; wrong keys are never remembered."""
    door = Door(a=None, b=None, c=None)
    cache = KeyCache(door.authenticate, size_max=2)
    for token in "abc":
        cache.authenticate(token, NOW)
    for n in range(50):
        with pytest.raises(NotAuthenticated):
            cache.authenticate(f"wrong{n}\udc80", NOW)
    asked = door.asked
    cache.authenticate("b", NOW)
    cache.authenticate("c", NOW)
    assert door.asked == asked
    cache.authenticate("a", NOW)
    assert door.asked == asked + 1
