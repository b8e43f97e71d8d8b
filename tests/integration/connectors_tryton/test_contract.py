"""The Tryton connector passes, on a real server, the suite that every connector passes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime

import httpx
import pytest

from meterpost.connectors import tryton
from meterpost.connectors.tryton import TrytonConfig, TrytonErp
from meterpost.connectors.tryton.client import TrytonClient
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.testing.erp_contract import ErpContract, Scene
from meterpost.testing.tryton import TrytonServer


class FaultyWire(httpx.BaseTransport):
    """The way to the real server, which spoils the next creation when told to."""

    def __init__(self) -> None:
        self._wire = httpx.HTTPTransport()
        self.spoil: Callable[[httpx.Request], httpx.Response] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        creates = json.loads(request.content)["method"] == "model.account.invoice.create"
        if creates and self.spoil is not None:
            spoil, self.spoil = self.spoil, None
            return spoil(request)
        return self._wire.handle_request(request)

    def lose_reply(self, request: httpx.Request) -> httpx.Response:
        response = self._wire.handle_request(request)
        response.read()
        response.close()
        return self.lose_request(request)

    def lose_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("the connection broke", request=request)

    def close(self) -> None:
        self._wire.close()


class TrytonBench:
    gaps: Mapping[str, str] = {}

    def __init__(self, server: TrytonServer) -> None:
        self.server = server
        self.wire = FaultyWire()
        config = TrytonConfig.from_connection(self.connection(server.url), self.secrets())
        self.connector: ErpConnector = TrytonErp(config, TrytonClient(config, transport=self.wire))
        self.scene = Scene(
            *(TargetId("tryton"), "C-1001", "LLM-TOK-IN", "4.1.2", "VAT 19%"),
            day=datetime.now(UTC).date(),
            closed_day=date.fromisoformat(server.database.ids["closed_day"]),
        )

    def connection(self, url: str, login: str = "integration") -> ConnectionConfig:
        options = {
            "database": self.server.database.name,
            "username": login,
            "company": self.server.database.ids["company"],
            "quantity_decimals": 6,
        }
        return ConnectionConfig(TargetId("tryton"), "tryton", "test", url, options=options)

    def secrets(self) -> Mapping[str, str]:
        return {"password": self.server.database.password("integration")}

    def with_bad_credentials(self) -> ErpConnector:
        # A login of its own: wrong passwords lock one for minutes.
        wrong = self.connection(self.server.url, "contract-stranger")
        return tryton.open_erp(wrong, {"password": "wrong"})

    def unreachable(self) -> ErpConnector:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        return tryton.open_erp(self.connection(f"http://127.0.0.1:{port}"), self.secrets())

    def lose_next_reply(self) -> None:
        self.wire.spoil = self.wire.lose_reply

    def lose_next_request(self) -> None:
        self.wire.spoil = self.wire.lose_request

    def throttle_next(self, after_s: float) -> None:
        headers = {"Retry-After": f"{after_s:.0f}"}
        self.wire.spoil = lambda _: httpx.Response(429, headers=headers)


@pytest.mark.integration
@pytest.mark.tryton
@pytest.mark.timeout(900)
class TestTryton(ErpContract):
    @pytest.fixture
    def bench(self, server: TrytonServer) -> Iterator[TrytonBench]:
        bench = TrytonBench(server)
        yield bench
        bench.connector.close()
