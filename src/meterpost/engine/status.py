"""How an installation is, asked of everything that can tell without opening anything."""

from __future__ import annotations

import fcntl
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from meterpost.core.errors import MeterpostError
from meterpost.engine.client import EngineClient
from meterpost.engine.operate import STATUS
from meterpost.engine.run_dir import RunDirectory
from meterpost.supervise.state import SupervisorState, read_state

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class InstallationStatus:
    """What runs. ``engine`` and ``edge`` are None where they do not answer."""

    supervised: bool
    state: SupervisorState | None
    engine: Mapping[str, Any] | None
    edge: Mapping[str, Any] | None
    reasons: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way of work."""
        return not self.reasons

    def to_plain(self) -> dict[str, object]:
        """For programs."""
        return {
            "ready": self.ready,
            "reasons": list(self.reasons),
            "supervised": self.supervised,
            "processes": [
                {
                    "name": child.name,
                    "phase": child.phase,
                    "pid": child.pid,
                    "started_at": None
                    if child.started_at is None
                    else child.started_at.isoformat(),
                    "restarts": child.restarts,
                    "last_exit": child.last_exit,
                }
                for child in (self.state.children if self.state and self.supervised else ())
            ],
            "engine": self.engine,
            "events_behind": None if self.edge is None else self.edge.get("events_behind"),
        }

    def table(self) -> Table:
        """For people: processes, then the engine's jobs."""
        table = Table(box=None, pad_edge=False)
        for heading in ("what", "state", "process", "restarts", "note"):
            table.add_column(heading, overflow="fold")
        if self.supervised and self.state is not None:
            for child in self.state.children:
                pid = "" if child.pid is None else str(child.pid)
                restarts, note = str(child.restarts), child.last_exit or ""
                table.add_row(child.name, child.phase, pid, restarts, note)
        for job in () if self.engine is None else self.engine["jobs"]:
            table.add_row(f"  {job['name']}", job["state"], "", "", job["problem"] or "")
        if self.edge is not None:
            table.add_row("  behind", f"{self.edge.get('events_behind', '?')} events", "", "", "")
        return table


def installation_status(run_directory: RunDirectory, edge_url: str) -> InstallationStatus:
    """How it is now; waits for a few seconds at most."""
    supervised = _is_locked(run_directory)
    state = read_state(run_directory.supervisor_state)
    reasons: list[str] = []
    if not supervised:
        reasons.append("`meterpost up` is not running.")
    engine: Mapping[str, Any] | None = None
    try:
        engine = EngineClient(run_directory).call(STATUS, timeout_s=_TIMEOUT_S)
    except MeterpostError as exc:
        reasons.append(str(exc))
    edge = _ready_page(f"{edge_url}/readyz") if supervised else None
    if edge is not None:
        known = set(reasons)
        said = [each["sentence"] for each in (*edge["reasons"], *edge.get("warnings", ()))]
        reasons += [sentence for sentence in said if sentence not in known]
    elif supervised:
        reasons.append(f"The edge does not answer at {edge_url}.")
    return InstallationStatus(supervised, state, engine, edge, tuple(reasons))


def _ready_page(url: str) -> Mapping[str, Any] | None:
    # The proxies of the environment are not for this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            body = answer.read(1 << 20)
    except urllib.error.HTTPError as exc:  # 503 has the reasons
        with exc:
            body = exc.read(1 << 20)
    except OSError:
        return None
    try:
        page = json.loads(body)
    except ValueError:
        return None
    return page if isinstance(page, dict) and "reasons" in page else None


def _is_locked(run_directory: RunDirectory) -> bool:
    try:
        handle = os.open(run_directory.supervisor_lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
