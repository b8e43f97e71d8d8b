"""The sandbox ERP as a posting target: draft invoices over REST, faults included.

Role ``erp`` (the port in ``posting/``). Lives here: the connection's settings, the calls, the
translation of documents. Not here: the sandbox itself, which is a package and a process of its
own and shares no code with us.
"""

from __future__ import annotations

from collections.abc import Mapping

from meterpost.connectors.sandbox.client import SandboxClient
from meterpost.connectors.sandbox.erp import SandboxErp, SandboxOptions
from meterpost.posting.config import ConnectionConfig

NAME = "sandbox"
ROLES = ("erp",)
SECRETS = ("token",)


def open_erp(config: ConnectionConfig, secrets: Mapping[str, str]) -> SandboxErp:
    """The connector for one sandbox; nothing is asked of it yet.

    Raises: InvalidInput for options it does not know.
    """
    options = SandboxOptions.from_plain(config.options, connection=config.name)
    return SandboxErp(config, options, SandboxClient(config.url, secrets["token"]))


__all__ = ["NAME", "ROLES", "SECRETS", "SandboxErp", "open_erp"]
