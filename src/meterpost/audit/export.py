"""The audit log as a file that can be verified without a database.

One JSON object per line: a header; each seal, followed by its entries in their places; the
entries without a seal; and last the counts, so that a file cut short is noticed even without
checkpoints (docs/audit.md, "The export").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from meterpost.audit.model import (
    AuditEntry,
    AuditReport,
    Checkpoint,
    Seal,
    SealedRun,
    StoredEntry,
)
from meterpost.audit.ports import AuditReading, AuditStore, Checkpoints
from meterpost.audit.verify import PROBLEMS_MAX, verify_runs
from meterpost.core.canonical import canonical_json
from meterpost.core.clock import require_utc
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem

FORMAT = "meterpost-audit"
VERSION = 1
LINE_BYTES_MAX = 4 * 1024 * 1024
#: Entries of one seal are held in memory while it is checked.
RUN_MAX = 1_000_000


def export(store: AuditStore, path: Path) -> int:
    """Write the whole log to a new file; how many entries it has.

    The file appears under its name when it is whole and synced. Raises: FileExistsError;
    InvalidInput when an entry was changed into something that has no exact form.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("xb") as file:
            with store.reading() as reading:
                entries = _write(reading, file)
            file.flush()
            os.fsync(file.fileno())
        # A link refuses where a rename would replace a file that appeared meanwhile.
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return entries


def _write(reading: AuditReading, file: BinaryIO) -> int:
    def line(value: dict[str, object]) -> None:
        try:
            file.write(canonical_json(value) + b"\n")
        except TypeError as exc:
            raise InvalidInput(
                f"Audit entry {value.get('sequence')} cannot be exported: {exc}.",
                hint="No writer of ours makes such an entry: run `meterpost audit verify`.",
            ) from exc

    line({"format": FORMAT, "version": VERSION})
    seals = entries = unsealed = 0
    for run in reading.runs():
        line({"seal": run.seal})
        seals += 1
        for place, stored in run.entries:
            line({"place": place, **_plain(stored)})
            entries += 1
    for stored in reading.unsealed():
        line({"place": None, **_plain(stored)})
        unsealed += 1
    line({"end": {"seals": seals, "sealed": entries, "unsealed": unsealed}})
    return entries + unsealed


def _plain(stored: StoredEntry) -> dict[str, object]:
    return {"sequence": stored.sequence, "entry": stored.entry}


def verify_export(path: Path, checkpoints: Checkpoints) -> AuditReport:
    """Whether an exported log is the one that was sealed; nothing but the two files is needed."""
    problems: list[Problem] = []
    written: list[Checkpoint] = []
    try:
        written = list(checkpoints.read())
    except InvalidInput as exc:
        problems += exc.problems or (Problem("checkpoint", exc.sentence),)
    with path.open("rb") as file:
        reader = _Reader(file, path.name)
        report = verify_runs(reader.runs(), reader.unsealed(), written, problems)
    found = (*report.problems, *reader.problems)[:PROBLEMS_MAX]
    return AuditReport(
        report.entries, report.seals, report.unsealed, report.checkpoints, tuple(found)
    )


class _Reader:
    """Runs and loose entries of an export, in one pass, with complaints about its form."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._number = 0
        self._counts = {"seals": 0, "sealed": 0, "unsealed": 0}
        self._end: object = None
        self._ended = False
        self._lines = self._parsed(file)
        self._loose: list[StoredEntry] = []

    def runs(self) -> Iterator[SealedRun]:
        """Every seal with the entries that follow it."""
        seal: Seal | None = None
        entries: list[tuple[int, StoredEntry]] = []
        for plain in self._lines:
            if "seal" in plain:
                if seal is not None:
                    yield SealedRun(seal, tuple(entries))
                seal, entries = self._seal(plain), []
                continue
            stored = self._entry(plain)
            if stored is None:
                continue
            if plain.get("place") is None:
                self._loose.append(stored)
                break
            if seal is None or len(entries) >= RUN_MAX:
                self._complain("An entry stands under no seal.")
                continue
            entries.append((plain["place"], stored))
            self._counts["sealed"] += 1
        if seal is not None:
            yield SealedRun(seal, tuple(entries))

    def unsealed(self) -> Iterator[StoredEntry]:
        """The entries after the last seal's; called after `runs` has ended."""
        for stored in self._rest():
            self._counts["unsealed"] += 1
            yield stored
        if self._end != self._counts:
            self._complain(
                "The file's last line does not tell what is in it: it was cut or cut up."
            )

    def _rest(self) -> Iterator[StoredEntry]:
        yield from self._loose
        for plain in self._lines:
            stored = self._entry(plain) if plain.get("place") is None else None
            if stored is None:
                self._complain("This line stands in the wrong place.")
            else:
                yield stored

    def _parsed(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        """Objects between header and end."""
        for plain in self._objects(file):
            if self._number == 1:
                if plain != {"format": FORMAT, "version": VERSION}:
                    self._complain("This is no audit export of a version known here.")
                continue
            if self._ended:
                self._complain("Something follows the last line.")
            elif "end" in plain:
                self._end, self._ended = plain["end"], True
            else:
                yield plain

    def _objects(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        while data := file.readline(LINE_BYTES_MAX):
            self._number += 1
            try:
                plain = json.loads(data)
            except (ValueError, RecursionError):
                plain = None
            if isinstance(plain, dict) and data.endswith(b"\n"):
                yield plain
            else:
                self._complain("This line is no JSON object.")

    def _seal(self, plain: dict[str, Any]) -> Seal | None:
        self._counts["seals"] += 1
        try:
            given = plain["seal"]
            return Seal(
                n=int(given["n"]),
                entries=int(given["entries"]),
                root=str(given["root"]),
                previous=str(given["previous"]),
                hash=str(given["hash"]),
                sealed_at=require_utc(datetime.fromisoformat(given["sealed_at"])),
            )
        except (KeyError, TypeError, ValueError):
            self._complain("This is no seal.")
            return None

    def _entry(self, plain: dict[str, Any]) -> StoredEntry | None:
        try:
            given = plain["entry"]
            return StoredEntry(
                int(plain["sequence"]),
                AuditEntry(
                    at=require_utc(datetime.fromisoformat(given["at"])),
                    actor=given["actor"],
                    action=given["action"],
                    object_kind=given["object_kind"],
                    object_id=given["object_id"],
                    detail=given["detail"],
                    correlation_id=given["correlation_id"],
                ),
            )
        except (KeyError, TypeError, ValueError):
            self._complain("This is no entry.")
            return None

    def _complain(self, sentence: str) -> None:
        self.problems.append(Problem("export", sentence, f"{self._name}:{self._number}"))
