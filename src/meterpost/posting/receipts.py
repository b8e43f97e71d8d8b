"""What a stored ERP document means for us: a receipt, and how much of each line holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from meterpost.core.ids import PostingKey, TargetId, TransactionId
from meterpost.core.money import EXACT, minor_units, round_half_up
from meterpost.posting.model import (
    Difference,
    Document,
    DocumentState,
    ErpDocument,
    differences,
)

_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """What was sent for one contract line, and what of it holds in the ERP."""

    line: str
    posted: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Receipt:
    """The ERP document a transaction became, as last seen.

    ``compared``: whether the document was read from the ERP after the write; a connector's
    answer to the write itself is not counted as that.
    """

    target: TargetId
    transaction: TransactionId
    key: PostingKey
    document: ErpDocument
    held_net: Decimal
    lines: tuple[ReceiptLine, ...]
    differences: tuple[Difference, ...]
    compared: bool


def receipt(
    transaction: TransactionId,
    key: PostingKey,
    ours: Document,
    theirs: ErpDocument,
    *,
    compared: bool,
) -> Receipt:
    """The receipt for one of our documents as the ERP holds it."""
    return Receipt(
        ours.connection,
        transaction,
        key,
        theirs,
        held_net(theirs),
        receipt_lines(ours, theirs),
        differences(ours, theirs, key),
        compared,
    )


def held_net(theirs: ErpDocument) -> Decimal:
    """What of the document still holds: nothing once cancelled, else net less credits."""
    if theirs.state is DocumentState.CANCELLED:
        return _NOTHING
    with localcontext(EXACT):
        return theirs.net - theirs.credited_net


def receipt_lines(ours: Document, theirs: ErpDocument) -> tuple[ReceiptLine, ...]:
    """Per contract line of ours, in the document's order: what was sent and what holds.

    Lines that the ERP dropped hold nothing; lines that a clerk added are not ours and left to
    the exception that an edit opens.
    """
    posted: dict[str, Decimal] = {}
    with localcontext(EXACT):
        for line in ours.lines:
            posted[line.reference] = posted.get(line.reference, _NOTHING) + line.amount
    held = held_lines(theirs)
    return tuple(
        ReceiptLine(reference, amount, held.get(reference, _NOTHING))
        for reference, amount in posted.items()
    )


def held_lines(theirs: ErpDocument) -> Mapping[str, Decimal]:
    """Per line reference: the stored net less what credits took back.

    A credit that names no lines is spread over what remains of the lines in proportion, exact
    to the minor unit; the largest remainder takes the rounding.
    """
    with localcontext(EXACT):
        held: dict[str, Decimal] = {}
        unnamed = _NOTHING
        for line in theirs.lines:
            if line.reference is None:
                unnamed += line.net
            else:
                held[line.reference] = held.get(line.reference, _NOTHING) + line.net
        if theirs.state is DocumentState.CANCELLED:
            return dict.fromkeys(held, _NOTHING)
        named = _NOTHING
        for reference, credited in theirs.credited_lines.items():
            named += credited
            if reference in held:
                held[reference] -= credited
        return _spread(held, unnamed, theirs.credited_net - named, minor_units(theirs.currency))


def _spread(
    held: dict[str, Decimal], unnamed: Decimal, credit: Decimal, decimals: int
) -> dict[str, Decimal]:
    """The credit taken from every part in proportion; the clerk's own lines bear theirs."""
    total = sum(held.values(), unnamed)
    if not credit or not total:
        return held
    parts: dict[str | None, Decimal] = {None: unnamed}
    parts.update(held)
    shares = {
        name: round_half_up(credit * amount / total, decimals) for name, amount in parts.items()
    }
    largest = max(parts, key=lambda name: abs(parts[name]))
    shares[largest] += credit - sum(shares.values(), _NOTHING)
    return {name: amount - shares[name] for name, amount in held.items()}
