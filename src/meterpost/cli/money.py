"""From usage to approved transactions: close, tx, exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import typer

from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.data import Cursor, Limit
from meterpost.cli.session import Session
from meterpost.cli.setup import require_answer
from meterpost.cli.transaction_text import present_transaction
from meterpost.core.errors import InvalidInput
from meterpost.operations.transactions import DECISIONS_MAX
from meterpost.staging.model import State
from meterpost.staging.review import Answer
from meterpost.workflows.close import Ask

_Period = Annotated[str, typer.Argument(help="An accounting period: 2026-10.")]
_Entity = Annotated[str | None, typer.Option(help="A legal entity's id.")]
_PeriodOption = Annotated[str | None, typer.Option(help="An accounting period: 2026-10.")]
_Ids = Annotated[list[int], typer.Argument(min=1, help="Transactions by id (meterpost tx list).")]
_SomeIds = Annotated[
    list[int] | None, typer.Argument(min=1, help="Transactions by id; or --all with filters.")
]
_All = Annotated[bool, typer.Option("--all", help="Everything in review that the filters leave.")]
_Customer = Annotated[str | None, typer.Option(help="A customer's id.")]
_Contract = Annotated[str | None, typer.Option(help="A contract's id.")]
_Target = Annotated[str | None, typer.Option(help="A connection's name.")]
_Minimum = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help="Only where at least this much is due.")
]
_Reason = Annotated[str, typer.Option(help="Why, for those who come after.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    close = group(app, "close", "Closes of accounting periods: usage, amounts, transactions.")
    command(
        close,
        "run",
        example="meterpost close run 2026-10\n"
        "meterpost close run 2026-10 --ask resolved    after an exception was solved\n"
        "meterpost close run 2026-10 --ask late        when events came late",
    )(close_run)
    command(close, "list", example="meterpost close list --period 2026-10")(close_list)
    command(close, "show", example="meterpost close show 3")(close_show)
    tx = group(app, "tx", "Staged transactions: what should exist in the ERP.")
    command(tx, "list", example="meterpost tx list --state in_review --minimum 1000")(tx_list)
    command(tx, "show", example="meterpost tx show 17")(tx_show)
    command(
        tx,
        "approve",
        example="meterpost tx approve 17 --as ada\nmeterpost tx approve --all --period 2026-10",
    )(tx_approve)
    command(tx, "reject", example='meterpost tx reject 17 --reason "wrong price"')(tx_reject)
    command(tx, "release", example='meterpost tx release 17 --reason "price is right"')(tx_release)
    command(tx, "retry", example='meterpost tx retry 17 --reason "customer reactivated"')(tx_retry)
    command(tx, "withdraw", example='meterpost tx withdraw 17 --reason "billed by hand"')(
        tx_withdraw
    )
    command(
        tx, "answer", example='meterpost tx answer 17 restate --reason "the edit was a mistake"'
    )(tx_answer)
    exceptions = group(app, "exceptions", "Facts that cannot go on, whose they are, what helps.")
    command(
        exceptions,
        "list",
        example="meterpost exceptions list\nmeterpost exceptions list --reason unmatched_subject",
    )(exceptions_list)
    command(exceptions, "show", example="meterpost exceptions show 5")(exceptions_show)
    command(exceptions, "assign", example="meterpost exceptions assign 5 carol")(exceptions_assign)
    command(exceptions, "retry", example="meterpost exceptions retry 5")(exceptions_retry)
    command(
        exceptions,
        "settle",
        example='meterpost exceptions settle 5 --reason "the first event is right"',
    )(exceptions_settle)


def close_run(
    session: Session,
    period: _Period,
    entity: _Entity = None,
    workflow: Annotated[str | None, typer.Option(help="Where there is more than one.")] = None,
    ask: Annotated[Ask, typer.Option(help="Which close of the period is meant.")] = Ask.LATEST,
) -> None:
    """Close an accounting period: usage records, amounts, staged transactions.

    Running it again changes nothing, and finishes a close that broke off. `--ask resolved`
    takes the same events with today's master data, so that exactly the held usage flows on;
    `--ask late` takes the events that came since, too, and bills the difference.
    """
    result = session.call(
        "close.run", period=period, entity=entity, workflow=workflow, ask=ask.value
    )
    session.show(result, _closed)


def _closed(result: Mapping[str, Any]) -> None:
    close = result["close"]
    what = f"{close['legal_entity']} {close['accounting_period']} no. {close['n']}"
    if not result["ran"]:
        show.say(f"Close {close['id']} ({what}) was complete already; nothing changed.")
        return
    staging = result["staging"] or {"staged": {}, "kept": 0, "superseded": 0, "waiting": 0}
    unassigned = (result["unassigned"] or {}).get("exceptions", {})
    show.say(f"Close {close['id']}: {what} ({close['basis']}), {close['state']}")
    show.pairs(
        [
            ("contract lines", show.quantity(result["lines"])),
            ("usage records written", show.quantity(result["records"])),
            ("transactions", show.counts(staging["staged"])),
            ("unchanged", show.quantity(staging["kept"])),
            ("superseded", staging["superseded"] or None),
            ("waiting for the ERP", staging["waiting"] or None),
            ("exceptions", show.counts({**result["exceptions"], **unassigned})),
        ]
    )


def close_list(
    session: Session,
    period: _PeriodOption = None,
    entity: _Entity = None,
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List closes, newest first. The entity `unassigned` holds usage that nobody owns."""
    page = session.call(
        "close.list", period=period, entity=entity, workflow=workflow, cursor=cursor, limit=limit
    )
    columns = [
        show.number("id"),
        show.text("workflow"),
        show.text("entity", "legal_entity"),
        show.text("period", "accounting_period"),
        show.number("n"),
        show.text("basis"),
        show.text("state"),
        show.text("by", "requested_by"),
        show.moment("requested", "requested_at"),
    ]
    _paged(session, page, columns, "Nothing was closed yet.")


