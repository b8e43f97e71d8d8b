"""Posting: run the posters, check connections, decide what cannot be looked up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from meterpost.access.model import Scope
from meterpost.core.errors import InvalidInput, MeterpostError
from meterpost.core.ids import TransactionId
from meterpost.operations.arguments import (
    Cursor,
    Id,
    Limit,
    Name,
    Reason,
    number_after,
    page,
)
from meterpost.operations.connections import connection_names, decisions, new_poster
from meterpost.operations.registry import Context, operation
from meterpost.posting.calls import PosterReport
from meterpost.posting.decisions import Absent, Exists
from meterpost.storage.postgres import listing

#: Documents sent between two looks at the time that is left.
_SENDS_PER_ROUND = 20
_WAIT_MAX_S = 1.0
_QUEUE = ("approved", "sending", "in_doubt", "deferred")


@dataclass(frozen=True)
class RunPosting:
    """One connection or all; ``seconds`` bounds the waiting for slow or failing ERPs."""

    connection: Name | None = None
    seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0


@operation(
    "post.run",
    scope=Scope.POSTING_RUN,
    summary="Post what is approved until nothing is left to do, or the time is over.",
)
def run_posting(context: Context, asked: RunPosting) -> object:
    """``left`` counts what stays in the queue, by state; ``paused`` says why, per connection."""
    return run_posters(context, asked.connection, asked.seconds)


def run_posters(context: Context, connection: str | None, seconds: float) -> dict[str, object]:
    """What the posters of the connections did within the time."""
    names = connection_names(context, connection)
    deadline = context.app.clock.now() + timedelta(seconds=seconds)
    return {"connections": [_run(context, name, deadline) for name in names]}


def _run(context: Context, connection: str, deadline: datetime) -> dict[str, object]:
    clock = context.app.clock
    counts: Counter[str] = Counter()
    total = sum(_left(context, connection).values())
    poster = new_poster(context, connection)
    try:
        while True:
            report = poster.run_once(sends_max=_SENDS_PER_ROUND)
            _count(counts, report)
            left = _left(context, connection)
            open_ = sum(left.values())
            context.progress(f"posting to {connection}", max(total - open_, 0), max(total, open_))
            if clock.now() >= deadline or (report.idle and not open_):
                break
            if report.idle or report.paused is not None:
                # Without a next moment of ours, another poster has what is left in hand.
                wait = _WAIT_MAX_S
                if report.next_at is not None:
                    if report.next_at >= deadline:
                        break
                    wait = min(wait, (report.next_at - clock.now()).total_seconds())
                clock.sleep(max(wait, 0.02))
    finally:
        poster.close()
    return {
        "connection": connection,
        **{name: counts[name] for name in ("posted", "rejected", "deferred", "in_doubt")},
        "returned": counts["returned"],
        "left": left,
        "next_at": report.next_at,
        "paused": report.paused,
    }


def _count(counts: Counter[str], report: PosterReport) -> None:
    counts["posted"] += len(report.posted)
    counts["rejected"] += len(report.rejected)
    counts["deferred"] += len(report.deferred)
    counts["in_doubt"] += len(report.in_doubt)
    counts["returned"] += len(report.returned)


def _left(context: Context, connection: str) -> dict[str, int]:
    wanted = listing.TransactionFilter(states=_QUEUE, target=connection)
    with context.app.database.begin() as database:
        rows = listing.transaction_sums(database, wanted)
    left: Counter[str] = Counter()
    for row in rows:
        left[row["state"]] += row["transactions"]
    return dict(left)


@dataclass(frozen=True)
class CheckConnections:
    """One connection or all."""

    connection: Name | None = None


@operation(
    "post.check",
    scope=Scope.POSTING_RUN,
    summary="Whether address, credentials and rights of connections suffice to post.",
)
def check_connections(context: Context, asked: CheckConnections) -> object:
    """Asks the ERP; nothing is written there."""
    items: list[dict[str, object]] = []
    for name in connection_names(context, asked.connection):
        try:
            health = context.app.connector(name).check()
        except MeterpostError as exc:
            items.append({"connection": name, "ok": False, "sentence": str(exc), "version": None})
        else:
            items.append(
                {
                    "connection": name,
                    "ok": health.ok,
                    "sentence": health.sentence,
                    "version": health.version,
                }
            )
    return {"ok": all(item["ok"] is True for item in items), "items": items, "next": None}


@dataclass(frozen=True)
class ListDoubts:
    """Of one connection or all."""

    connection: Name | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation(
    "post.doubts",
    scope=Scope.TRANSACTIONS_READ,
    summary="Transactions of which nobody knows yet whether the ERP has them.",
)
def list_doubts(context: Context, asked: ListDoubts) -> object:
    """``send_before``: the request was written before then, or not at all."""
    with context.app.database.begin() as connection:
        rows = listing.doubts(
            connection, asked.connection, number_after(asked.cursor), asked.limit + 1
        )
    return page(rows, asked.limit, lambda row: row["id"])


@dataclass(frozen=True)
class ResolveDoubt:
    """Either ``document`` (the id under which the ERP holds it) or ``absent``."""

    id: Id
    reason: Reason
    document: Name | None = None
    absent: bool = False


@operation(
    "post.resolve",
    scope=Scope.POSTING_RUN,
    summary="Say whether the ERP holds a document in doubt, after looking there.",
)
def resolve_doubt(context: Context, asked: ResolveDoubt) -> object:
    """A document named is read and linked; absence is accepted once it is certain by the clock,
    and the transaction is then sent again under the same key.
    """
    if (asked.document is None) == (not asked.absent):
        raise InvalidInput("Say either which document it is, or that there is none.")
    with context.app.database.begin() as connection:
        target = listing.transaction(connection, asked.id)["target"]
    state = decisions(context, target).resolve_in_doubt(
        TransactionId(asked.id),
        Absent() if asked.document is None else Exists(asked.document),
        actor=context.principal.user,
        reason=asked.reason,
    )
    return {"id": asked.id, "state": state}
