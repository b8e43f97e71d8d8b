"""Master data and the crosswalk."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.data import Cursor, Limit, named
from meterpost.cli.session import Session
from meterpost.core.errors import InvalidInput
from meterpost.masterdata.model import KEYS, MODELS
from meterpost.operations.arguments import moment_of

_ENTITIES = ", ".join(MODELS)
_Entity = Annotated[str, typer.Argument(help=f"One of {_ENTITIES}.")]
_Key = Annotated[
    list[str],
    typer.Argument(help="Its id; ENTITY ID for accounting periods; SYSTEM KIND ID for crosswalk."),
]
_System = Annotated[str, typer.Argument(help="Whose id it is: an event's source, or a connection.")]
_Kind = Annotated[
    str,
    typer.Argument(help="subject, customer, item, tax_category, revenue_account, payment_term."),
]
_ExternalId = Annotated[str, typer.Argument(help="Their id.")]
_Zone = Annotated[str, typer.Option(help="The zone of days written without one.")]
_HIDDEN = frozenset({"rev_to"})


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    masterdata = group(app, "masterdata", "Customers, contracts, prices, periods: bitemporal.")
    command(
        masterdata,
        "import",
        example="meterpost masterdata import masterdata/*.yaml --dry-run",
    )(import_)
    command(
        masterdata,
        "list",
        example="meterpost masterdata list contracts --where customer=initech",
    )(list_)
    command(masterdata, "show", example="meterpost masterdata show customers initech")(show_)
    command(masterdata, "history", example="meterpost masterdata history prices P-1")(history)
    crosswalk = group(app, "crosswalk", "Links between other systems' ids and ours.")
    command(
        crosswalk,
        "link",
        example="meterpost crosswalk link //api.acme.example subject key-4711 S-1 "
        "--from 2026-10-15",
    )(link)
    command(
        crosswalk,
        "unlink",
        example="meterpost crosswalk unlink //api.acme.example subject key-4711 --at 2026-11-01",
    )(unlink)
    command(
        crosswalk,
        "find",
        example="meterpost crosswalk find //api.acme.example subject key-4711",
    )(find)


def import_(
    session: Session,
    files: Annotated[list[Path], typer.Argument(help="CSV and YAML files.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report what would change.")
    ] = False,
    show_changes: Annotated[int, typer.Option("--changes", min=0, help="Changes to print.")] = 20,
) -> None:
    """Import master data from files as one revision, with a report of what changes.

    All or nothing: with one bad record nothing is stored, and every problem is listed with file
    and line. Records that say what is known already change nothing. Ends with 2 when refused.
    """
    result = session.call(
        "masterdata.import_files", paths=[str(file.resolve()) for file in files], dry_run=dry_run
    )
    session.exit_code = 2 if result["refused"] else 0
    session.show(result, lambda shown: _report(shown, show_changes))


def _report(result: Mapping[str, Any], changes_max: int = 20) -> None:
    for problem in result["refused"]:
        place = f"{problem['where']}: " if problem["where"] else ""
        show.say(f"{place}{problem['sentence']} {problem['hint']}".rstrip())
    for change in result["changes"][:changes_max]:
        until = "" if change["valid_to"] is None else f" until {show.when(change['valid_to'])}"
        since = f" from {show.when(change['valid_from'])}"
        if change["valid_from"].startswith("1900-"):
            since = ""
        show.say(f"{change['kind']:<8} {change['entity']} {change['id']}{since}{until}")
        if change["kind"] == "changed":
            for name, values in change["fields"].items():
                show.say(f"         {name}: {values['old']} → {values['new']}")
    hidden = len(result["changes"]) - changes_max + result["changes_left_out"]
    if hidden > 0:
        show.say(f"… and {hidden} more changes")
    rev = f"revision {result['rev']}" if result["rev"] is not None else "no revision"
    word = "refused" if result["refused"] else "would make a revision" if result["dry_run"] else rev
    show.say(f"{word}: {show.counts(result['counts'])}")


def list_(
    session: Session,
    entity: _Entity,
    where: Annotated[list[str] | None, typer.Option(help="FIELD=VALUE; repeat it.")] = None,
    at: Annotated[str | None, typer.Option(help="What is in force on that day, or moment.")] = None,
    zone: _Zone = "UTC",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List what is known now of one kind of master data."""
    page = session.call(
        "masterdata.list",
        entity=entity,
        where=named("--where", where),
        at=_moment(at, zone),
        cursor=cursor,
        limit=limit,
    )

    def present(shown: Mapping[str, Any]) -> None:
        _versions(shown["items"])
        show.more(shown)

    session.show(page, present)


