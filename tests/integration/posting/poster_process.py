"""A poster as a program, so that tests can kill it: DSN, URL, TOKEN_FILE, seconds."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from meterpost.connectors import sandbox
from meterpost.core.clock import SystemClock
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.service import Poster
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.posting import PostgresPostingStores


def main(dsn: str, url: str, token_file: str, seconds: str) -> None:
    config = ConnectionConfig(
        TargetId("erp"),
        "sandbox",
        "test",
        url,
        timeout_s=1.5,
        lease_s=0.5,
        request_limit_s=0.5,
        margin_s=0.5,
    )
    connector = sandbox.open_erp(config, {"token": Path(token_file).read_text().strip()})
    stores = PostgresPostingStores(Database(dsn))
    poster = Poster(config, connector, stores, SystemClock(), poster=f"process-{os.getpid()}")
    stop = threading.Event()
    threading.Timer(float(seconds), stop.set).start()
    poster.run(stop, poll_s=0.05)
    poster.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
