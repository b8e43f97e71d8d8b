"""Proof: trace, prove, balance, audit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.data import Cursor, Limit
from meterpost.cli.session import Session

_Ref = Annotated[
    str,
    typer.Argument(
        help="An event id, subject, posting key, document number or transaction id; "
        "event:, subject:, key:, document:, transaction: or correlation: before it says which."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(
        app,
        "trace",
        example="meterpost trace INV-2026-0042\nmeterpost trace event:req-77\n"
        "meterpost trace transaction:17 --events 5",
    )(trace)
    command(app, "prove", example="meterpost prove transaction:17\nmeterpost prove close:3")(prove)
    command(app, "balance", example="meterpost balance 2026-10")(balance)
    command(app, "overview", example="meterpost overview")(overview)
    audit = group(app, "audit", "The sealed log of who decided what.")
    command(audit, "list", example="meterpost audit list --action transaction.approved")(audit_list)
    command(audit, "verify", example="meterpost audit verify")(audit_verify)
    command(audit, "export", example="meterpost audit export audit-2026.jsonl")(audit_export)


def trace(
    session: Session,
    ref: _Ref,
    events: Annotated[int, typer.Option(min=0, max=1000, help="Events listed per segment.")] = 20,
    source: Annotated[str | None, typer.Option(help="Narrow an event or subject.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show personal subjects.")] = False,
) -> None:
    """Follow a reference both ways: down to the events, up to the ERP's document."""
    result = session.call("trace", ref=ref, events=events, source=source, reveal=reveal)
    session.show(result, lambda shown: show.say("\n".join(shown["text"])))


def prove(
    session: Session,
    ref: _Ref,
    replay: Annotated[
        bool, typer.Option("--replay", help="For close:ID, read its events one by one, too.")
    ] = False,
) -> None:
    """Run meter and price again over exactly the events listed, and compare.

    `record:ID` and `close:ID` can be named, too. Ends with 4 where anything came out otherwise.
    """
    result = session.call("prove", ref=ref, replay=replay)
    session.exit_code = 0 if result["proved"] else 4

    def present(shown: Mapping[str, Any]) -> None:
        for report in shown["reports"]:
            word = "proved" if report["proved"] else "NOT proved"
            show.say(
                f"{report['what']}: {word} ({report['records']} usage records, "
                f"{report['lines']} lines, {show.quantity(report['events'])} events read)"
            )
            for each in report["differences"]:
                show.say("  " + ", ".join(f"{key} {value}" for key, value in each.items()))

    session.show(result, present)


def balance(
    session: Session,
    period: Annotated[str, typer.Argument(help="An accounting period: 2026-10.")],
    entity: Annotated[list[str] | None, typer.Option(help="Only these; repeat it.")] = None,
) -> None:
    """Print the four ledgers of a period: events, measurements, quantities, transactions.

    Each is an exact partition: every cell is counted by a query of its own, none is computed
    as the rest. The last line is `unexplained=0`; ends with 4 where it is anything else.
    """
    result = session.call("balance", period=period, entities=entity or [])
    session.exit_code = 0 if Decimal(result["unexplained"]) == 0 else 4
    session.show(result, _balance)


def _balance(result: Mapping[str, Any]) -> None:
    entities = ", ".join(result["legal_entities"]) or "nobody"
    show.say(f"Accounting period {result['period']} of {entities}")
    for ledger in result["ledgers"]:
        show.say()
        show.say(f"{ledger['name'].capitalize()} ({ledger['unit']})")
        names = list(dict.fromkeys(name for row in ledger["rows"] for name in _filled(row)))
        columns = [
            show.Column("", lambda row: " ".join(v for v in row["key"].values() if v)),
            show.number(ledger["total_name"].replace("_", " "), "total"),
            *(
                show.Column(
                    name.replace("_", " "),
                    lambda row, name=name: show.quantity(row["cells"].get(name, "0")),  # type: ignore[misc]
                    right=True,
                )
                for name in names
            ),
            show.number("unexplained", "difference"),
        ]
        show.table(columns, ledger["rows"], "Nothing.")
    show.say()
    show.table(
        [
            show.text("bridge", "name"),
            show.number("left"),
            show.number("right"),
            show.number("unexplained", "difference"),
            show.text("what", "sentence"),
        ],
        result["bridges"],
        "No bridges.",
    )
    for note in result["notes"]:
        show.say(note)
    show.say(f"unexplained={result['unexplained']}")


