"""A sandbox ERP in a process of its own, for tests; its code is never imported here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

_START_S = 30.0

MASTER_DATA: Mapping[str, list[dict[str, object]]] = {
    "accounts": [{"code": "4000", "name": "Usage revenue"}],
    "taxes": [{"code": "VAT20", "rate": "0.20"}],
    "customers": [
        {"code": "C-100", "name": "Acme", "currency": "EUR"},
        {"code": "C-200", "name": "Globex"},
    ],
    "items": [
        {"code": "TOKENS", "unit": "token", "account": "4000", "tax_code": "VAT20"},
        {"code": "REQUESTS", "unit": "request", "account": "4000", "tax_code": "VAT20"},
    ],
    "periods": [
        {"code": "2026-09", "state": "closed"},
        {"code": "2026-10"},
        {"code": "2026-11"},
        {"code": "2026-12"},
    ],
}


@dataclass(frozen=True, slots=True)
class SandboxServer:
    """A running sandbox and the strings to pull on it."""

    url: str
    token: str
    ledger: Path
    http: httpx.Client

    def faults(self, **faults: object) -> None:
        """Replace the faults; none ends them."""
        self.http.put("/_sandbox/faults", json=faults).raise_for_status()

    def master(self, kind: str, *records: Mapping[str, object]) -> None:
        """Create or replace master data."""
        self.http.put(f"/v1/{kind}", json={"records": list(records)}).raise_for_status()

    def stats(self) -> dict[str, object]:
        """What it has seen so far."""
        answer: dict[str, object] = self.http.get("/_sandbox/stats").raise_for_status().json()
        return answer

    def clerk(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Something a person does at the ERP's own screens."""
        return self.http.request(method, f"/clerk/invoices{path}", json=body).raise_for_status()


@contextmanager
def sandbox_server(folder: Path, *options: str) -> Iterator[SandboxServer]:
    """A sandbox with master data for tests, stopped afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger, token_file, port_file = (
        folder / name for name in ("erp.sqlite", "erp.token", "erp.port")
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "meterpost_sandbox", "serve"),
            *("--ledger", str(ledger), "--token-file", str(token_file)),
            *("--port-file", str(port_file), *options),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port_file, process)
        token = token_file.read_text().strip()
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        with httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30.0,
            trust_env=False,
        ) as http:
            server = SandboxServer(url, token, ledger, http)
            for kind, records in MASTER_DATA.items():
                server.master(kind, *records)
            yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _wait_for(port_file: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while not port_file.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the sandbox ERP ended at start with status {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the sandbox ERP did not start within {_START_S:g} s")
        time.sleep(0.02)
