"""What an ERP document has become since it was written, decided from two documents alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum

from meterpost.core.ids import LegalEntityId, PostingKey, ReceiptId, TargetId, TransactionId
from meterpost.core.money import EXACT
from meterpost.posting.model import (
    Difference,
    Document,
    DocumentState,
    ErpDocument,
    differences,
)
from meterpost.posting.receipts import held_lines, held_net
from meterpost.staging.model import State

_NOTHING = Decimal(0)


class ReceiptState(StrEnum):
    """The life of one of our documents in the ERP."""

    DRAFT = "draft"
    EDITED = "edited"
    NUMBERED = "numbered"
    CANCELLED = "cancelled"
    CREDITED = "credited"
    MISSING = "missing"

    @property
    def needs_answer(self) -> bool:
        """Whether a person has to accept, restate or withdraw."""
        return self in {ReceiptState.EDITED, ReceiptState.CANCELLED, ReceiptState.MISSING}


class Comparison(StrEnum):
    """Whether the ERP holds what was sent. A credit note leaves the document itself equal."""

    NOT_YET = "not_yet"
    EQUAL = "equal"
    CHANGED = "changed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the ERP made of a document when it was first read: the part we never sent.

    We send tax codes, the ERP computes the tax; so tax, gross and the accounts and tax codes of
    lines are compared with what the ERP itself said first.
    """

    tax: Decimal
    gross: Decimal
    lines: Mapping[str, tuple[str | None, tuple[str, ...]]]

    @classmethod
    def of(cls, document: ErpDocument) -> Baseline:
        """The baseline a freshly read document gives."""
        return cls(
            document.tax,
            document.gross,
            {
                line.reference: (line.account, tuple(sorted(line.tax_codes)))
                for line in document.lines
                if line.reference is not None
            },
        )

    def differences(self, theirs: ErpDocument) -> tuple[Difference, ...]:
        """Fields that left the baseline."""
        found = []
        for name, first, now in (
            ("tax", self.tax, theirs.tax),
            ("gross", self.gross, theirs.gross),
        ):
            if first != now:
                found.append(Difference(name, str(first), str(now)))
        for line in theirs.lines:
            if line.reference is None or line.reference not in self.lines:
                continue
            account, taxes = self.lines[line.reference]
            if account != line.account:
                found.append(
                    Difference(f"line {line.reference} account", str(account), str(line.account))
                )
            stored = tuple(sorted(line.tax_codes))
            if taxes != stored:
                found.append(
                    Difference(
                        f"line {line.reference} tax codes",
                        ", ".join(taxes) or "none",
                        ", ".join(stored) or "none",
                    )
                )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class HeldLine:
    """One contract line of a receipt: sent, holding, and accepted as ERP − ours."""

    posted: Decimal
    held: Decimal
    adjustment: Decimal


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt as its rows hold it, with the transaction it belongs to.

    ``baseline`` is None while nobody has read the document since it was written.
    """

    id: ReceiptId
    target: TargetId
    transaction: TransactionId
    key: PostingKey
    document_id: str
    number: str | None
    ours: Document
    state: ReceiptState
    comparison: Comparison
    differences: tuple[Difference, ...]
    net: Decimal
    tax: Decimal
    gross: Decimal
    held_net: Decimal
    lines: Mapping[str, HeldLine]
    baseline: Baseline | None
    answer: str | None
    created_at: datetime
    transaction_state: State
    purpose: str
    business_key: str
    legal_entity: LegalEntityId
    accounting_period: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a fresh look says of a receipt. ``document`` is None where the ERP has none.

    ``held`` is per contract line of ours; ``answer`` is what of an earlier answer still counts.
    """

    state: ReceiptState
    comparison: Comparison
    document: ErpDocument | None
    held_net: Decimal
    held: Mapping[str, Decimal]
    differences: tuple[Difference, ...]
    baseline: Baseline | None
    answer: str | None
    adjustments: Mapping[str, Decimal]

    def says(self, stored: StoredReceipt) -> bool:
        """Whether the receipt said the same before."""
        return (
            self.state is stored.state
            and self.comparison is stored.comparison
            and self.differences == stored.differences
            and self.held_net == stored.held_net
        )


def judge(stored: StoredReceipt, theirs: ErpDocument | None) -> Judgement:
    """What became of the document, what of it holds, and whether an answer still counts.

    An answer is about one state of affairs: other differences or other amounts ask anew, and a
    document that is as we sent it needs none, nor what was accepted before.
    """
    if theirs is None:
        state, comparison = ReceiptState.MISSING, Comparison.MISSING
        found: tuple[Difference, ...] = (Difference("document", stored.document_id, "none"),)
        held_total, held = _NOTHING, dict.fromkeys(stored.lines, _NOTHING)
        baseline = stored.baseline
    else:
        baseline = stored.baseline or Baseline.of(theirs)
        found = (
            *differences(stored.ours, theirs, stored.key),
            *baseline.differences(theirs),
        )
        state = _state(theirs, found)
        if state is ReceiptState.CANCELLED:
            found = (Difference("state", "alive", "cancelled"), *found)
        comparison = Comparison.CHANGED if found else Comparison.EQUAL
        held_total, now = held_net(theirs), held_lines(recognised(stored.ours, theirs))
        held = {line: now.get(line, _NOTHING) for line in stored.lines}
    answer, adjustments = stored.answer, {n: line.adjustment for n, line in stored.lines.items()}
    before = {name: line.held for name, line in stored.lines.items()}
    if not state.needs_answer or (state, found, held) != (
        stored.state,
        stored.differences,
        before,
    ):
        answer, adjustments = None, dict.fromkeys(stored.lines, _NOTHING)
    return Judgement(
        state, comparison, theirs, held_total, held, found, baseline, answer, adjustments
    )


