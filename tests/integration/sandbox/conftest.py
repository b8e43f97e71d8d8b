"""A real sandbox process, and a client for it that keeps one connection."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

MASTER = {
    "customers": [{"code": "C-100", "currency": "EUR"}, {"code": "C-200"}],
    "accounts": [{"code": "4000"}],
    "taxes": [{"code": "VAT20", "rate": "0.20"}],
    "items": [{"code": "TOKENS", "unit": "token", "account": "4000", "tax_code": "VAT20"}],
    "periods": [{"code": "2026-10"}, {"code": "2026-09", "state": "closed"}],
}
TOKEN = "correct-horse"


class Sandbox:
    """One ledger and the process that serves it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "erp.sqlite"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None

    def start(self, *options: str) -> "Sandbox":
        port_file = self._folder / "port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "meterpost_sandbox", "serve", "--ledger", self.ledger]
        with (self._folder / "err").open("ab") as err:
            self._process = subprocess.Popen(
                [*command, "--port-file", port_file, *options],
                env={**os.environ, "METERPOST_SANDBOX_TOKEN": TOKEN},
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        deadline = time.monotonic() + 30
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "err").read_text())
            time.sleep(0.02)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port_file.read_text().strip()}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self._process is None:
            return 0
        self.client.close()
        self._process.send_signal(number)
        code = self._process.wait(30)
        self._process = None
        return code

    @property
    def client(self) -> httpx.Client:
        assert self._client is not None
        return self._client

    def seed(self) -> None:
        for kind, records in MASTER.items():
            assert self.client.put(f"/v1/{kind}", json={"records": records}).status_code == 200

    def create(self, reference: str, **changes: object) -> httpx.Response:
        return self.client.post("/v1/invoices", json=invoice(reference, **changes))

    def find(self, *references: str) -> list[dict]:
        answer = self.client.get("/v1/invoices", params={"reference": ",".join(references)})
        assert answer.status_code == 200, answer.text
        return answer.json()["invoices"]

    def faults(self, **spec: object) -> None:
        answer = self.client.put("/_sandbox/faults", json=spec)
        assert answer.status_code == 200, answer.text

    def stats(self) -> dict:
        return self.client.get("/_sandbox/stats").json()

    def oracle(self, expected: dict[str, str]) -> tuple[int, dict]:
        file = self._folder / "expected.json"
        file.write_text(json.dumps(expected))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "meterpost_sandbox", "oracle", self.ledger),
                *("--expected", file, "--json"),
            ],
            capture_output=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)


def invoice(reference: str, **changes: object) -> dict:
    line = {"item": "TOKENS", "quantity": "22361870", "unit_price": "0.0000025"}
    head = {"reference": reference, "customer": "C-100", "date": "2026-10-31", "currency": "EUR"}
    return {**head, "lines": [line], **changes}


@pytest.fixture
def make_invoice():
    return invoice


@pytest.fixture
def sandbox_process(tmp_path):
    """An ERP that a test starts itself, with its own options."""
    process = Sandbox(tmp_path)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    process = Sandbox(tmp_path_factory.mktemp("sandbox")).start()
    process.seed()
    yield process
    assert process.stop() == 0


@pytest.fixture
def erp(shared):
    """A seeded ERP without faults; its books are shared by the tests of a file."""
    shared.faults()
    yield shared
    shared.faults()
