"""The audit log in a real database: sealing in order, and what tampering looks like."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from meterpost.audit.checkpoints import CheckpointFile
from meterpost.audit.export import export, verify_export
from meterpost.audit.model import AuditEntry
from meterpost.audit.seal import proof_holds
from meterpost.audit.service import Sealer, prove, verify
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.storage.postgres.audit import PostgresAuditStore, write_entry
from meterpost.storage.postgres.database import Database

pytestmark = pytest.mark.integration

START = datetime(2026, 10, 1, 8, tzinfo=UTC)


def entry(n: int, at: datetime = START) -> AuditEntry:
    return AuditEntry(
        at, "ann", "transaction.approved", "transaction", str(n), {"due": "12.50", "n": n}
    )


def write(database: Database, *numbers: int, at: datetime = START) -> list[int]:
    with database.begin() as connection:
        return [write_entry(connection, entry(n, at)) for n in numbers]


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "state" / "audit" / "checkpoints.jsonl")


@pytest.fixture
def store(database: Database) -> PostgresAuditStore:
    return PostgresAuditStore(database)


@pytest.fixture
def sealer(store: PostgresAuditStore, checkpoints: CheckpointFile) -> Sealer:
    return Sealer(store, checkpoints)


def sealed_log(database: Database, sealer: Sealer) -> list[int]:
    """Three seals of four entries, two hours apart, and two entries without a seal."""
    sequences = []
    for n in range(3):
        at = START + timedelta(hours=2 * n)
        sequences += write(database, *range(4 * n, 4 * n + 4), at=at)
        assert len(sealer.seal(at)) == 1
    sequences += write(database, 98, 99, at=START + timedelta(hours=4))
    return sequences


def test_seals_cover_everything_committed_and_show_the_rest(
    database: Database, store: PostgresAuditStore, sealer: Sealer, checkpoints: CheckpointFile
) -> None:
    """A sealed log verifies; the unsealed tail is counted; sealing nothing makes no seal."""
    sealed_log(database, sealer)
    report = verify(store, checkpoints)
    assert report.intact, report.problems
    assert (report.entries, report.seals, report.unsealed, report.checkpoints) == (14, 3, 2, 3)
    assert [seal.entries for seal in sealer.seal(START + timedelta(hours=5))] == [2]
    assert sealer.seal(START + timedelta(hours=6)) == []
    assert verify(store, checkpoints).unsealed == 0


def test_a_late_commit_is_sealed_later_and_blocks_nothing_before_it(
    database: Database, store: PostgresAuditStore, sealer: Sealer, checkpoints: CheckpointFile
) -> None:
    """An entry whose transaction is still running is never jumped over for good."""
    before = write(database, 1)
    with database.begin() as slow:
        late = write_entry(slow, entry(2))
        after = write(database, 3)
        (first,) = sealer.seal(START)
        assert first.entries == 1
    (second,) = sealer.seal(START)
    assert second.entries == 2
    assert prove(store, before[0]).seal.n == 1
    assert [prove(store, sequence).place for sequence in (late, after[0])] == [0, 1]
    assert verify(store, checkpoints).intact


def test_entries_of_another_server_are_sealed_after_a_restore(
    database: Database, store: PostgresAuditStore, sealer: Sealer, checkpoints: CheckpointFile
) -> None:
    """A dump brings transaction numbers that this server has not reached; they do not wait."""
    write(database, 1, 2)
    with database.begin() as connection:
        connection.execute(text("UPDATE meterpost.audit_entry SET xid = 9000000000000"))
    assert [seal.entries for seal in sealer.seal(START)] == [2]
    assert verify(store, checkpoints).intact


def test_two_sealers_take_turns(
    database: Database, store: PostgresAuditStore, checkpoints: CheckpointFile
) -> None:
    """Sealers at the same time seal every entry once and one unbroken chain."""
    write(database, *range(50))
    errors: list[BaseException] = []

    def seal() -> None:
        try:
            for n in range(5):
                write(database, n)
                Sealer(store, checkpoints).seal(START)
        except BaseException as exc:  # noqa: BLE001 - shown by the test below
            errors.append(exc)

    threads = [threading.Thread(target=seal) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    report = verify(store, checkpoints)
    assert report.intact, report.problems
    assert (report.entries, report.unsealed) == (65, 0)


def test_old_entries_are_passed_over_once_they_are_settled(
    database: Database, store: PostgresAuditStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long log is not read again by each sealing, and no entry is missed by that."""
    monkeypatch.setattr("meterpost.audit.service.SETTLED_MARGIN", 3)
    for n in range(12):
        write(database, 2 * n, 2 * n + 1)
        assert sum(seal.entries for seal in sealer.seal(START)) == 2
    assert sealer._settled >= 15
    with store.reading() as reading:
        assert list(reading.unsealed()) == []


