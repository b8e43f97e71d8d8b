"""Misbehaviour on request, repeatable: the n-th draw of a fault depends on seed, fault and n."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from datetime import datetime

from meterpost_sandbox.answers import invalid
from meterpost_sandbox.fields import Fields, moment_text, parse_moment

#: Faults that end a request, in the order in which they are considered.
ENDING = (
    "partial_then_drop",
    "commit_then_drop",
    "drop_before_commit",
    "status_429",
    "status_500",
    "status_503",
)
_ON_WRITES_ONLY = frozenset({"partial_then_drop", "commit_then_drop", "delayed_visibility_s"})
_TIMED = ("stall_s", "delayed_visibility_s")
_SECONDS_MAX = 3_600.0
_NEXT_MAX = 10**9
_REFERENCES_MAX = 10_000
_KNOWN = frozenset({*ENDING, *_TIMED, "reject_reference", "down", "outage_until"})


@dataclass(slots=True)
class _Rule:
    """One fault: when it strikes and how."""

    kind: str
    probability: float
    left: int | None
    on: str
    seconds: float | None
    where: str
    draws: int = 0

    def as_json(self) -> dict[str, object]:
        shown: dict[str, object] = (
            {"probability": self.probability} if self.left is None else {"next": self.left}
        )
        if self.seconds is not None:
            shown["seconds" if self.kind in _TIMED else "retry_after_s"] = self.seconds
        if self.kind == "stall_s":
            shown["where"] = self.where
        if self.kind not in _ON_WRITES_ONLY:
            shown["on"] = self.on
        return shown


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request."""

    ending: str | None = None
    retry_after_s: float | None = None
    stall_before_s: float = 0.0
    stall_after_s: float = 0.0
    hidden_s: float = 0.0

    def struck(self) -> tuple[str, ...]:
        """The names of the faults in it."""
        stalled = self.stall_before_s or self.stall_after_s
        return tuple(
            name
            for name, hit in (
                (self.ending or "", self.ending),
                ("stall_s", stalled),
                ("delayed_visibility_s", self.hidden_s),
            )
            if hit
        )


class Faults:
    """The faults in force; threads share it."""

    def __init__(self, seed: int, spec: object = None) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._rules: dict[str, _Rule] = {}
        self._references: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._down = False
        self._outage_until: datetime | None = None
        self.set({} if spec is None else spec)

    def set(self, spec: object) -> None:
        """Replace all faults; draws start anew.

        Raises: Refused (422) naming what is wrong; the old faults then stay.
        """
        fields = Fields(spec, _KNOWN)
        rules = {
            kind: _rule(kind, fields.raw(kind)) for kind in (*ENDING, *_TIMED) if fields.has(kind)
        }
        references, pattern = _rejected(fields.raw("reject_reference"))
        down = fields.flag("down", False)
        until = _moment(fields)
        with self._lock:
            self._rules = rules
            self._references, self._pattern = references, pattern
            self._down, self._outage_until = down, until

    def as_json(self) -> dict[str, object]:
        """The faults in force, with what is left of `next`."""
        with self._lock:
            shown: dict[str, object] = {kind: rule.as_json() for kind, rule in self._rules.items()}
            if self._references or self._pattern:
                shown["reject_reference"] = {
                    "references": sorted(self._references),
                    "regex": self._pattern.pattern if self._pattern else None,
                }
            if self._down:
                shown["down"] = True
            if self._outage_until:
                shown["outage_until"] = moment_text(self._outage_until)
            return shown

    def out(self, now: datetime) -> str | None:
        """The outage in force (`down` or `outage_until`), or None."""
        with self._lock:
            if self._down:
                return "down"
            return "outage_until" if self._outage_until and now < self._outage_until else None

    def rejects(self, reference: str) -> bool:
        """Whether invoices with that reference are refused."""
        with self._lock:
            return reference in self._references or bool(
                self._pattern and self._pattern.search(reference)
            )

    def fate(self, kind: str, *, divisible: bool = False) -> Fate:
        """What becomes of the next request of that kind (`write` or `read`).

        ``divisible`` says that it is a batch that may be cut in half.
        """
        with self._lock:
            hits = [
                rule
                for rule in self._rules.values()
                if rule.on in (kind, "all")
                and (divisible or rule.kind != "partial_then_drop")
                and self._draw(rule)
            ]
            ending = next((rule for rule in hits if rule.kind in ENDING), None)
            struck = {rule.kind: rule for rule in hits if rule is ending or rule.kind in _TIMED}
            if ending and ending.kind != "commit_then_drop":
                struck.pop("delayed_visibility_s", None)
            for rule in struck.values():
                if rule.left is not None:
                    rule.left -= 1
        stall, hidden = struck.get("stall_s"), struck.get("delayed_visibility_s")
        stall_s = (stall.seconds or 0.0) if stall else 0.0
        before = stall is not None and stall.where == "before_commit"
        return Fate(
            ending=ending.kind if ending else None,
            retry_after_s=ending.seconds if ending else None,
            stall_before_s=stall_s if before else 0.0,
            stall_after_s=0.0 if before else stall_s,
            hidden_s=(hidden.seconds or 0.0) if hidden else 0.0,
        )

    def _draw(self, rule: _Rule) -> bool:
        rule.draws += 1
        if rule.left is not None:
            return rule.left > 0
        return fraction(self._seed, rule.kind, rule.draws) < rule.probability


