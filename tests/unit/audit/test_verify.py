"""Verification under random tampering: whatever is done to a sealed log, it is reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterpost.audit.checkpoints import CheckpointFile
from meterpost.audit.export import verify_export
from meterpost.audit.model import AuditEntry, Checkpoint, Seal, SealedRun, StoredEntry
from meterpost.audit.seal import seal_entries
from meterpost.audit.verify import verify_runs
from meterpost.core.canonical import canonical_json
from meterpost.core.errors import InvalidInput

START = datetime(2026, 10, 1, tzinfo=UTC)


@dataclass
class Log:
    """A log that can be changed behind the seals' back."""

    runs: list[tuple[Seal, list[StoredEntry]]]
    unsealed: list[StoredEntry]
    checkpoints: list[Checkpoint]

    def sealed_runs(self) -> list[SealedRun]:
        return [SealedRun(seal, tuple(enumerate(entries))) for seal, entries in self.runs]

    def intact(self) -> bool:
        return verify_runs(self.sealed_runs(), self.unsealed, self.checkpoints).intact


def entry(n: int, at: datetime, actor: str = "ann") -> StoredEntry:
    return StoredEntry(n, AuditEntry(at, actor, "close.requested", "close", str(n), {"n": n}))


def log(sizes: Sequence[int], unsealed: int = 2) -> Log:
    """Seals of these sizes, a day apart."""
    made = Log([], [], [])
    last, n = None, 0
    for day, size in enumerate(sizes):
        at = START + timedelta(days=day)
        entries = [entry(n + i, at) for i in range(size)]
        n += size
        last = seal_entries(entries, last, at)
        made.runs.append((last, entries))
        made.checkpoints.append(Checkpoint(last.n, last.hash, at))
    made.unsealed = [entry(n + i, START + timedelta(days=len(sizes))) for i in range(unsealed)]
    return made


def edit(made: Log, random: Random) -> None:
    _, entries = random.choice(made.runs)
    n = random.randrange(len(entries))
    old = entries[n]
    changed = random.choice(
        [
            {"actor": "eve"},
            {"action": "close.refused"},
            {"object_id": "x"},
            {"object_kind": "x"},
            {"detail": {"n": -1}},
            {"correlation_id": "x"},
            {"at": old.entry.at + timedelta(microseconds=1)},
        ]
    )
    entries[n] = replace(old, entry=replace(old.entry, **changed))


def renumber(made: Log, random: Random) -> None:
    _, entries = random.choice(made.runs)
    entries[-1] = replace(entries[-1], sequence=entries[-1].sequence + 1_000)


def delete(made: Log, random: Random) -> None:
    _, entries = random.choice(made.runs)
    del entries[random.randrange(len(entries))]


def insert(made: Log, random: Random) -> None:
    seal, entries = random.choice(made.runs)
    entries.insert(random.randrange(len(entries) + 1), entry(5_000, seal.sealed_at))


def insert_dated_back(made: Log, random: Random) -> None:
    before = made.runs[random.randrange(len(made.runs))][0].sealed_at - timedelta(hours=2)
    made.unsealed.append(entry(5_000, before))


def reorder(made: Log, random: Random) -> None:
    _, entries = random.choice([run for run in made.runs if len(run[1]) > 1])
    a, b = random.sample(range(len(entries)), 2)
    entries[a], entries[b] = entries[b], entries[a]


def move(made: Log, random: Random) -> None:
    a, b = random.sample(range(len(made.runs)), 2)
    made.runs[b][1].append(made.runs[a][1].pop())


def unseal(made: Log, random: Random) -> None:
    _, entries = random.choice(made.runs)
    made.unsealed.insert(0, entries.pop(random.randrange(len(entries))))


def truncate(made: Log, random: Random) -> None:
    del made.runs[random.randrange(len(made.runs)) :]
    if random.random() < 0.5:
        made.unsealed = []


def drop_seal(made: Log, random: Random) -> None:
    del made.runs[random.randrange(len(made.runs))]


def swap_seals(made: Log, random: Random) -> None:
    a, b = random.sample(range(len(made.runs)), 2)
    made.runs[a], made.runs[b] = made.runs[b], made.runs[a]


def edit_seal(made: Log, random: Random) -> None:
    n = random.randrange(len(made.runs))
    seal, entries = made.runs[n]
    changed = random.choice(
        [{"sealed_at": seal.sealed_at + timedelta(seconds=1)}, {"root": "00" * 32}, {"n": 99}]
    )
    made.runs[n] = (replace(seal, **changed), entries)


def seal_anew(made: Log, random: Random) -> None:
    """Everything from some entry on, sealed again as the product itself would."""
    n = random.randrange(len(made.runs))
    made.runs[n][1][0] = replace(made.runs[n][1][0], entry=entry(0, START, "eve").entry)
    last = made.runs[n - 1][0] if n else None
    for i in range(n, len(made.runs)):
        old, entries = made.runs[i]
        last = seal_entries(entries, last, old.sealed_at)
        made.runs[i] = (last, entries)