def _paged(session: Session, page: Any, columns: list[show.Column], empty: str) -> None:
    def present(shown: Mapping[str, Any]) -> None:
        show.table(columns, shown["items"], empty)
        show.more(shown)

    session.show(page, present)


def close_show(session: Session, id: Annotated[int, typer.Argument(min=1)]) -> None:
    """Show a close: its frame, its transactions and open exceptions in numbers."""

    def present(shown: Mapping[str, Any]) -> None:
        skipped = {"transactions", "exceptions", "cutoff", "counts"}
        show.pairs([(k, v) for k, v in shown.items() if k not in skipped])
        show.say()
        columns = [
            show.text("state"),
            show.number("transactions"),
            show.money("due"),
            show.text("currency"),
        ]
        show.table(columns, shown["transactions"], "No transactions.")
        show.say()
        _groups(shown["exceptions"])

    session.show(session.call("close.show", id=id), present)


_COLUMNS = [
    show.number("id"),
    show.text("state"),
    show.text("customer"),
    show.text("contract"),
    show.text("first day", "first_day"),
    show.text("last day", "last_day"),
    show.number("rev", "revision"),
    show.money("amount"),
    show.money("due"),
    show.text("currency"),
    show.text("target"),
    show.text("ERP", "erp_number"),
]


