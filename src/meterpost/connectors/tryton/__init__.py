"""Tryton (8.0 and later): posts usage as draft customer invoices, reads them back with credits.

Role ``erp`` (the port in ``posting/``). Spoken over JSON-RPC with a user's session. Lives here:
the connection's settings, the calls, the look-ups of master data, the translation of documents.
Not here: the Tryton server of the tests (``testing/tryton``).
"""

from __future__ import annotations

from collections.abc import Mapping

from meterpost.connectors.tryton.config import TrytonConfig
from meterpost.connectors.tryton.erp import TrytonErp, connect
from meterpost.posting.config import ConnectionConfig

NAME = "tryton"
ROLES = ("erp",)
SECRETS = ("password",)


def open_erp(config: ConnectionConfig, secrets: Mapping[str, str]) -> TrytonErp:
    """The connector for one connection; nothing is asked of Tryton yet.

    Raises: InvalidInput for options that are missing, unknown or of the wrong type.
    """
    return connect(TrytonConfig.from_connection(config, secrets))


__all__ = ["NAME", "ROLES", "SECRETS", "TrytonConfig", "TrytonErp", "connect", "open_erp"]
