"""Master data: import it, look at it, and link other systems' ids to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from meterpost.access.model import Scope
from meterpost.core.errors import InvalidInput, NotFound
from meterpost.core.problem import Problem
from meterpost.ingest.ports import TokenVault
from meterpost.masterdata import service
from meterpost.masterdata.files import parse_file
from meterpost.masterdata.model import KEYS, SUBJECT, Versioned
from meterpost.masterdata.record import Record
from meterpost.masterdata.report import ImportReport
from meterpost.operations.arguments import Cursor, ExternalId, Limit, Moment, Name
from meterpost.operations.registry import Context, operation

#: Changes shown in one answer; the counts are always complete.
CHANGES_SHOWN_MAX = 1_000
_FILES_MAX = 200
_FILE_CHARACTERS_MAX = 4_000_000


@dataclass(frozen=True)
class SubjectTokens:
    """`masterdata.ports.PersonalTokens`: external ids of subjects as events carry them."""

    vault: TokenVault

    def tokens(self, values: Sequence[str]) -> Sequence[str]:
        """The token of each value, made where there is none yet."""
        found = self.vault.tokens("subject", values)
        return [found[value] for value in values]


@dataclass(frozen=True)
class FileContent:
    """A file's name, which tells the format (and for CSV the entity), and its text."""

    name: Name
    text: Annotated[str, Field(max_length=_FILE_CHARACTERS_MAX)]


@dataclass(frozen=True)
class ImportMasterdata:
    """``dry_run`` reports what would change and stores nothing."""

    files: Annotated[tuple[FileContent, ...], Field(min_length=1, max_length=_FILES_MAX)]
    dry_run: bool = False


@operation(
    "masterdata.import",
    scope=Scope.MASTERDATA_WRITE,
    summary="Import master data from the texts of CSV and YAML files, as one revision.",
    creates=True,
)
def import_masterdata(context: Context, asked: ImportMasterdata) -> object:
    """With one bad record nothing is stored, and ``refused`` lists all of them."""
    problems: list[Problem] = []
    records: list[Record] = []
    for file in asked.files:
        records += parse_file(file.name, file.text.encode(), problems)
    with context.app.masterdata_store() as store:
        report = service.import_records(
            store,
            records,
            actor=context.principal.user,
            source=", ".join(file.name for file in asked.files)[:1000],
            now=context.app.clock.now(),
            # Files that cannot be read keep the others from being stored, too.
            dry_run=asked.dry_run or bool(problems),
            tokens=SubjectTokens(context.app.vault),
            correlation_id=context.correlation_id,
        )
    if problems:
        report = replace(report, refused=[*problems, *report.refused], dry_run=asked.dry_run)
    return _report(report)


@dataclass(frozen=True)
class ImportMasterdataFiles:
    """``paths`` are files of this machine."""

    paths: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4_096)], ...],
        Field(min_length=1, max_length=_FILES_MAX),
    ]
    dry_run: bool = False


@operation(
    "masterdata.import_files",
    scope=Scope.MASTERDATA_WRITE,
    summary="Import master data from CSV and YAML files of this machine, as one revision.",
    creates=True,
    local=True,
)
def import_masterdata_files(context: Context, asked: ImportMasterdataFiles) -> object:
    """As `masterdata.import`, for files of any size."""
    with context.app.masterdata_store() as store:
        report = service.import_files(
            store,
            [Path(path) for path in asked.paths],
            actor=context.principal.user,
            now=context.app.clock.now(),
            dry_run=asked.dry_run,
            tokens=SubjectTokens(context.app.vault),
            correlation_id=context.correlation_id,
        )
    return _report(report)


@dataclass(frozen=True)
class ListMasterdata:
    """``where`` fixes fields (``customer``: ``acme``); ``at`` keeps what is in force then."""

    entity: Name
    where: Annotated[Mapping[str, ExternalId], Field(max_length=10)] = field(default_factory=dict)
    at: Moment | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation(
    "masterdata.list",
    scope=Scope.MASTERDATA_READ,
    summary="What is known now of one kind of master data, in order of ids.",
)
def list_masterdata(context: Context, asked: ListMasterdata) -> object:
    """Each version with its validity."""
    with context.app.masterdata_store() as store:
        found = service.current(
            store,
            asked.entity,
            where=asked.where,
            at=asked.at,
            cursor=asked.cursor,
            limit=asked.limit,
        )
    return {"items": list(found.rows), "next": found.cursor}


_Key = Annotated[tuple[ExternalId, ...], Field(min_length=1, max_length=3)]


@dataclass(frozen=True)
class ShowMasterdata:
    """``key``: the id; legal entity and id for accounting periods; system, kind and external id
    for the crosswalk.
    """

    entity: Name
    key: _Key
    at: Moment | None = None