MUTATIONS: list[Callable[[Log, Random], None]] = [
    edit,
    renumber,
    delete,
    insert,
    insert_dated_back,
    reorder,
    move,
    unseal,
    truncate,
    drop_seal,
    swap_seals,
    edit_seal,
    seal_anew,
]


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5).filter(lambda sizes: max(sizes) > 1),
    st.sampled_from(MUTATIONS),
    st.integers(0, 2**32),
)
def test_any_change_is_reported(
    sizes: list[int], mutate: Callable[[Log, Random], None], seed: int
) -> None:
    """An untouched log is intact; after any one change it is not."""
    made = log(sizes)
    assert made.intact()
    mutate(made, Random(seed))
    assert not made.intact()


def test_what_follows_the_last_checkpoint_can_only_be_seen_as_a_shorter_log() -> None:
    """Cutting off seals that have no checkpoint goes unseen; the report says how far they go."""
    made = log([2, 2, 2])
    made.checkpoints.pop()
    made.runs.pop()
    report = verify_runs(made.sealed_runs(), made.unsealed, made.checkpoints)
    assert report.intact
    assert (report.seals, report.checkpoints) == (2, 2)


def test_two_checkpoints_of_one_seal_must_agree() -> None:
    """A checkpoint file that was appended to twice over different logs is reported."""
    made = log([2, 2])
    made.checkpoints.append(Checkpoint(2, "ab" * 32, START))
    assert not made.intact()


def written(made: Log, path: Path) -> Path:
    """The log as an export, written by this test rather than by the product."""
    lines: list[object] = [{"format": "meterpost-audit", "version": 1}]
    for seal, entries in made.runs:
        lines.append({"seal": seal})
        lines += [
            {"place": n, "sequence": e.sequence, "entry": e.entry} for n, e in enumerate(entries)
        ]
    lines += [{"place": None, "sequence": e.sequence, "entry": e.entry} for e in made.unsealed]
    sealed = sum(len(entries) for _, entries in made.runs)
    end = {"seals": len(made.runs), "sealed": sealed, "unsealed": len(made.unsealed)}
    path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in [*lines, {"end": end}]))
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFile:
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")
    file.append(log([3, 4]).checkpoints)
    return file


def test_an_export_is_verified_line_by_line(tmp_path: Path, checkpoints: CheckpointFile) -> None:
    """A whole export is intact; without any one of its lines it is not."""
    path = written(log([3, 4]), tmp_path / "log.jsonl")
    report = verify_export(path, checkpoints)
    assert report.intact, report.problems
    assert (report.entries, report.seals, report.unsealed) == (9, 2, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    for n in range(len(lines)):
        path.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        assert not verify_export(path, checkpoints).intact, lines[n]
        path.write_bytes(b"".join(lines[:n]))
        assert not verify_export(path, checkpoints).intact
        path.write_bytes(b"".join([*lines[: n + 1], lines[n], *lines[n + 1 :]]))
        assert not verify_export(path, checkpoints).intact


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b'{"seal": 5}\n',
        b'{"seal": {"n": "x"}}\n',
        b'{"entry": {}, "place": 0, "sequence": 1}\n',
        b'{"entry": {"at": "yesterday"}, "place": null, "sequence": 1}\n',
        b'{"end": null}\n',
    ],
)
def test_a_garbled_export_is_a_report_too(
    tmp_path: Path, checkpoints: CheckpointFile, garbage: bytes
) -> None:
    """Whatever the file holds, the answer is a report with problems by line."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(garbage)
    assert not verify_export(path, checkpoints).intact
    whole = written(log([3, 4]), tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], garbage or b"\n", *lines[3:]]))
    assert not verify_export(path, checkpoints).intact


def test_values_of_wrong_types_in_an_export_are_reported(
    tmp_path: Path, checkpoints: CheckpointFile
) -> None:
    """A place that is text, or an actor that is a number, is a problem and no crash."""
    path = written(log([3, 4]), tmp_path / "log.jsonl")
    plain = [json.loads(line) for line in path.read_bytes().splitlines()]
    for change in ({"place": "x"}, {"place": 2.5}, {"sequence": True}):
        changed = [dict(line) for line in plain]
        changed[2].update(change)
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        assert not verify_export(path, checkpoints).intact


def test_checkpoints_are_read_back_as_written(tmp_path: Path) -> None:
    """The file is made with its folder, appended to, and says which line is none."""
    file = CheckpointFile(tmp_path / "a" / "b" / "checkpoints.jsonl")
    assert file.read() == []
    assert file.last() is None
    made = log([1, 1, 1]).checkpoints
    file.append(made[:2])
    file.append([])
    file.append(made[2:])
    assert list(file.read()) == made
    assert file.last() == made[-1]
    with file.path.open("a") as out:
        out.write('{"n": 4}\nnonsense\n')
    with pytest.raises(InvalidInput, match=r"checkpoints\.jsonl:4"):
        file.read()
    with pytest.raises(InvalidInput, match="last line"):
        file.last()
