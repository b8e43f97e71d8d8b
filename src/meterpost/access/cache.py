"""Keys already checked, for the edge: a request does not ask the database who is asking."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from meterpost.access.model import Principal

#: A revoked key or a changed role takes effect within this time (docs/audit.md, "Keys").
TTL = timedelta(seconds=5)
SIZE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: datetime


class KeyCache:
    """`AccessService.authenticate`, remembered for up to `TTL`; safe between threads.

    Only good keys are remembered (by a hash of the token), so that a flood of wrong ones
    cannot push them out.
    """

    def __init__(
        self,
        authenticate: Callable[[str, datetime], Principal],
        ttl: timedelta = TTL,
        size_max: int = SIZE_MAX,
    ) -> None:
        self._authenticate = authenticate
        self._ttl = ttl
        self._size_max = size_max
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def authenticate(self, token: str, now: datetime) -> Principal:
        """Who a token speaks for, as of at most `TTL` ago. Raises: NotAuthenticated."""
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            known = self._known.get(name)
        # The lower bound: after a clock was set back, nothing is trusted for longer than meant.
        if known is not None and known.until - self._ttl <= now < known.until:
            return known.principal
        try:
            principal = self._authenticate(token, now)
        except Exception:
            with self._lock:
                self._known.pop(name, None)
            raise
        until = now + self._ttl
        if principal.until is not None:
            until = min(until, principal.until)
        with self._lock:
            self._known[name] = _Known(principal, until)
            self._known.move_to_end(name)
            while len(self._known) > self._size_max:
                self._known.popitem(last=False)
        return principal
