"""The ERP's side: post, reconcile, worker."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.data import Cursor, Limit
from meterpost.cli.session import Session
from meterpost.engine.process import stop_on_signals

_Connection = Annotated[
    str | None, typer.Argument(help="A connection's name; without: all of this environment.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    post = group(app, "post", "Posting approved transactions into ERPs, exactly once.")
    command(post, "run", example="meterpost post run erp --seconds 120")(post_run)
    command(post, "check", example="meterpost post check")(post_check)
    command(post, "doubts", example="meterpost post doubts")(post_doubts)
    command(
        post,
        "resolve",
        example='meterpost post resolve 17 --document 4711 --reason "found it by hand"\n'
        'meterpost post resolve 17 --absent --reason "looked, it is not there"',
    )(post_resolve)
    command(app, "reconcile", example="meterpost reconcile erp")(reconcile)
    worker = group(app, "worker", "Further processes beside `meterpost up`.")
    command(worker, "posting", example="meterpost worker posting erp")(worker_posting)


def post_run(
    session: Session,
    connection: _Connection = None,
    seconds: Annotated[
        int, typer.Option(min=1, max=3600, help="How long to wait for slow or failing ERPs.")
    ] = 60,
) -> None:
    """Post what is approved until nothing is left to do, or the time is over.

    A lost answer is looked up before anything is sent again. `meterpost up` posts by itself;
    run it again to go on. Ends with 6 while something is still on its way.
    """
    result = session.call("post.run", connection=connection, seconds=seconds)
    left = sum(sum(each["left"].values()) for each in result["connections"])
    session.exit_code = 6 if left else 0

    def present(shown: Mapping[str, Any]) -> None:
        columns = [
            show.text("connection"),
            *(show.number(name) for name in ("posted", "rejected", "deferred")),
            show.number("in doubt", "in_doubt"),
            show.Column("left", lambda row: show.counts(row["left"])),
            show.text("paused"),
        ]
        show.table(columns, shown["connections"], "No connections.")

    session.show(result, present)


def post_check(session: Session, connection: _Connection = None) -> None:
    """Ask ERPs whether address, credentials and rights suffice to post. Ends with 5 if not."""
    result = session.call("post.check", connection=connection)
    session.exit_code = 0 if result["ok"] else 5
    columns = [
        show.text("connection"),
        show.Column("", lambda row: "ok" if row["ok"] else "not usable"),
        show.text("version"),
        show.text("what it says", "sentence"),
    ]
    session.show(result, lambda shown: show.table(columns, shown["items"], "No connections."))


def post_doubts(
    session: Session, connection: _Connection = None, cursor: Cursor = None, limit: Limit = 100
) -> None:
    """List transactions of which nobody knows yet whether the ERP has them."""
    page = session.call("post.doubts", connection=connection, cursor=cursor, limit=limit)
    columns = [
        show.number("id"),
        show.text("target"),
        show.text("key", "posting_key"),
        show.text("customer"),
        show.money("due"),
        show.text("currency"),
        show.moment("since"),
        show.moment("sent before", "send_before"),
        show.text("what was said", "sentence"),
    ]

    def present(shown: Mapping[str, Any]) -> None:
        show.table(columns, shown["items"], "Nothing is in doubt.")
        show.more(shown)

    session.show(page, present)


def post_resolve(
    session: Session,
    id: Annotated[int, typer.Argument(min=1, help="A transaction in doubt.")],
    reason: Annotated[str, typer.Option(help="How you know.")],
    document: Annotated[str | None, typer.Option(help="The ERP holds it under this id.")] = None,
    absent: Annotated[bool, typer.Option("--absent", help="The ERP does not hold it.")] = False,
) -> None:
    """Say whether the ERP holds a document in doubt, after looking there.

    A document named is read and linked. Absence is accepted once it is certain by the clock;
    the transaction is then sent again under the same key.
    """
    result = session.call("post.resolve", id=id, document=document, absent=absent, reason=reason)
    session.show(result, lambda shown: show.say(f"Transaction {shown['id']}: {shown['state']}."))


def reconcile(session: Session, connection: _Connection = None) -> None:
    """Compare every document we posted with what the ERP holds now, line by line.

    Changed, missing and cancelled documents become exceptions with three answers
    (`meterpost tx answer`). Ends with 4 where something differs.
    """
    result = session.call("reconcile.run", connection=connection)
    session.exit_code = 0 if result["clean"] else 4
    session.show(result, _reconciled)


def _reconciled(result: Mapping[str, Any]) -> None:
    for report in result["connections"]:
        show.say(f"{report['connection']}: {show.counts(report['counts'])}")
        different = [each for each in report["documents"] if each["verdict"] != "equal"]
        if different:
            columns = [
                show.text("document"),
                show.text("number"),
                show.text("contract"),
                show.text("verdict"),
                show.money("ours"),
                show.money("theirs"),
                show.text("currency"),
                show.Column("what differs", lambda row: "; ".join(row["differences"])),
            ]
            show.table(columns, different, "")


def worker_posting(
    session: Session,
    connection: Annotated[str, typer.Argument(help="A connection's name.")],
) -> None:
    """Run one more poster of a connection until Ctrl-C or SIGTERM.

    Posting needs PostgreSQL only, so that workers can run on other machines with the same
    database URL. Rate limits hold for all of them together.
    """
    application = session.application()
    stopping = threading.Event()
    poster = application.poster(connection)
    try:
        with stop_on_signals(stopping):
            show.say(f"Posting to {connection}; stop with Ctrl-C or SIGTERM.")
            poster.run(stopping)
    finally:
        poster.close()