TAMPERINGS = {
    "edited": "UPDATE meterpost.audit_entry SET actor = 'eve' WHERE sequence = 6",
    "detail edited": "UPDATE meterpost.audit_entry SET detail = '{\"due\": 1.5}' "
    "WHERE sequence = 6",
    "deleted": "DELETE FROM meterpost.audit_sealed WHERE sequence = 6; "
    "DELETE FROM meterpost.audit_entry WHERE sequence = 6",
    "unsealed": "DELETE FROM meterpost.audit_sealed WHERE sequence = 2",
    "inserted under a seal": "INSERT INTO meterpost.audit_entry "
    "(sequence, at, actor, action, object_kind, object_id, detail, correlation_id) "
    "VALUES (500, '2026-10-01 10:00Z', 'eve', 'x', 'x', 'x', '{}', ''); "
    "INSERT INTO meterpost.audit_sealed VALUES (500, 2, 4)",
    "inserted, dated back": "INSERT INTO meterpost.audit_entry "
    "(at, actor, action, object_kind, object_id, detail, correlation_id) "
    "VALUES ('2026-10-01 09:00Z', 'eve', 'x', 'x', 'x', '{}', '')",
    "reordered": "UPDATE meterpost.audit_sealed SET place = 5 - place "
    "WHERE seal = 2 AND place IN (2, 3)",
    "swapped": "UPDATE meterpost.audit_entry a SET object_id = b.object_id "
    "FROM meterpost.audit_entry b WHERE a.sequence IN (5, 6) AND b.sequence = 11 - a.sequence",
    "moved": "UPDATE meterpost.audit_sealed SET seal = 3, place = 4 WHERE sequence = 8",
    "seal edited": "UPDATE meterpost.audit_seal SET sealed_at = '2026-10-02Z' WHERE n = 3",
    "seal deleted": "DELETE FROM meterpost.audit_sealed WHERE seal = 2; "
    "DELETE FROM meterpost.audit_seal WHERE n = 2",
    "cut off": "DELETE FROM meterpost.audit_sealed WHERE seal = 3; "
    "DELETE FROM meterpost.audit_seal WHERE n = 3; "
    "DELETE FROM meterpost.audit_entry WHERE sequence > 8",
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_seen(
    database: Database,
    store: PostgresAuditStore,
    sealer: Sealer,
    checkpoints: CheckpointFile,
    tmp_path: Path,
    tampering: str,
) -> None:
    """Each way of changing the log behind the product's back is reported, offline too."""
    sealed_log(database, sealer)
    assert verify(store, checkpoints).intact
    with database.begin() as connection:
        for statement in TAMPERINGS[tampering].split("; "):
            assert connection.exec_driver_sql(statement).rowcount > 0
    assert not verify(store, checkpoints).intact
    if tampering == "detail edited":  # has no exact form, so it cannot be exported either
        with pytest.raises(InvalidInput, match="Audit entry 6"):
            export(store, tmp_path / "log.jsonl")
        assert list(tmp_path.glob("*log*")) == []
        return
    export(store, tmp_path / "log.jsonl")
    assert not verify_export(tmp_path / "log.jsonl", checkpoints).intact


def test_a_rewritten_log_differs_from_its_checkpoints(
    database: Database, store: PostgresAuditStore, sealer: Sealer, checkpoints: CheckpointFile
) -> None:
    """Who edits an entry and seals everything anew is caught by the checkpoints alone."""
    sealed_log(database, sealer)
    with database.begin() as connection:
        connection.execute(text("UPDATE meterpost.audit_entry SET actor = 'eve' WHERE sequence=6"))
        connection.execute(text("DELETE FROM meterpost.audit_sealed"))
        connection.execute(text("DELETE FROM meterpost.audit_seal"))
    with pytest.raises(Conflict, match="cut off"):
        sealer.seal(START)
    forged = CheckpointFile(checkpoints.path.with_name("forged.jsonl"))
    Sealer(store, forged).seal(START + timedelta(hours=4))
    assert verify(store, forged).intact
    codes = {problem.code for problem in verify(store, checkpoints).problems}
    assert codes == {"checkpoint-mismatch", "seals-missing"}


def test_a_checkpoint_that_a_crash_swallowed_is_written_next_time(
    database: Database, store: PostgresAuditStore, sealer: Sealer, checkpoints: CheckpointFile
) -> None:
    """Between a seal's commit and its checkpoint a crash loses nothing."""
    sealed_log(database, sealer)
    whole = checkpoints.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    checkpoints.path.write_bytes(lines[0] + lines[1][:17])
    assert [checkpoint.n for checkpoint in checkpoints.read()] == [1]
    sealer.seal(START + timedelta(hours=5))
    written = checkpoints.path.read_bytes()
    assert written.startswith(whole)
    assert [checkpoint.n for checkpoint in checkpoints.read()] == [1, 2, 3, 4]
    assert verify(store, checkpoints).intact


def test_an_export_verifies_without_the_database(
    database: Database,
    store: PostgresAuditStore,
    sealer: Sealer,
    checkpoints: CheckpointFile,
    tmp_path: Path,
) -> None:
    """The exported file gives the same report, and does not replace another file."""
    sealed_log(database, sealer)
    assert export(store, tmp_path / "log.jsonl") == 14
    assert verify_export(tmp_path / "log.jsonl", checkpoints) == verify(store, checkpoints)
    with pytest.raises(FileExistsError):
        export(store, tmp_path / "log.jsonl")


def test_one_entry_is_proved_without_the_others(
    database: Database, store: PostgresAuditStore, sealer: Sealer
) -> None:
    """A proof leads from an entry to its seal's root; there is none for an unsealed entry."""
    sequences = sealed_log(database, sealer)
    for sequence in sequences[:12]:
        proof = prove(store, sequence)
        assert proof.entry.sequence == sequence
        assert proof_holds(proof)
    with pytest.raises(NotFound):
        prove(store, sequences[-1])
    with pytest.raises(NotFound):
        prove(store, 12_345)
