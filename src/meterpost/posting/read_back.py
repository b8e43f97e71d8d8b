"""Reading documents after they were written, to see what the ERP really stored."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from meterpost.core.errors import MeterpostError
from meterpost.core.ids import ReceiptId
from meterpost.posting.calls import Unread
from meterpost.posting.context import Context
from meterpost.posting.model import ErpDocument
from meterpost.posting.receipts import receipt
from meterpost.posting.record import open_stored_differently

_log = structlog.get_logger(__name__)

_BATCH = 20
#: Older ones are left to reconcile, as are documents that hide longer than this many looks.
_AGE_MAX = timedelta(hours=1)
_LOOKS_MAX = 5


class ReadBack:
    """Compares fresh documents with what was sent; a difference becomes an exception."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._looks: dict[ReceiptId, int] = {}
        self._not_before: datetime | None = None

    def read(self) -> int:
        """Read a batch of documents that nobody has read since they were written; how many.

        Best effort: what cannot be read now is read by the next round, or by reconcile.
        """
        context = self._context
        now = context.clock.now()
        if self._not_before is not None and now < self._not_before:
            return 0
        given_up = [number for number, looks in self._looks.items() if looks >= _LOOKS_MAX]
        with context.stores.begin() as store:
            unread = store.unread_receipts(context.config.name, now - _AGE_MAX, given_up, _BATCH)
            permitted: list[Unread] = []
            for item in unread:
                if context.take_permit(store) is not None:
                    break
                permitted.append(item)
        if not permitted:
            return 0
        try:
            documents = context.connector.read([item.document_id for item in permitted])
        except MeterpostError as exc:
            _log.info("read_back_failed", connection=context.config.name, why=str(exc))
            self._wait()
            return 0
        for item in permitted:
            document = documents.get(item.document_id)
            if document is None:
                self._looks[item.receipt] = self._looks.get(item.receipt, 0) + 1
                self._wait()
            else:
                self._compare(item, document)
        return len(documents)

    def _wait(self) -> None:
        self._not_before = self._context.clock.now() + timedelta(seconds=5)

    def _compare(self, item: Unread, document: ErpDocument) -> None:
        context = self._context
        now = context.clock.now()
        fresh = receipt(item.transaction, item.key, item.document, document, compared=True)
        with context.stores.begin() as store:
            pending = store.lock(item.transaction)
            store.refresh_receipt(item.receipt, fresh, now)
            if fresh.differences:
                open_stored_differently(store, pending, document.id, fresh.differences, now)
        self._looks.pop(item.receipt, None)
