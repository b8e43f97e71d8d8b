"""A real Tryton server for tests and the demo.

Tryton is GPL-3 and lives in an environment of its own, set up from the files in
``tools/tryton``; it is started as a separate process and spoken to over HTTP only, nothing of it
is imported here. Lives here: that environment, its databases, its server, a clerk who works on
invoices by hand. Not here: how meterpost speaks to Tryton (``connectors/tryton``).

Command line: ``python -m meterpost.testing.tryton --help``.
"""

from meterpost.testing.tryton.clerk import Clerk
from meterpost.testing.tryton.databases import TrytonDatabase, create_database, drop_database
from meterpost.testing.tryton.environment import TrytonInstall, ensure_environment
from meterpost.testing.tryton.server import TrytonServer, add_parties, serve

__all__ = [
    "Clerk",
    "TrytonDatabase",
    "TrytonInstall",
    "TrytonServer",
    "add_parties",
    "create_database",
    "drop_database",
    "ensure_environment",
    "serve",
]
