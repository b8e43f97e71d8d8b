"""Receipts in the operational database: the ERP documents that transactions became."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from meterpost.core.canonical import to_plain
from meterpost.core.errors import Conflict
from meterpost.core.ids import PostingKey, ReceiptId, TargetId, TransactionId
from meterpost.posting.calls import Unread
from meterpost.posting.model import Document
from meterpost.posting.receipts import Receipt
from meterpost.storage.tables.posting import RECEIPT, RECEIPT_LINE
from meterpost.storage.tables.staging import STAGED_TRANSACTION


class ReceiptRows:
    """The rows of receipts within one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_receipt(self, receipt: Receipt, now: datetime) -> None:
        """Store the receipt and its lines.

        Raises: Conflict where the document belongs to another transaction.
        """
        document = receipt.document
        owner = self._connection.execute(
            select(RECEIPT.c.transaction_id).where(
                RECEIPT.c.target == receipt.target, RECEIPT.c.document_id == document.id
            )
        ).scalar_one_or_none()
        if owner is not None:
            raise Conflict(
                f"Document {document.id} in {receipt.target} already belongs to transaction "
                f"{owner}.",
                hint=f"Name the document of transaction {receipt.transaction}.",
            )
        number = self._connection.execute(
            insert(RECEIPT)
            .values(
                target=receipt.target,
                document_id=document.id,
                transaction_id=receipt.transaction,
                posting_key=receipt.key,
                created_at=now,
                **_seen(receipt, now),
            )
            .returning(RECEIPT.c.id)
        ).scalar_one()
        self._write_lines(ReceiptId(number), receipt)

    def refresh_receipt(self, receipt: ReceiptId, fresh: Receipt, now: datetime) -> None:
        """Replace what the receipt says of the document, which was read again just now.

        Adjustments that a person accepted stay with their lines.
        """
        self._connection.execute(
            update(RECEIPT).where(RECEIPT.c.id == receipt).values(**_seen(fresh, now))
        )
        kept = dict(
            self._connection.execute(
                select(RECEIPT_LINE.c.line, RECEIPT_LINE.c.adjustment).where(
                    RECEIPT_LINE.c.receipt_id == receipt
                )
            ).all()
        )
        self._connection.execute(delete(RECEIPT_LINE).where(RECEIPT_LINE.c.receipt_id == receipt))
        self._write_lines(receipt, fresh, kept)

    def receipt_document(self, transaction: TransactionId) -> str | None:
        """The ERP document the transaction became, or None."""
        return self._connection.execute(
            select(RECEIPT.c.document_id).where(RECEIPT.c.transaction_id == transaction)
        ).scalar_one_or_none()

    def unread_receipts(
        self, connection: TargetId, since: datetime, excluding: Collection[ReceiptId], limit: int
    ) -> list[Unread]:
        """Receipts made since then whose documents have not been read back, oldest first."""
        rows = self._connection.execute(
            select(
                RECEIPT.c.id,
                RECEIPT.c.transaction_id,
                RECEIPT.c.posting_key,
                RECEIPT.c.document_id,
                STAGED_TRANSACTION.c.document,
            )
            .join(STAGED_TRANSACTION, STAGED_TRANSACTION.c.id == RECEIPT.c.transaction_id)
            .where(
                RECEIPT.c.target == connection,
                RECEIPT.c.compared_at.is_(None),
                RECEIPT.c.created_at >= since,
                RECEIPT.c.id.not_in(list(excluding)),
            )
            .order_by(RECEIPT.c.id)
            .limit(limit)
        )
        return [
            Unread(
                ReceiptId(row.id),
                TransactionId(row.transaction_id),
                PostingKey(row.posting_key),
                row.document_id,
                Document.from_plain(row.document),
            )
            for row in rows
        ]

    def _write_lines(
        self, receipt: ReceiptId, stored: Receipt, adjustments: dict[str, object] | None = None
    ) -> None:
        rows = [
            {
                "receipt_id": receipt,
                "line": line.line,
                "posted": line.posted,
                "held": line.held,
                "adjustment": (adjustments or {}).get(line.line, 0),
            }
            for line in stored.lines
        ]
        if rows:
            self._connection.execute(insert(RECEIPT_LINE), rows)


def _seen(receipt: Receipt, now: datetime) -> dict[str, object]:
    document = receipt.document
    different = "changed" if receipt.differences else "equal"
    return {
        "number": document.number,
        "state": document.state.value,
        "currency": document.currency,
        "document_date": document.date,
        "net": document.net,
        "tax": document.tax,
        "gross": document.gross,
        "held_net": receipt.held_net,
        "comparison": different if receipt.compared else "not_yet",
        "differences": to_plain(receipt.differences),
        "document": document.to_plain(),
        "seen_at": now,
        "compared_at": now if receipt.compared else None,
    }
