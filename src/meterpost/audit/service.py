"""Sealing what was decided, verifying it, proving single entries."""

from __future__ import annotations

from datetime import datetime

from meterpost.audit.model import AuditReport, Checkpoint, Frontier, InclusionProof, Seal
from meterpost.audit.ports import AuditStore, Checkpoints, Sealing
from meterpost.audit.seal import entry_bytes, inclusion_path, leaf_hash, seal_entries
from meterpost.audit.verify import verify_runs
from meterpost.core.clock import require_utc
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.core.problem import Problem

#: Larger runs are sealed as several, so that memory stays bounded.
ENTRIES_PER_SEAL_MAX = 10_000

#: Below every sequence there can be.
BEGINNING = -(1 << 62)
SETTLED_MARGIN = 10_000


class Sealer:
    """Seals new entries in order; any number may run, one at a time works."""

    def __init__(self, store: AuditStore, checkpoints: Checkpoints) -> None:
        self._store = store
        self._checkpoints = checkpoints
        # Entries up to here are sealed for good, so that a call looks at the newest only. The
        # first call of a process looks at all.
        self._settled = BEGINNING
        self._ahead: Frontier | None = None

    def seal(self, now: datetime) -> list[Seal]:
        """The seals made, each with its checkpoint on disk; none where nothing was new.

        A checkpoint follows its seal's commit: one that a crash kept from being written is
        written with the next call. Raises: Conflict when checkpoints name seals the database
        lacks, since sealing on would hide that the log was cut off.
        """
        made: list[Seal] = []
        while True:
            with self._store.sealing() as sealing:
                seal = self._seal_once(sealing, require_utc(now))
            if seal is not None:
                made.append(seal)
            if seal is None or seal.entries < ENTRIES_PER_SEAL_MAX:
                break
        with self._store.sealing() as sealing:
            self._write_checkpoints(sealing)
        return made

    def _seal_once(self, sealing: Sealing, now: datetime) -> Seal | None:
        last = sealing.last()
        self._require_known(last)
        frontier = sealing.frontier()
        entries = sealing.sealable(ENTRIES_PER_SEAL_MAX, self._settled)
        if len(entries) < ENTRIES_PER_SEAL_MAX:
            self._settle(frontier)
        if not entries:
            return None
        # A clock that was set back must not date a seal before the one it follows.
        sealed_at = now if last is None else max(now, last.sealed_at)
        seal = seal_entries(entries, last, sealed_at)
        sealing.add(seal, [stored.sequence for stored in entries])
        return seal

    def _settle(self, now: Frontier) -> None:
        """Move the settled mark, once everybody who wrote below it has ended.

        A sequence is drawn a moment before its transaction gets its number; the margin is for
        a writer that was stopped in between.
        """
        if self._ahead is not None and now.oldest_running >= self._ahead.next_transaction:
            self._settled = max(self._settled, self._ahead.sequence - SETTLED_MARGIN)
            self._ahead = None
        if self._ahead is None:
            self._ahead = now

    def _require_known(self, last: Seal | None) -> None:
        newest = self._checkpoints.last()
        n = 0 if last is None else last.n
        if newest is None or newest.n < n:
            return
        if last is None or newest.n > n or newest.hash != last.hash:
            raise Conflict(
                f"The checkpoints name seal {newest.n} ({newest.hash[:12]}…), and the database "
                f"ends with seal {n}: entries were cut off, or an older backup was restored.",
                hint="Run `meterpost audit verify`. After a restore, keep the checkpoint file as "
                "evidence under another name; sealing then goes on.",
            )

    def _write_checkpoints(self, sealing: Sealing) -> None:
        last = self._checkpoints.last()
        new = sealing.since(0 if last is None else last.n)
        self._checkpoints.append([Checkpoint(seal.n, seal.hash, seal.sealed_at) for seal in new])


def verify(store: AuditStore, checkpoints: Checkpoints) -> AuditReport:
    """Whether the log in the database is the one that was sealed, in one snapshot of it.

    Checkpoints are read before the snapshot is taken, so that a seal made meanwhile is no
    complaint.
    """
    problems: list[Problem] = []
    written: list[Checkpoint] = []
    try:
        written = list(checkpoints.read())
    except InvalidInput as exc:
        problems += exc.problems or (Problem("checkpoint", exc.sentence),)
    with store.reading() as reading:
        return verify_runs(reading.runs(), reading.unsealed(), written, problems)


def prove(store: AuditStore, sequence: int) -> InclusionProof:
    """The proof that an entry stands under its seal, checkable without the other entries.

    Raises: NotFound while no seal covers the entry.
    """
    with store.reading() as reading:
        run = reading.run_of(sequence)
    if run is None:
        raise NotFound(
            f"Audit entry {sequence} is not sealed, or there is none.",
            hint="Sealing follows within a second while the engine runs.",
        )
    leaves = [leaf_hash(entry_bytes(stored)) for _, stored in run.entries]
    place = next(i for i, (_, stored) in enumerate(run.entries) if stored.sequence == sequence)
    path = tuple(beside.hex() for beside in inclusion_path(leaves, place))
    return InclusionProof(run.entries[place][1], run.seal, place, path)
