"""Imports: many records, one revision, all or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from meterpost.audit.model import AuditEntry
from meterpost.core.problem import Problem
from meterpost.masterdata.checks import outcome_problems
from meterpost.masterdata.fields import as_text, nearest_hint
from meterpost.masterdata.files import read_files
from meterpost.masterdata.known import Surroundings
from meterpost.masterdata.model import KEYS, MODELS
from meterpost.masterdata.outcome import Outcome
from meterpost.masterdata.ports import MasterdataStore, PersonalTokens
from meterpost.masterdata.reading import Parsed, read_record
from meterpost.masterdata.record import Record, record_of, unnested
from meterpost.masterdata.report import STORED_CHANGES_MAX, ImportReport

#: One import holds at most this many records, nested ones counted.
RECORDS_MAX = 1_000_000

PlainRecords = Mapping[str, Sequence[Mapping[str, object]]]


def import_files(
    store: MasterdataStore,
    paths: Sequence[Path],
    *,
    actor: str,
    now: datetime,
    dry_run: bool = False,
    tokens: PersonalTokens | None = None,
    correlation_id: str = "",
) -> ImportReport:
    """What the files changed, as one revision; with any bad record nothing is stored.

    The file's names are the revision's source. See `import_records`.
    """
    problems: list[Problem] = []
    records = read_files(paths, problems)
    return _import(
        store,
        records,
        problems,
        actor=actor,
        source=", ".join(str(path) for path in paths)[:1000],
        now=now,
        dry_run=dry_run,
        tokens=tokens,
        correlation_id=correlation_id,
    )


def import_records(
    store: MasterdataStore,
    records: PlainRecords | Sequence[Record],
    *,
    actor: str,
    source: str,
    now: datetime,
    dry_run: bool = False,
    tokens: PersonalTokens | None = None,
    correlation_id: str = "",
) -> ImportReport:
    """What the records changed, as one revision; with any bad record nothing is stored.

    A record's values replace what was known for its validity; the rest stays. Records that say
    what is known already change nothing, and an import of only such makes no revision.
    ``tokens`` is needed for crosswalk records marked ``personal``.

    Source: docs/masterdata.md, "Import".
    """
    problems: list[Problem] = []
    if isinstance(records, Mapping):
        records = _records_of(records, problems)
    return _import(
        store,
        records,
        problems,
        actor=actor,
        source=source,
        now=now,
        dry_run=dry_run,
        tokens=tokens,
        correlation_id=correlation_id,
    )


def _records_of(plain: PlainRecords, problems: list[Problem]) -> list[Record]:
    records = []
    for entity, listed in plain.items():
        if entity not in MODELS:
            hint = nearest_hint(entity, MODELS)
            problems.append(Problem("unknown-key", f"{entity} is no kind of record.", "", hint))
            continue
        for index, values in enumerate(listed):
            records.append(record_of(entity, values, f"{entity}[{index}]"))
    return records


def _import(
    store: MasterdataStore,
    records: Iterable[Record],
    problems: list[Problem],
    *,
    actor: str,
    source: str,
    now: datetime,
    dry_run: bool,
    tokens: PersonalTokens | None,
    correlation_id: str,
) -> ImportReport:
    flat = [inner for record in records for inner in unnested(record, problems)]
    if len(flat) > RECORDS_MAX:
        sentence = f"{len(flat):,} records are more than the {RECORDS_MAX:,} of one import."
        return ImportReport(None, (), 0, (Problem("too-many", sentence, source),), dry_run)
    if not dry_run:
        store.lock()
    around = Surroundings(flat, store)
    parsed = [one for record in flat if (one := read_record(record, around, problems))]
    parsed = _tokenised(parsed, tokens, problems)
    outcome = Outcome(parsed, store, problems)
    problems.extend(outcome_problems(outcome, _mentioned(flat)))
    if problems:
        return ImportReport(None, (), 0, tuple(problems), dry_run)
    report = ImportReport(None, tuple(outcome.changes()), outcome.unchanged(), (), dry_run)
    if dry_run or not report.changes:
        return report
    rev = store.write_revision(
        recorded_at=now,
        actor=actor,
        source=source,
        report=report.to_plain(changes_max=STORED_CHANGES_MAX),
        ended=outcome.ended_rows(),
        new=outcome.new_rows(),
    )
    store.record_audit(
        AuditEntry(
            at=now,
            actor=actor,
            action="masterdata.imported",
            object_kind="masterdata_revision",
            object_id=str(rev),
            detail={"source": source, "counts": report.counts},
            correlation_id=correlation_id,
        )
    )
    return replace(report, rev=rev)


def _tokenised(
    parsed: Sequence[Parsed], tokens: PersonalTokens | None, problems: list[Problem]
) -> list[Parsed]:
    """The same with personal external ids replaced by their tokens."""
    personal = [one for one in parsed if one.personal]
    if not personal:
        return list(parsed)
    if tokens is None:
        problems.append(
            Problem(
                "no-tokens",
                "personal crosswalk records cannot be taken in here.",
                personal[0].record.where,
            )
        )
        return list(parsed)
    found = iter(tokens.tokens([one.key[2] for one in personal]))
    return [
        replace(one, key=(*one.key[:2], next(found)), personal=False) if one.personal else one
        for one in parsed
    ]


def _mentioned(records: Sequence[Record]) -> dict[str, set[str]]:
    mentioned: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if KEYS[record.entity] == ("id",) and not record.values.get("ends"):
            name = as_text(record.values.get("id"))
            if name is not None:
                mentioned[record.entity].add(name)
    return mentioned