def fraction(seed: int, kind: str, n: int) -> float:
    """A number in [0, 1), evenly spread, fixed by its arguments alone."""
    drawn = hashlib.blake2b(f"{seed}/{kind}/{n}".encode(), digest_size=8).digest()
    return (int.from_bytes(drawn) >> 11) / 2**53


def _rule(kind: str, value: object) -> _Rule:
    timed = kind in _TIMED
    if timed and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = {"seconds": value}
    known = {"probability", "next"}
    known |= {"seconds"} if timed else set()
    known |= {"retry_after_s"} if kind in ("status_429", "status_503") else set()
    known |= {"where"} if kind == "stall_s" else set()
    known |= set() if kind in _ON_WRITES_ONLY else {"on"}
    fields = Fields(value, frozenset(known), f"{kind}.")
    if fields.has("probability") and fields.has("next"):
        raise invalid("give probability or next, not both", f"{kind}.next")
    left = _number(fields, "next", _NEXT_MAX, None)
    if left is not None and left != int(left):
        raise invalid("expected a whole number", f"{kind}.next")
    seconds = _number(
        fields,
        "seconds" if timed else "retry_after_s",
        _SECONDS_MAX,
        1.0 if kind == "status_429" else None,
    )
    if timed and seconds is None:
        raise invalid("this field is required", f"{kind}.seconds", "missing_field")
    return _Rule(
        kind=kind,
        probability=_number(fields, "probability", 1.0, 1.0) or 0.0,
        left=None if left is None else int(left),
        on={"writes": "write", "reads": "read", "all": "all"}[
            _choice(fields, "on", ("writes", "reads", "all"))
        ],
        seconds=seconds,
        where=_choice(fields, "where", ("before_commit", "after_commit")),
    )


def _number(fields: Fields, name: str, most: float, default: float | None) -> float | None:
    value = fields.raw(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise invalid("expected a number", fields.path + name)
    if not 0 <= value <= most:  # false for NaN too
        raise invalid(f"expected a number from 0 to {most:g}", fields.path + name)
    return float(value)


def _choice(fields: Fields, name: str, choices: tuple[str, ...]) -> str:
    value = fields.text(name, 40, choices[0])
    if value not in choices:
        raise invalid(f"expected one of {', '.join(choices)}", fields.path + name)
    return value


def _rejected(value: object) -> tuple[frozenset[str], re.Pattern[str] | None]:
    if value is None:
        return frozenset(), None
    if isinstance(value, list):
        value = {"references": value}
    fields = Fields(value, frozenset({"references", "regex"}), "reject_reference.")
    listed = fields.array("references", _REFERENCES_MAX) if fields.has("references") else ()
    references = frozenset(each for each in listed if isinstance(each, str))
    if len(references) != len(set(map(str, listed))):
        raise invalid("expected strings", "reject_reference.references")
    regex = fields.optional_text("regex", 200)
    try:
        return references, re.compile(regex) if regex else None
    except re.error as exc:
        raise invalid(f"not a regular expression: {exc}", "reject_reference.regex") from exc


def _moment(fields: Fields) -> datetime | None:
    if not fields.has("outage_until"):
        return None
    try:
        return parse_moment(fields.text("outage_until", 40))
    except ValueError as exc:
        raise invalid(str(exc), "outage_until") from exc
