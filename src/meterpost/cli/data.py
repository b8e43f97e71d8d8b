"""What comes in: ingest, events, quarantine, usage, meters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.session import Session
from meterpost.core.errors import InvalidInput

Cursor = Annotated[str | None, typer.Option(help="Go on after the page that named it.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Rows to show.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "ingest", example="meterpost ingest requests.csv --mapping requests")(ingest)
    command(
        app,
        "usage",
        example="meterpost usage api-tokens --period 2026-10 --by subject\n"
        "meterpost usage api-tokens --from 2026-10-01 --to 2026-10-08 --window day",
    )(usage)
    command(app, "meters", example="meterpost meters")(meters)
    command(app, "events", example="meterpost events --subject acct-17")(events)
    quarantine = group(app, "quarantine", "Events refused at the door, kept with their bytes.")
    command(quarantine, "list", example="meterpost quarantine list")(quarantine_list)
    command(quarantine, "show", example="meterpost quarantine show 12")(quarantine_show)
    command(quarantine, "settle", example='meterpost quarantine settle 12 --reason "sent again"')(
        quarantine_settle
    )


def ingest(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV, NDJSON or an access log.")],
    mapping: Annotated[
        str | None,
        typer.Option(
            help="How its lines become events: a name in mappings/. Without: CloudEvents."
        ),
    ] = None,
) -> None:
    """Read a file of usage into the journal, then store its events.

    When it returns, every line is stored durably or stands in quarantine with its reason.
    Reading the same file again adds nothing; a file that grew adds the new part.
    """
    result = session.call("events.ingest_file", path=str(file.resolve()), mapping=mapping)
    session.exit_code = 0
    session.show(result, _ingested)


def _ingested(result: Mapping[str, Any]) -> None:
    show.table(
        [
            show.text("file"),
            show.number("lines", "read"),
            show.number("accepted"),
            show.number("rejected"),
            show.number("duplicate"),
            show.number("conflicting"),
        ],
        [result],
        "",
    )
    for problem in result["problems"]:
        show.say(f"  {problem['where']}: {problem['sentence']} {problem['hint']}".rstrip())
    if result["rejected"]:
        show.say("Rejected lines are kept: meterpost quarantine list")


def usage(
    session: Session,
    meter: Annotated[str, typer.Argument(help="A meter's id (meterpost meters).")],
    period: Annotated[str | None, typer.Option(help="A month: 2026-10.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="First day, or moment (included).")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Day after the last, or moment (excluded).")
    ] = None,
    zone: Annotated[str, typer.Option(help="The zone of days and months.")] = "UTC",
    window: Annotated[str, typer.Option(help="total, day or hour.")] = "total",
    by: Annotated[
        list[str] | None, typer.Option(help="Group by subject, source or a dimension; repeat it.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of any of them; repeat it.")
    ] = None,
    close: Annotated[
        int | None, typer.Option(help="Count what this close counted, not what came later.")
    ] = None,
) -> None:
    """Quantities of one meter over a period, per window and group."""
    result = session.call(
        "usage.query",
        meter=meter,
        period=period,
        start=from_,
        end=to,
        zone=zone,
        window=window,
        by=by or [],
        where=named("--where", where),
        close=close,
    )
    columns = [show.moment("from", "window_start"), show.moment("to", "window_end")]
    columns += [show.text(name) for name in by or ()]
    columns += [show.number("events"), show.number(result["unit"], "quantity")]
    session.show(result, lambda shown: show.table(columns, shown["items"], "No usage."))


def named(option: str, texts: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping. Raises: InvalidInput."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput(f"{option} {text!r} is not of the form NAME=VALUE.")
        found[name] = value
    return found


def meters(session: Session) -> None:
    """List the meters: which events count, what each contributes, how they combine."""
    columns = [show.text(name) for name in ("id", "event_type", "aggregation", "value", "filter")]
    columns += [show.text("unit"), show.text("description")]
    session.show(
        session.call("meters.list"),
        lambda result: show.table(columns, result["items"], "No meters are configured."),
    )


def events(
    session: Session,
    id: Annotated[str | None, typer.Option(help="An event's id.")] = None,
    subject: Annotated[str | None, typer.Option(help="A subject, in clear or as token.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    limit: Limit = 100,
) -> None:
    """Find stored events by id or subject, with what became of each per meter."""
    result = session.call("events.find", id=id, subject=subject, source=source, limit=limit)
    columns = [
        show.text("source"),
        show.text("id"),
        show.text("type"),
        show.text("subject"),
        show.moment("time"),
        show.moment("recorded", "recorded_at"),
        show.text("fate"),
    ]
    session.show(result, lambda shown: show.table(columns, shown["items"], "No such event."))


def quarantine_list(
    session: Session,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Settled ones too.")] = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List refused events with the reason their sender was given; oldest first."""
    page = session.call("quarantine.list", source=source, open=not all_, cursor=cursor, limit=limit)
    columns = [
        show.number("id"),
        show.moment("recorded", "recorded_at"),
        show.text("source"),
        show.text("event", "event_id"),
        show.text("field"),
        show.text("sentence"),
        show.text("settlement"),
    ]

    def present(shown: Mapping[str, Any]) -> None:
        show.table(columns, shown["items"], "Nothing is in quarantine.")
        show.more(shown)

    session.show(page, present)


def quarantine_show(session: Session, id: Annotated[int, typer.Argument(min=1)]) -> None:
    """Show a refused event with its bytes as they came (they may be personal)."""

    def present(shown: Mapping[str, Any]) -> None:
        show.pairs([(k, v) for k, v in shown.items() if k not in {"text", "base64"}])
        show.say()
        show.say(shown["text"])

    session.show(session.call("quarantine.show", id=id), present)


def quarantine_settle(
    session: Session,
    id: Annotated[int, typer.Argument(min=1)],
    reason: Annotated[str, typer.Option(help="Sent again corrected, or given up, and why.")],
) -> None:
    """Note what was decided about a refused event; it leaves the worklist."""
    result = session.call("quarantine.settle", id=id, settlement=reason)
    session.show(result, lambda shown: show.say(f"Event {shown['id']} is settled."))