def _filled(row: Mapping[str, Any]) -> list[str]:
    return [name for name, value in row["cells"].items() if Decimal(value) != 0]


def overview(session: Session) -> None:
    """Show events, closes, transactions, exceptions and the audit log in numbers.

    What runs and how far it is behind is told by `meterpost status`.
    """
    session.show(session.call("status"), _overview)


def _overview(result: Mapping[str, Any]) -> None:
    figures = result["figures"]
    show.pairs(
        [
            ("installation", f"{result['installation']} ({result['environment']})"),
            ("you are", f"{result['user']}: {', '.join(result['roles']) or 'no roles'}"),
            ("configuration", "applied" if result["config_applied"] else "not applied as it is"),
            ("events accepted", show.quantity(figures["events_accepted"])),
            ("events refused", show.quantity(figures["events_refused"])),
            ("in quarantine", show.quantity(figures["quarantine_open"])),
            ("master data", f"revision {figures['masterdata_revision']}"),
            ("closes", show.counts(figures["closes"])),
            ("open exceptions", show.counts(figures["exceptions_open"])),
            ("audit entries", show.quantity(figures["audit_entries"])),
        ]
    )
    show.say()
    columns = [
        show.text("state"),
        show.number("transactions"),
        show.money("due"),
        show.text("currency"),
    ]
    show.table(columns, figures["transactions"], "No transactions.")


def audit_list(
    session: Session,
    action: Annotated[str | None, typer.Option(help="Such as transaction.approved.")] = None,
    actor: Annotated[str | None, typer.Option(help="Whose decisions.")] = None,
    kind: Annotated[str | None, typer.Option(help="transaction, close, user, exception, …")] = None,
    id: Annotated[str | None, typer.Option(help="The thing's id.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List who decided what, newest first."""
    page = session.call(
        "audit.list",
        action=action,
        actor=actor,
        object_kind=kind,
        object_id=id,
        cursor=cursor,
        limit=limit,
    )
    columns = [
        show.number("entry", "sequence"),
        show.moment("at"),
        show.text("by", "actor"),
        show.text("action"),
        show.Column("what", lambda row: f"{row['object_kind']} {row['object_id'][:40]}"),
        show.number("seal"),
    ]

    def present(shown: Mapping[str, Any]) -> None:
        show.table(columns, shown["items"], "Nothing was decided yet.")
        show.more(shown)

    session.show(page, present)


def audit_verify(session: Session) -> None:
    """Check that the audit log is what was sealed. Ends with 4 where it is not.

    Keep a copy of .meterpost/audit/checkpoints.jsonl elsewhere: what it names cannot be cut off
    unseen.
    """
    result = session.call("audit.verify")
    session.exit_code = 0 if result["intact"] else 4

    def present(shown: Mapping[str, Any]) -> None:
        for problem in shown["problems"]:
            show.say(f"{problem['where']}: {problem['sentence']}")
        word = "intact" if shown["intact"] else "NOT intact"
        show.say(
            f"The log is {word}: {show.quantity(shown['entries'])} entries, {shown['seals']} "
            f"seals, {shown['unsealed']} not sealed yet, {shown['checkpoints']} checkpoints."
        )

    session.show(result, present)


def audit_export(
    session: Session, file: Annotated[Path, typer.Argument(help="A new file.")]
) -> None:
    """Write the audit log to a file that can be verified without this database."""
    result = session.call("audit.export", path=str(file.resolve()))
    session.show(
        result,
        lambda shown: show.say(f"{show.quantity(shown['entries'])} entries in {shown['path']}."),
    )