def tx_list(
    session: Session,
    state: Annotated[list[State] | None, typer.Option(help="Repeat it for several.")] = None,
    entity: _Entity = None,
    period: _PeriodOption = None,
    customer: _Customer = None,
    contract: _Contract = None,
    target: _Target = None,
    minimum: _Minimum = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List staged transactions, newest first; days are local to the contract."""
    filters = _filters(entity, period, customer, contract, target, minimum)
    states = [each.value for each in state or ()]
    page = session.call("tx.list", state=states, cursor=cursor, limit=limit, **filters)
    _paged(session, page, _COLUMNS, "No transactions.")


def _filters(
    entity: str | None,
    period: str | None,
    customer: str | None,
    contract: str | None,
    target: str | None,
    minimum: str | None,
) -> dict[str, object]:
    return {
        "entity": entity,
        "period": period,
        "customer": customer,
        "contract": contract,
        "target": target,
        "minimum": minimum,
    }


def tx_show(session: Session, id: Annotated[int, typer.Argument(min=1)]) -> None:
    """Show a transaction: document, lines with their working, history, approvals, receipt."""
    session.show(session.call("tx.show", id=id), present_transaction)


def tx_approve(
    session: Session,
    ids: _SomeIds = None,
    all_: _All = False,
    entity: _Entity = None,
    period: _PeriodOption = None,
    customer: _Customer = None,
    contract: _Contract = None,
    target: _Target = None,
    minimum: _Minimum = None,
    reason: Annotated[str, typer.Option(help="A word for those who come after.")] = "",
    yes: _Yes = False,
) -> None:
    """Approve documents exactly as they are shown: an approval binds to the document's hash.

    It names you. Nobody approves what they closed or configured themselves (four eyes); large
    amounts take two people. Ends with 5 where any was refused.
    """
    filters = _filters(entity, period, customer, contract, target, minimum)
    chosen = _chosen(session, ids, all_, filters)
    if not chosen:
        raise InvalidInput("Nothing is in review here.", hint="meterpost tx list shows the states.")
    if not session.as_json:
        show.table(_COLUMNS, chosen, "")
    require_answer(yes or session.as_json, f"Approve {_what(chosen)}?")
    _decide(session, "tx.approve", chosen, reason)


def tx_reject(
    session: Session,
    reason: _Reason,
    ids: _SomeIds = None,
    all_: _All = False,
    entity: _Entity = None,
    period: _PeriodOption = None,
    customer: _Customer = None,
    contract: _Contract = None,
    target: _Target = None,
    minimum: _Minimum = None,
    yes: _Yes = False,
) -> None:
    """Refuse documents with a reason: they are held until released or closed anew."""
    filters = _filters(entity, period, customer, contract, target, minimum)
    chosen = _chosen(session, ids, all_, filters)
    if not chosen:
        raise InvalidInput("Nothing is in review here.", hint="meterpost tx list shows the states.")
    require_answer(yes or not all_ or session.as_json, f"Reject {_what(chosen)}?")
    _decide(session, "tx.reject", chosen, reason)


def _chosen(
    session: Session, ids: list[int] | None, all_: bool, filters: Mapping[str, object]
) -> list[Mapping[str, Any]]:
    """The transactions as they stand, each with the hash that the decision will bind to."""
    if bool(ids) == all_:
        raise InvalidInput("Name transactions, or say --all with filters.")
    if all_:
        return session.pages("tx.list", state=[State.IN_REVIEW.value], **filters)
    if any(value is not None for value in filters.values()):
        raise InvalidInput("Filters go with --all, not with single transactions.")
    return [session.call("tx.show", id=id_) for id_ in ids or ()]


def _what(chosen: list[Mapping[str, Any]]) -> str:
    sums: dict[str, Decimal] = {}
    for each in chosen:
        currency = each["currency"]
        sums[currency] = sums.get(currency, Decimal(0)) + Decimal(each["due"])
    money = " and ".join(f"{show.amount(due, name)} {name}" for name, due in sums.items())
    return f"{len(chosen)} transaction{'s' * (len(chosen) != 1)} over {money}"


def _decide(session: Session, operation: str, chosen: list[Mapping[str, Any]], reason: str) -> None:
    without = [each["id"] for each in chosen if each["document_hash"] is None]
    if without:
        raise InvalidInput(
            f"Transaction {without[0]} has no document yet: something is missing to write it.",
            hint="meterpost exceptions list tells what.",
        )
    reviewed = [{"id": each["id"], "hash": each["document_hash"]} for each in chosen]
    result: dict[str, Any] = {"done": 0, "refused": 0, "items": []}
    for start in range(0, len(reviewed), DECISIONS_MAX):
        part = session.call(
            operation, transactions=reviewed[start : start + DECISIONS_MAX], reason=reason
        )
        result = {key: result[key] + part[key] for key in result}
    _decided(session, result)


def _decided(session: Session, result: dict[str, Any]) -> None:
    refused = [item for item in result["items"] if not item["ok"]]
    codes = {"not-found": 3, "conflict": 4, "not-allowed": 5, "needs-person": 5, "transient": 6}
    session.exit_code = max((codes.get(item["code"], 1) for item in refused), default=0)

    def present(shown: Mapping[str, Any]) -> None:
        columns = [
            show.number("id"),
            show.Column("", lambda row: row.get("state", "refused")),
            show.Column("", lambda row: f"{row['sentence']} {row.get('hint') or ''}".strip()),
        ]
        show.table(columns, shown["items"], "")
        show.say(f"{shown['done']} done, {shown['refused']} refused.")

    session.show(result, present)


def tx_release(session: Session, ids: _Ids, reason: _Reason) -> None:
    """Put held transactions up for review again, as they are."""
    _decided(session, session.call("tx.release", ids=ids, reason=reason))


def tx_retry(session: Session, ids: _Ids, reason: _Reason) -> None:
    """Send transactions that the ERP rejected again: same document, same key, never twice."""
    _decided(session, session.call("tx.retry", ids=ids, reason=reason))


def tx_withdraw(session: Session, ids: _Ids, reason: _Reason, yes: _Yes = False) -> None:
    """End open transactions for good; later revisions of the same period are held."""
    require_answer(yes or session.as_json, f"Withdraw {len(ids)} for good?")
    _decided(session, session.call("tx.withdraw", ids=ids, reason=reason))


def tx_answer(
    session: Session,
    id: Annotated[int, typer.Argument(min=1)],
    answer: Annotated[Answer, typer.Argument()],
    reason: _Reason,
) -> None:
    """Decide about a posted document that somebody changed or deleted in the ERP.

    accept: the ERP's amounts stand. restate: the next close posts the difference. withdraw:
    later revisions are held. Until then newer revisions wait.
    """
    result = session.call("tx.answer", id=id, answer=answer.value, reason=reason)
    session.show(result, lambda shown: show.say(f"{shown['answer']}: {shown['sentence']}."))


def exceptions_list(
    session: Session,
    reason: Annotated[str | None, typer.Option(help="One by one, of this reason.")] = None,
    flat: Annotated[bool, typer.Option("--flat", help="One by one, of every reason.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    entity: _Entity = None,
    period: _PeriodOption = None,
    owner: Annotated[str | None, typer.Option(help="engineer, operator, finance, …")] = None,
    assignee: Annotated[str | None, typer.Option(help="Who is to move it.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> None:
    """List what cannot go on: by reason, with records, money at stake, age and owner."""
    grouped = not flat and reason is None
    page = session.call(
        "exceptions.list",
        grouped=grouped,
        state="all" if all_ else "open",
        reason=reason,
        entity=entity,
        period=period,
        owner=owner,
        assignee=assignee,
        cursor=cursor,
        limit=limit,
    )
    if grouped:
        session.show(page, lambda shown: _groups(shown["items"]))
        return
    columns = [
        show.number("id"),
        show.text("reason"),
        show.number("records"),
        show.Column(
            "estimate",
            lambda row: show.amount(row["estimate"], row["currency"]) if row["currency"] else "",
            right=True,
        ),
        show.text("currency"),
        show.number("days", "age_days"),
        show.text("owner"),
        show.text("assignee"),
        show.text("what", "sentence"),
    ]
    _paged(session, page, columns, "No exceptions.")


def _groups(groups: list[Mapping[str, Any]]) -> None:
    columns = [
        show.text("reason"),
        show.number("exceptions"),
        show.number("records"),
        show.Column(
            "estimate",
            lambda row: " ".join(
                f"{show.amount(value, currency)} {currency}"
                for currency, value in row["estimates"].items()
            ),
            right=True,
        ),
        show.moment("since", "oldest_at"),
        show.text("owner", "owners"),
    ]
    show.table(columns, groups, "No open exceptions.")


def exceptions_show(session: Session, id: Annotated[int, typer.Argument(min=1)]) -> None:
    """Show an exception with everything known of it, and what helps."""
    session.show(
        session.call("exceptions.show", id=id),
        lambda shown: show.pairs(
            [(key.replace("_", " "), value) for key, value in shown.items() if value != {}]
        ),
    )


def exceptions_assign(
    session: Session,
    id: Annotated[int, typer.Argument(min=1)],
    assignee: Annotated[str, typer.Argument(help="A person.")],
) -> None:
    """Name who is to move an exception."""
    result = session.call("exceptions.assign", id=id, assignee=assignee)
    session.show(result, lambda shown: show.say(f"Assigned to {shown['assignee']}."))


def exceptions_retry(session: Session, id: Annotated[int, typer.Argument(min=1)]) -> None:
    """Do what helps for an exception's reason, and say whether it is gone.

    Runs the close again with today's master data, sends again, looks in the ERP again, or
    reconciles. Ends with 4 where it is still open.
    """
    result = session.call("exceptions.retry", id=id)
    session.exit_code = 0 if result["state"] == "closed" else 4

    def present(shown: Mapping[str, Any]) -> None:
        show.say(f"{shown['did'].capitalize()}: exception {shown['id']} is {shown['state']}.")
        if shown["suggestion"]:
            show.say(f"What helps: {shown['suggestion']}")

    session.show(result, present)


def exceptions_settle(
    session: Session, id: Annotated[int, typer.Argument(min=1)], reason: _Reason
) -> None:
    """Close an exception about a single event, which only a decision can end."""
    result = session.call("exceptions.settle", id=id, reason=reason)
    session.show(result, lambda shown: show.say(f"Exception {shown['id']} is closed."))
