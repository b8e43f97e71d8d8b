"""The sandbox connector and the fake ERP pass the suite that every connector passes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from meterpost.connectors import sandbox
from meterpost.core.clock import ManualClock
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.testing.erp_contract import ErpContract, Scene
from meterpost.testing.fake_erp import FakeErp, FakeErpConnector, Fault
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server

SCENE = Scene(
    TargetId("erp"), "C-100", "TOKENS", "4000", "VAT20", date(2026, 10, 31), date(2026, 9, 30)
)


class SandboxBench:
    scene = SCENE
    gaps: Mapping[str, str] = {}

    def __init__(self, server: SandboxServer, options: Mapping[str, object]) -> None:
        self.server = server
        self.options = options
        self.connector: ErpConnector = self.open(server.url, server.token)

    def open(self, url: str, token: str) -> ErpConnector:
        config = ConnectionConfig(
            TargetId("erp"), "sandbox", "test", url, options=self.options, request_limit_s=5
        )
        return sandbox.open_erp(config, {"token": token})

    def with_bad_credentials(self) -> ErpConnector:
        return self.open(self.server.url, "wrong")

    def unreachable(self) -> ErpConnector:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        return self.open(f"http://127.0.0.1:{port}", self.server.token)

    def lose_next_reply(self) -> None:
        self.server.faults(commit_then_drop={"next": 1})

    def lose_next_request(self) -> None:
        self.server.faults(drop_before_commit={"next": 1})

    def throttle_next(self, after_s: float) -> None:
        self.server.faults(status_429={"next": 1, "retry_after_s": after_s})


class FakeBench:
    scene = SCENE
    gaps: Mapping[str, str] = {}

    def __init__(self, *, unique_reference: bool) -> None:
        self.erp = FakeErp(
            ManualClock(datetime(2026, 11, 1, tzinfo=UTC)),
            closed_months={"2026-09"},
            unique_reference=unique_reference,
        )
        self.connector: ErpConnector = FakeErpConnector(self.erp)

    def with_bad_credentials(self) -> ErpConnector:
        return FakeErpConnector(self.erp, token="wrong")

    def unreachable(self) -> ErpConnector:
        return FakeErpConnector(FakeErp(self.erp.clock, down=True))

    def lose_next_reply(self) -> None:
        self.erp.faults.append(Fault.LOSE_REPLY)

    def lose_next_request(self) -> None:
        self.erp.faults.append(Fault.LOSE_REQUEST)

    def throttle_next(self, after_s: float) -> None:
        self.erp.after_s = after_s
        self.erp.faults.append(Fault.THROTTLE)


VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "plain": ((), {}),
    "native-keys": (("--native-keys",), {"native_keys": True}),
    "unique-reference": (("--unique-reference",), {"unique_reference": True}),
}


@pytest.fixture(scope="module", params=VARIANTS)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SandboxServer, Mapping[str, object]]]:
    arguments, options = VARIANTS[request.param]
    folder: Path = tmp_path_factory.mktemp("sandbox")
    with sandbox_server(folder, *arguments) as server:
        yield server, options


@pytest.mark.integration
class TestSandbox(ErpContract):
    @pytest.fixture
    def bench(self, running: tuple[SandboxServer, Mapping[str, object]]) -> Iterator[SandboxBench]:
        server, options = running
        bench = SandboxBench(server, options)
        yield bench
        server.faults()
        bench.connector.close()


class TestFake(ErpContract):
    @pytest.fixture(params=[False, True], ids=["plain", "unique-reference"])
    def bench(self, request: pytest.FixtureRequest) -> FakeBench:
        return FakeBench(unique_reference=request.param)
