"""Whether the audit log is what was sealed: recomputed from entries, seals and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

from meterpost.audit.model import AuditReport, Checkpoint, Seal, SealedRun, StoredEntry
from meterpost.audit.seal import GENESIS, entry_bytes, leaf_hash, root_of, seal_hash
from meterpost.core.problem import Problem

PROBLEMS_MAX = 1_000

#: An entry may be this much older than the seal that was made without it: as long as the
#: transaction that wrote it may have taken to commit.
LATE_MAX = timedelta(hours=1)


def verify_runs(
    runs: Iterable[SealedRun],
    unsealed: Iterable[StoredEntry],
    checkpoints: Sequence[Checkpoint],
    problems: Sequence[Problem] = (),
) -> AuditReport:
    """The report over all seals in order, then the entries without a seal.

    Detected: edited, deleted, inserted and reordered sealed entries, a broken or shortened
    chain, seals that differ from their checkpoints, entries dated before a seal that did not
    see them. ``problems`` are those found while reading.
    """
    check = _Verification(checkpoints)
    check.problems += problems
    for run in runs:
        check.run(run)
    check.end()
    for stored in unsealed:
        check.loose(stored)
    return AuditReport(
        entries=check.entries + check.unsealed,
        seals=check.seals,
        unsealed=check.unsealed,
        checkpoints=len(checkpoints),
        problems=tuple(check.problems[:PROBLEMS_MAX]),
    )


class _Verification:
    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.problems: list[Problem] = []
        self.entries = 0
        self.seals = 0
        self.unsealed = 0
        self._last: Seal | None = None
        self._seen: set[int] = set()
        self._expected: dict[int, set[str]] = {}
        for checkpoint in checkpoints:
            self._expected.setdefault(checkpoint.n, set()).add(checkpoint.hash)
        for n, hashes in sorted(self._expected.items()):
            if len(hashes) > 1:
                self._complain(
                    "checkpoints-differ", f"Two checkpoints of seal {n} name different hashes.", n
                )

    def run(self, run: SealedRun) -> None:
        """Check one seal against its entries, the seal before, and its checkpoint."""
        seal = run.seal
        self._chain(seal)
        self._content(run)
        for hashed in self._expected.pop(seal.n, set()):
            if hashed != seal.hash:
                self._complain(
                    "checkpoint-mismatch",
                    f"Seal {seal.n} is not the one its checkpoint names: it was made anew.",
                    seal.n,
                )
        for _, stored in run.entries:
            self._dated(stored)
        self.seals += 1
        self.entries += len(run.entries)
        self._last = seal

    def end(self) -> None:
        """Complain about checkpoints whose seals are gone."""
        for n in sorted(self._expected):
            self._complain(
                "seals-missing", f"Seal {n} has a checkpoint and is gone: the log was cut off.", n
            )

    def loose(self, stored: StoredEntry) -> None:
        """Count an entry that no seal covers."""
        self.unsealed += 1
        if stored.sequence in self._seen:
            self._complain("double", f"Entry {stored.sequence} is there twice.", stored=stored)
        self._seen.add(stored.sequence)
        self._dated(stored)

    def _chain(self, seal: Seal) -> None:
        n = 1 if self._last is None else self._last.n + 1
        previous = GENESIS if self._last is None else self._last.hash
        if seal.n != n:
            self._complain("chain-gap", f"Seal {seal.n} stands where seal {n} should.", seal.n)
        if seal.previous != previous:
            self._complain(
                "chain-broken", f"Seal {seal.n} does not follow from the seal before it.", seal.n
            )
        if seal_hash(seal) != seal.hash:
            self._complain("seal-edited", f"Seal {seal.n} was changed.", seal.n)
        if self._last is not None and seal.sealed_at < self._last.sealed_at:
            self._complain("clock-back", f"Seal {seal.n} is dated before the one before.", seal.n)

    def _content(self, run: SealedRun) -> None:
        seal = run.seal
        if len(run.entries) != seal.entries:
            word = "deleted" if len(run.entries) < seal.entries else "inserted"
            self._complain(
                f"entries-{word}",
                f"Seal {seal.n} covers {seal.entries} entries and {len(run.entries)} are there.",
                seal.n,
            )
        places = [place for place, _ in run.entries]
        order = [stored.sequence for _, stored in run.entries]
        # Strictly rising, so a sequence cannot stand twice in one run.
        if places != list(range(len(places))) or any(a >= b for a, b in pairwise(order)):
            self._complain("reordered", f"The entries of seal {seal.n} are out of order.", seal.n)
        if not self._seen.isdisjoint(order):
            self._complain("double", f"Seal {seal.n} covers an entry sealed before.", seal.n)
        self._seen.update(order)
        try:
            root = root_of([leaf_hash(entry_bytes(stored)) for _, stored in run.entries]).hex()
        except (TypeError, ValueError) as exc:
            self._complain("edited", f"An entry of seal {seal.n} has no exact form: {exc}.", seal.n)
            return
        if root != seal.root:
            self._complain(
                "edited", f"The entries of seal {seal.n} are not those that were sealed.", seal.n
            )

    def _dated(self, stored: StoredEntry) -> None:
        if self._last is not None and stored.entry.at < self._last.sealed_at - LATE_MAX:
            self._complain(
                "backdated",
                f"Entry {stored.sequence} is dated {stored.entry.at:%Y-%m-%dT%H:%M:%SZ}, and seal "
                f"{self._last.n} was made later without it: it was inserted afterwards.",
                stored=stored,
            )

    def _complain(
        self, code: str, sentence: str, n: int | None = None, stored: StoredEntry | None = None
    ) -> None:
        where = f"seal {n}" if stored is None else f"entry {stored.sequence}"
        self.problems.append(Problem(code, sentence, where))
