"""Named places at which a test can kill the process, to see that nothing is lost or doubled.

In normal running `reach` compares one environment variable and returns. With
``METERPOST_CRASHPOINT=engine.drain.before_commit`` the process sends itself SIGKILL there, as
an operating system out of memory would; ``engine.drain.before_commit:3`` waits for the third
time. Nothing is flushed, no ``finally`` runs.
"""

from __future__ import annotations

import os
import signal
import threading

ENVIRONMENT_VARIABLE = "METERPOST_CRASHPOINT"

#: Every crash point and what has just happened there.
CRASHPOINTS: dict[str, str] = {
    "edge.journal.before_commit": "a request's events are written to the journal, not committed",
    "edge.journal.after_commit": "the journal is committed, the 202 not yet sent",
    "engine.drain.before_commit": "a batch is in the event store's transaction, not committed",
    "engine.drain.after_commit": "a batch is committed, its outbox not yet relayed",
    "engine.relay.before_forget": "outbox items are in the operational database, not deleted here",
    "close.frame.after_commit": "a close's frame is stored, nothing computed yet",
    "close.records.before_commit": "a close's usage records are written, not committed",
    "close.records.after_commit": "a close's usage records are committed, nothing staged yet",
    "close.batch.before_commit": "a batch of transactions is staged, not committed",
    "close.staged.after_commit": "a close is over, the answer not yet given",
    "posting.reserve.after_commit": "a call is reserved, the lease not yet checked",
    "posting.send.before": "the lease holds, the request not yet written",
    "posting.send.after": "the ERP has answered or the time is over, nothing recorded yet",
    "posting.record.before_commit": "receipt and outcome are written, not committed",
    "posting.record.after_commit": "receipt and outcome are committed",
}

_lock = threading.Lock()
_times: dict[str, int] = {}


def reach(name: str) -> None:
    """Return at once, or kill this process where the environment names this point.

    A name outside `CRASHPOINTS` can be used too; the registry is for tests that visit them all.
    """
    wanted = os.environ.get(ENVIRONMENT_VARIABLE)
    if wanted is None:
        return
    point, _, nth = wanted.partition(":")
    if point != name:
        return
    with _lock:
        _times[name] = _times.get(name, 0) + 1
        if _times[name] >= int(nth or "1"):
            os.kill(os.getpid(), signal.SIGKILL)
