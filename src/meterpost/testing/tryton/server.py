"""A Tryton server process for one database."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meterpost.connectors.tryton.client import TrytonClient
from meterpost.connectors.tryton.config import TrytonConfig
from meterpost.core.errors import MeterpostError, Permanent
from meterpost.testing.tryton.databases import TrytonDatabase, write_configuration
from meterpost.testing.tryton.environment import TrytonInstall

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
_LISTENING = re.compile(rb"Listening at: (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True)
class TrytonServer:
    """A server that answers; ``pid`` is its master process."""

    url: str
    database: TrytonDatabase
    pid: int
    log: Path

    def config(self, login: str = "integration", **more: object) -> TrytonConfig:
        """How a user of the set-up data connects to it."""
        values: dict[str, object] = {
            "url": self.url,
            "database": self.database.name,
            "username": login,
            "password": self.database.password(login),
            "company": int(self.database.ids["company"]),
        }
        return TrytonConfig(**(values | more))  # type: ignore[arg-type]


@contextmanager
def serve(
    install: TrytonInstall, database: TrytonDatabase, *, timeout_s: float = START_TIMEOUT_S
) -> Iterator[TrytonServer]:
    """A server on a free port of the loopback interface, stopped again at the end.

    One worker process with eight threads, so the models are loaded once.

    Raises: Permanent with the log's end where it does not answer in time.
    """
    with tempfile.TemporaryDirectory(dir=install.folder, prefix=f"{database.name}-") as temporary:
        folder = Path(temporary)
        config = write_configuration(install, database.uri, folder)
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(install.program("gunicorn"), "--bind", "127.0.0.1:0"),
                    *("--workers", "1", "--threads", "8", "--timeout", "120"),
                    *("--no-control-socket", "--worker-tmp-dir", str(folder)),
                    "trytond.application:app",
                ],
                cwd=folder,
                env=_environment(config, database),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = _wait_until_answering(process, log, database, timeout_s)
            yield TrytonServer(url, database, process.pid, log)
        finally:
            _stop(process)


def add_parties(server: TrytonServer, parties: Sequence[tuple[str, str]]) -> Mapping[str, int]:
    """Ids by code of these customers, made where missing, payable as the set-up data says.

    Raises: MeterpostError where Tryton refuses one (then none is made).
    """
    codes = [code for code, _ in parties]
    ids = server.database.ids
    with TrytonClient(server.config()) as client:
        context = {"company": ids["company"]}
        known = client.call(
            "model.party.party.search_read",
            *([["code", "in", codes]], 0, len(codes), None, ["code"]),
            context=context,
            writes=False,
        )
        found = {str(party["code"]): int(party["id"]) for party in known}
        missing = [(code, name) for code, name in parties if code not in found]
        if missing:
            made = client.call(
                "model.party.party.create",
                [
                    {
                        "name": name,
                        "code": code,
                        "customer_payment_term": ids["payment_term"],
                        "addresses": [["create", [{"street": "Main Street 1", "city": "Berlin"}]]],
                    }
                    for code, name in missing
                ],
                context=context,
                writes=True,
            )
            found |= {code: int(made_id) for (code, _), made_id in zip(missing, made, strict=True)}
    return found


def _environment(config: Path, database: TrytonDatabase) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {
        **kept,
        "HOME": str(config.parent),
        "PYTHONUNBUFFERED": "1",
        "TRYTOND_CONFIG": str(config),
        "TRYTOND_DATABASE_NAMES": database.name,
    }


def _wait_until_answering(
    process: subprocess.Popen[bytes], log: Path, database: TrytonDatabase, timeout_s: float
) -> str:
    """The server's address once it answers and its models are loaded."""
    deadline = time.monotonic() + timeout_s
    last: object = "it has not begun to listen"
    while time.monotonic() < deadline and process.poll() is None:
        listening = _LISTENING.search(log.read_bytes())
        if listening is not None:
            url = listening[1].decode()
            config = TrytonConfig(
                url, database.name, "integration", database.password("integration")
            )
            left_s = max(deadline - time.monotonic(), 0.1)
            try:
                with TrytonClient(config) as client:
                    client.version(timeout_s=left_s)
                    client.call("model.res.user.get_preferences", True, writes=False)
            except MeterpostError as exc:
                last = exc
            else:
                return url
        time.sleep(0.05)
    end = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
    raise Permanent(f"Tryton did not answer in {timeout_s} s ({last}):\n{end}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server; its workers end with their master, or are killed with its session."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The session is ours alone (start_new_session), so its number names only our processes.
        os.killpg(process.pid, 9)
        process.wait(STOP_TIMEOUT_S)