@operation(
    "masterdata.show",
    scope=Scope.MASTERDATA_READ,
    summary="One thing of master data as it is in force at a moment.",
)
def show_masterdata(context: Context, asked: ShowMasterdata) -> object:
    """Raises NotFound where nothing is in force then."""
    at = asked.at or context.app.clock.now()
    with context.app.masterdata_store() as store:
        where = dict(zip(_key_names(asked.entity, asked.key), asked.key, strict=True))
        found = service.current(store, asked.entity, where=where, at=at, limit=1)
    if not found.rows:
        raise NotFound(
            f"No {asked.entity} {'/'.join(asked.key)} is in force at {at:%Y-%m-%d %H:%M} UTC.",
            hint="`meterpost masterdata history` shows everything ever known of it.",
        )
    return found.rows[0]


def _key_names(entity: str, key: Sequence[str]) -> Sequence[str]:
    names = KEYS.get(entity)
    if names is not None and len(names) != len(key):
        raise InvalidInput(f"One of {entity} is named by {', '.join(names)}.")
    return names or ["id"] * len(key)


@dataclass(frozen=True)
class MasterdataHistory:
    """``key`` as in `masterdata.show`."""

    entity: Name
    key: _Key


@operation(
    "masterdata.history",
    scope=Scope.MASTERDATA_READ,
    summary="Everything ever known of one thing, in the order it was recorded.",
)
def masterdata_history(context: Context, asked: MasterdataHistory) -> object:
    """``rev_from`` and ``rev_to`` say which revisions knew a version."""
    with context.app.masterdata_store() as store:
        rows: Sequence[Versioned] = service.history(store, asked.entity, *asked.key)
    return {"items": list(rows), "next": None}


@dataclass(frozen=True)
class Link:
    """In [valid_from, valid_to) their id is that id of ours; open ends reach as far as they can.

    ``personal``: the external id is personal, and stored as the token that events carry.
    """

    system: Name
    kind: Name
    external_id: ExternalId
    canonical_id: Name
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    personal: bool = False


@operation(
    "crosswalk.link",
    scope=Scope.MASTERDATA_WRITE,
    summary="Link another system's id to ours.",
    creates=True,
)
def link(context: Context, asked: Link) -> object:
    """Another target known for that span gives way. Held usage flows on with the next close
    that is asked for as ``resolved``.
    """
    carried = _as_carried(context, asked.kind, asked.external_id)
    with context.app.masterdata_store() as store:
        report = service.link(
            store,
            system=asked.system,
            kind=asked.kind,
            external_id=carried,
            canonical_id=asked.canonical_id,
            actor=context.principal.user,
            now=context.app.clock.now(),
            valid_from=asked.valid_from,
            valid_to=asked.valid_to,
            # What is a token already must not become the token of a token.
            personal=asked.personal and carried == asked.external_id,
            tokens=SubjectTokens(context.app.vault),
            correlation_id=context.correlation_id,
        )
    return _report(report)


@dataclass(frozen=True)
class Unlink:
    """From ``at`` on the external id is nobody's; without it, it never was anybody's."""

    system: Name
    kind: Name
    external_id: ExternalId
    at: Moment | None = None


@operation(
    "crosswalk.unlink",
    scope=Scope.MASTERDATA_WRITE,
    summary="End a link, or say that it never was.",
)
def unlink(context: Context, asked: Unlink) -> object:
    """Raises InvalidInput where the link is not known."""
    with context.app.masterdata_store() as store:
        report = service.unlink(
            store,
            system=asked.system,
            kind=asked.kind,
            external_id=_as_carried(context, asked.kind, asked.external_id),
            actor=context.principal.user,
            now=context.app.clock.now(),
            at=asked.at,
            correlation_id=context.correlation_id,
        )
    return _report(report)


@dataclass(frozen=True)
class FindLink:
    """At a moment; without one, now."""

    system: Name
    kind: Name
    external_id: ExternalId
    at: Moment | None = None


@operation(
    "crosswalk.find",
    scope=Scope.MASTERDATA_READ,
    summary="Our id for theirs at a moment.",
)
def find_link(context: Context, asked: FindLink) -> object:
    """``canonical_id`` is null where nothing is linked then."""
    at = asked.at or context.app.clock.now()
    carried = _as_carried(context, asked.kind, asked.external_id)
    with context.app.masterdata_store() as store:
        found = service.find(store, asked.system, asked.kind, carried, at)
    return {
        "system": asked.system,
        "kind": asked.kind,
        "external_id": carried,
        "canonical_id": found,
        "at": at,
    }


def _as_carried(context: Context, kind: str, external_id: str) -> str:
    """The token of a personal subject that came in before, else the id itself."""
    if kind != SUBJECT:
        return external_id
    return context.app.vault.find("subject", external_id) or external_id


def _report(report: ImportReport) -> dict[str, object]:
    return report.to_plain(changes_max=CHANGES_SHOWN_MAX)
