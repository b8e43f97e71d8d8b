"""A trace as a tree of text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from meterpost.core.canonical import plain_decimal
from meterpost.reconcile.trace import (
    Trace,
    TracedEvent,
    TracedLine,
    TracedRecord,
    TracedSegment,
    TracedTransaction,
)


@dataclass(slots=True)
class _Node:
    text: str
    children: list[_Node] = field(default_factory=list)

    def add(self, text: str) -> _Node:
        child = _Node(text)
        self.children.append(child)
        return child

    def lines(self, first: str = "", rest: str = "") -> Iterator[str]:
        yield first + self.text
        for number, child in enumerate(self.children, 1):
            last = number == len(self.children)
            yield from child.lines(
                rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
            )


def trace_lines(trace: Trace) -> list[str]:
    """The trace, one line of text per fact, indented under what it belongs to."""
    root = _Node(f"{trace.ref} is {_article(trace.kind)} {trace.kind}.")
    shown: set[int] = set()
    for event in trace.events:
        _event(root, event, trace.names)
    if trace.more_events:
        root.add("… more events; name one by its id")
    records = {record.id: record for record in trace.records}
    for transaction in trace.transactions:
        _transaction(root, transaction, records, shown, trace.names)
    for record in trace.records:
        if record.id not in shown:
            _record(root, record, trace.names)
    if not root.children:
        root.add("nothing became of it yet")
    if trace.also:
        root.add("it can also be read as " + ", ".join(trace.also))
    return list(root.lines())


def _article(kind: str) -> str:
    return "an" if kind[:1] in "aeiou" else "a"


def _event(parent: _Node, event: TracedEvent, names: Mapping[str, str]) -> None:
    when = "" if event.time is None else f" at {_moment(event.time)}"
    node = parent.add(
        f"event {event.id} of {event.source}, {event.type or 'type unknown'}, "
        f"subject {_name(event.subject or '-', names)}{when}"
        + ("" if event.value is None else f", counts {plain_decimal(event.value)}")
    )
    for meter, fate in event.fates.items():
        node.add(f"{meter}: {fate}")
    if event.fates:
        node.add(f"recorded {_moment(event.recorded_at)}, correlation {event.correlation_id}")


def _transaction(
    parent: _Node,
    transaction: TracedTransaction,
    records: Mapping[int, TracedRecord],
    shown: set[int],
    names: Mapping[str, str],
) -> None:
    each = transaction
    node = parent.add(
        f"transaction {each.id} {each.posting_key}, {each.business_key} "
        f"{_moment(each.period_start)} to {_moment(each.period_end)}, revision {each.revision}: "
        f"{each.state}, amount {each.amount} {each.currency}, due {each.due}"
    )
    if not each.focus:
        if each.receipt is not None:
            node.add(f"document {each.receipt.document_id} ({each.receipt.state})")
        return
    if each.receipt is not None:
        found = each.receipt
        document = node.add(
            f"document {found.document_id} in {found.target}, number {found.number or 'none yet'}: "
            f"{found.state}, net {found.net} tax {found.tax} gross {found.gross}, "
            f"holds {found.held_net}, compared: {found.comparison}"
        )
        _all(document, found.differences)
        if found.answer:
            document.add(f"answered: {found.answer}")
    _all(node, (f"open exception: {sentence}" for sentence in each.exceptions))
    history = node.add(f"history ({len(each.history)} steps)")
    _all(
        history,
        (f"{_moment(s.at)} {s.to_state} by {s.actor}: {s.reason}" for s in each.history),
    )
    _all(
        node,
        (
            f"{a.decision} by {f'rule {a.rule}' if a.rule else a.person} {_moment(a.at)}"
            + (f": {a.reason}" if a.reason else "")
            for a in each.approvals
        ),
    )
    _all(
        node,
        (
            f"call {c.n} ({c.purpose}) {_moment(c.reserved_at)}: {c.outcome or 'open'}"
            + (f", {c.sentence}" if c.sentence else "")
            for c in each.calls
        ),
    )
    for line in each.lines:
        _line(node, line, each.currency, records, shown, names)


def _line(
    parent: _Node,
    line: TracedLine,
    currency: str,
    records: Mapping[int, TracedRecord],
    shown: set[int],
    names: Mapping[str, str],
) -> None:
    node = parent.add(
        f"line {line.ordinal} {line.line}: {plain_decimal(line.quantity)} {line.unit} at "
        f"{line.price or 'no price'} = {line.amount} {currency}, held {line.held}, due {line.due}"
    )
    steps = line.working.get("working")
    for step in steps if isinstance(steps, list) else ():
        node.add("working: " + _step(step))
    if line.usage_record is not None and line.usage_record in records:
        shown.add(line.usage_record)
        _record(node, records[line.usage_record], names)


def _step(step: Mapping[str, object]) -> str:
    if step.get("quantity") is None:
        return f"{step['label']} {step['amount']}"
    return f"{step['label']} {step['quantity']} × {step['unit_price']} = {step['amount']}"


def _record(parent: _Node, record: TracedRecord, names: Mapping[str, str]) -> None:
    close = record.close
    whose = record.line or _name(record.subject, names)
    node = parent.add(
        f"usage record {record.id}, {record.meter or 'no meter'} of {whose} "
        f"{_moment(record.period_start)} to {_moment(record.period_end)}, revision "
        f"{record.revision}: {plain_decimal(record.quantity)} {record.unit} from {record.events} "
        f"events, {record.fate}"
    )
    node.add(
        f"close {close.id}: {close.workflow} {close.legal_entity} {close.accounting_period} "
        f"no. {close.n} ({close.basis}), cutoff {close.cutoff}, master data {close.masterdata_rev}"
    )
    if record.claimed_by is not None:
        node.add(f"claimed by transaction {record.claimed_by}")
    if record.superseded_by is not None:
        node.add(f"superseded by usage record {record.superseded_by}")
    for segment in record.segments:
        _segment(node, segment, names)


def _segment(parent: _Node, segment: TracedSegment, names: Mapping[str, str]) -> None:
    dimensions = "".join(f", {k}={v}" for k, v in segment.dimensions.items())
    node = parent.add(
        f"segment {segment.ordinal}: {segment.source} {_name(segment.subject, names)} "
        f"{_moment(segment.start)} to {_moment(segment.end)}{dimensions}: {segment.events} events"
    )
    for event in segment.listed:
        _event(node, event, names)
    if segment.next_after is not None:
        node.add(f"… more after sequence {segment.next_after}")


def _all(parent: _Node, texts: Iterable[str]) -> None:
    for text in texts:
        parent.add(text)


def _name(subject: str, names: Mapping[str, str]) -> str:
    return f"{names[subject]} ({subject})" if subject in names else subject


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
