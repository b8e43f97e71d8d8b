"""Tryton (8.0 and later): posts usage as draft customer invoices, reads them back with credits.

Role ``erp`` (the port in ``posting/``). Spoken over JSON-RPC with a user's session. Lives here:
the connection's settings, the calls, the look-ups of master data, the translation of documents.
Not here: the Tryton server of the tests (``testing/tryton``).
"""

from meterpost.connectors.tryton.config import TrytonConfig
from meterpost.connectors.tryton.erp import TrytonErp, connect

NAME = "tryton"
ROLES = ("erp",)

__all__ = ["NAME", "ROLES", "TrytonConfig", "TrytonErp", "connect"]