def recognised(ours: Document, theirs: ErpDocument) -> ErpDocument:
    """The document with our references put back on lines that lost them.

    A clerk who rewrites a line's text takes our reference with it; the money is billed all the
    same and must not be due again. A line without reference is taken for a line of ours that is
    missing and has its item: with the same amount first, then where only one of each is left.
    """
    present = {line.reference for line in theirs.lines}
    missing = {line.reference: line for line in ours.lines if line.reference not in present}
    lines = list(theirs.lines)
    nameless = [n for n, line in enumerate(lines) if line.reference is None]

    def put_back(number: int, reference: str) -> None:
        lines[number] = replace(lines[number], reference=reference)
        nameless.remove(number)
        del missing[reference]

    for number in tuple(nameless):
        found = lines[number]
        for line in tuple(missing.values()):
            if (line.item, line.amount) == (found.item, found.net):
                put_back(number, line.reference)
                break
    for number in tuple(nameless):
        item = lines[number].item
        same = [line for line in missing.values() if line.item == item]
        if len(same) == 1 and sum(lines[n].item == item for n in nameless) == 1:
            put_back(number, same[0].reference)
    return replace(theirs, lines=tuple(lines))


def _state(theirs: ErpDocument, found: tuple[Difference, ...]) -> ReceiptState:
    if theirs.state is DocumentState.CANCELLED and not _refunded(theirs):
        return ReceiptState.CANCELLED
    if found:
        return ReceiptState.EDITED
    if theirs.credited_net:
        return ReceiptState.CREDITED
    if theirs.state is DocumentState.NUMBERED:
        return ReceiptState.NUMBERED
    return ReceiptState.DRAFT


def _refunded(theirs: ErpDocument) -> bool:
    """Whether it was cancelled by a credit over all of it, as some ERPs do (Tryton's refunds)."""
    return theirs.number is not None and theirs.credited_net == theirs.net != 0


class Verdict(StrEnum):
    """One word per document for the reader of a report."""

    EQUAL = "equal"
    CHANGED = "changed"
    MISSING = "missing"
    #: Written so recently that the ERP may still hide it.
    HIDDEN = "not visible yet"
    #: A document of ours in the ERP that no receipt of ours knows.
    UNKNOWN = "without receipt"


@dataclass(frozen=True, slots=True)
class Compared:
    """One amount on both sides; None where a side has none."""

    name: str
    ours: Decimal | None
    theirs: Decimal | None

    @property
    def difference(self) -> Decimal:
        """ERP − ours."""
        with localcontext(EXACT):
            return (self.theirs or _NOTHING) - (self.ours or _NOTHING)


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """One document: net, tax and gross, then line by line; what differs in words.

    Amounts are in ``currency``; ``held`` is what of the document still holds.
    """

    document_id: str
    number: str | None
    key: str
    transaction: TransactionId | None
    business_key: str
    state: ReceiptState | None
    verdict: Verdict
    currency: str
    held: Decimal
    amounts: tuple[Compared, ...] = ()
    lines: tuple[Compared, ...] = ()
    differences: tuple[str, ...] = ()
    answer: str | None = None

    @property
    def ours(self) -> Decimal:
        """The net amount we sent."""
        return next((a.ours or _NOTHING for a in self.amounts if a.name == "net"), _NOTHING)

    @property
    def theirs(self) -> Decimal:
        """The net amount the ERP holds."""
        return next((a.theirs or _NOTHING for a in self.amounts if a.name == "net"), _NOTHING)


def report_on(stored: StoredReceipt, judgement: Judgement) -> DocumentReport:
    """The report of one judged receipt."""
    theirs = judgement.document
    first = judgement.baseline
    amounts = (
        Compared("net", stored.ours.net, theirs.net if theirs else None),
        Compared("tax", first.tax if first else None, theirs.tax if theirs else None),
        Compared("gross", first.gross if first else None, theirs.gross if theirs else None),
    )
    per_line: dict[str, Decimal] = {}
    for line in theirs.lines if theirs else ():
        name = line.reference or line.description
        with localcontext(EXACT):
            per_line[name] = per_line.get(name, _NOTHING) + line.net
    lines = [
        Compared(name, line.posted, per_line.pop(name, None)) for name, line in stored.lines.items()
    ]
    lines += [Compared(name, None, net) for name, net in per_line.items()]
    verdict = {
        Comparison.EQUAL: Verdict.EQUAL,
        Comparison.CHANGED: Verdict.CHANGED,
        Comparison.MISSING: Verdict.MISSING,
        Comparison.NOT_YET: Verdict.HIDDEN,
    }[judgement.comparison]
    return DocumentReport(
        stored.document_id,
        theirs.number if theirs else stored.number,
        stored.key,
        stored.transaction,
        stored.business_key,
        judgement.state,
        verdict,
        stored.ours.currency,
        judgement.held_net,
        amounts,
        tuple(lines),
        tuple(map(str, judgement.differences)),
        judgement.answer,
    )


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """One run over a connection. ``steps`` counts transactions by the state they moved to."""

    connection: TargetId
    documents: tuple[DocumentReport, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        """How many documents got that verdict."""
        return sum(document.verdict is verdict for document in self.documents)

    @property
    def clean(self) -> bool:
        """Whether everything of ours is in the ERP as we sent it, and nothing else of ours is."""
        return all(document.verdict is Verdict.EQUAL for document in self.documents)

    def counts(self) -> Mapping[str, int]:
        """Documents per verdict."""
        return {verdict.value: self.count(verdict) for verdict in Verdict}
