"""The sender's own books: what was sent, and by naive arithmetic what it costs."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

SOURCE = "//kills.test"
EVENT_TYPE = "com.example.kill.call"

INCLUDED = Decimal(100)
TOKEN_PRICE = Decimal("0.0137")
CALLS_BEFORE = 10
CALL_PRICE_BEFORE, CALL_PRICE_AFTER = Decimal("0.11"), Decimal("0.045")
FEE = Decimal("3.00")

_CENT = Decimal("0.01")

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC that is over."""

    start: datetime
    end: datetime

    @classmethod
    def before(cls, now: datetime) -> Month:
        """The last whole month before a moment."""
        end = datetime(now.year, now.month, 1, tzinfo=UTC)
        return cls((end - timedelta(days=1)).replace(day=1), end)

    @property
    def name(self) -> str:
        """As accounting periods are called."""
        return f"{self.start:%Y-%m}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a contract used up to a moment."""

    tokens: Decimal = Decimal(0)
    calls: int = 0

    def plus(self, tokens: Decimal) -> Usage:
        """With one more call."""
        return Usage(self.tokens + tokens, self.calls + 1)


def amount(usage: Usage) -> Decimal:
    """What a month costs by the prices of `workspace`, each line rounded once, half up."""
    before = min(usage.calls, CALLS_BEFORE)
    after = usage.calls - before
    tokens = max(usage.tokens - INCLUDED, Decimal(0)) * TOKEN_PRICE
    calls = before * CALL_PRICE_BEFORE + after * CALL_PRICE_AFTER
    return sum((each.quantize(_CENT, ROUND_HALF_UP) for each in (tokens, calls, FEE)), Decimal(0))


def contract_names(count: int) -> tuple[str, ...]:
    """The contracts of an installation."""
    return tuple(f"C-{number:03d}" for number in range(count))


@dataclass
class Books:
    """Events that were answered with 202, and each contract's usage.

    ``versions`` are frozen copies of the usage, one per close that was asked for.
    """

    contracts: Sequence[str]
    month: Month
    random: random.Random
    tokens: dict[str, Decimal] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    versions: list[Mapping[str, Usage]] = field(default_factory=list)
    unowned: int = 0
    _last: int = 0

    def batch(self, contracts: Sequence[str]) -> Batch:
        """New events, one per contract, with what every producer sends now and then: an exact
        repetition, another content under a known id, and usage of a subject nobody knows.
        """
        events = [self._event(contract) for contract in contracts]
        sent = [*events]
        if self.tokens:
            known = self.random.choice(list(self.tokens))
            sent.append(_cloud_event(known, "unknown", self.month.start, Decimal("7.5")))
        sent += [events[0]]
        unowned = self._event("unknown")
        sent.append(unowned)
        return Batch(json.dumps(sent).encode(), len(sent), (*events, unowned))

    def acknowledged(self, batch: Batch) -> None:
        """The edge answered 202 for the whole batch."""
        for event in batch.counted:
            tokens = Decimal(str(event["data"]["tokens"]))
            self.tokens[event["id"]] = tokens
            if event["subject"] == "unknown":
                self.unowned += 1
            else:
                self.usage[event["subject"]] = self.usage[event["subject"]].plus(tokens)

    def freeze(self) -> int:
        """The version of the usage that a close now has to come to."""
        self.versions.append(dict(self.usage))
        return len(self.versions) - 1

    def amount(self, contract: str, version: int) -> Decimal:
        """What a contract costs by a version of the books."""
        return amount(self.versions[version].get(contract, Usage()))

    def _event(self, subject: str) -> Event:
        self._last += 1
        length = self.month.end - self.month.start
        at = self.month.start + timedelta(
            seconds=self.random.randrange(int(length.total_seconds()))
        )
        tokens = Decimal(self.random.randrange(1, 40_000)) / 8
        return _cloud_event(f"e{self._last}", subject, at, tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """A request's body, how many events it holds, and those of them that count."""

    body: bytes
    events: int
    counted: Sequence[Event]


def _cloud_event(id_: str, subject: str, at: datetime, tokens: Decimal) -> Event:
    return {
        "specversion": "1.0",
        "id": id_,
        "source": SOURCE,
        "type": EVENT_TYPE,
        "subject": subject,
        "time": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "data": {"tokens": float(tokens)},  # eighths are exact
    }