def show_(
    session: Session,
    entity: _Entity,
    key: _Key,
    at: Annotated[str | None, typer.Option(help="As in force on that day, or moment.")] = None,
    zone: _Zone = "UTC",
) -> None:
    """Show one thing as it is in force now, or at a moment."""
    result = session.call(
        "masterdata.show", entity=entity, key=_key(entity, key), at=_moment(at, zone)
    )
    session.show(result, lambda shown: show.pairs([(k, _value(v)) for k, v in shown.items()]))


def history(session: Session, entity: _Entity, key: _Key) -> None:
    """Show everything ever known of one thing: when it held, and which revisions knew it."""
    result = session.call("masterdata.history", entity=entity, key=_key(entity, key))
    session.show(result, lambda shown: _versions(shown["items"], hidden=frozenset()))


def _key(entity: str, key: list[str]) -> list[str]:
    if entity in KEYS and len(key) != len(KEYS[entity]):
        raise InvalidInput(f"One of {entity} is named by {', '.join(KEYS[entity])}.")
    return key


def _versions(items: list[Mapping[str, Any]], hidden: frozenset[str] = _HIDDEN) -> None:
    names = [name for name in (items[0] if items else ()) if name not in hidden]
    order = [name for name in names if name not in {"valid_from", "valid_to", "rev_from", "rev_to"}]
    order += [name for name in names if name not in order]
    columns = [
        show.Column(name, lambda row, name=name: _value(row[name], name))  # type: ignore[misc]
        for name in order
    ]
    show.table(columns, items, "Nothing is known.")


def _value(value: object, name: str = "") -> object:
    if value is None:
        return ""
    if name in {"valid_from", "valid_to", "starts_at", "ends_at"}:
        return "" if str(value).startswith("1900-01-01") else show.when(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    return value


def link(
    session: Session,
    system: _System,
    kind: _Kind,
    external_id: _ExternalId,
    canonical_id: Annotated[str, typer.Argument(help="Our id: a subscription, customer, item, …")],
    from_: Annotated[
        str | None, typer.Option("--from", help="From that day, or moment, on.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Until then (excluded).")] = None,
    zone: _Zone = "UTC",
    personal: Annotated[
        bool, typer.Option("--personal", help="Their id is personal: store its token.")
    ] = False,
) -> None:
    """Link another system's id to ours; another target for that span gives way.

    Usage that waited for the link flows on with `meterpost close run PERIOD --ask resolved`.
    """
    result = session.call(
        "crosswalk.link",
        system=system,
        kind=kind,
        external_id=external_id,
        canonical_id=canonical_id,
        valid_from=_moment(from_, zone),
        valid_to=_moment(to, zone),
        personal=personal,
    )
    session.show(result, _report)


def unlink(
    session: Session,
    system: _System,
    kind: _Kind,
    external_id: _ExternalId,
    at: Annotated[
        str | None, typer.Option(help="From then on nobody's; without: never was.")
    ] = None,
    zone: _Zone = "UTC",
) -> None:
    """End a link, or say that it never was."""
    result = session.call(
        "crosswalk.unlink",
        system=system,
        kind=kind,
        external_id=external_id,
        at=_moment(at, zone),
    )
    session.show(result, _report)


def find(
    session: Session,
    system: _System,
    kind: _Kind,
    external_id: _ExternalId,
    at: Annotated[str | None, typer.Option(help="At that day, or moment; without: now.")] = None,
    zone: _Zone = "UTC",
) -> None:
    """Say which of our ids another system's id is. Ends with 3 where it is linked to nothing."""
    result = session.call(
        "crosswalk.find",
        system=system,
        kind=kind,
        external_id=external_id,
        at=_moment(at, zone),
    )
    session.exit_code = 0 if result["canonical_id"] is not None else 3
    session.show(
        result,
        lambda shown: show.say(
            shown["canonical_id"]
            or f"{external_id} is linked to nothing at {show.when(shown['at'])}."
        ),
    )


def _moment(text: str | None, zone: str) -> datetime | None:
    if text is None:
        return None
    return moment_of(text, zone)
