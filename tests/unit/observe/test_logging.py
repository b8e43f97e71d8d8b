"""What stands in log lines, and what never does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from meterpost.observe.logging import configure_logging, log_context, mask_secrets


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """A configured log file; the former configuration comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    configure_logging("engine", file=tmp_path / "log" / "engine.log")
    yield tmp_path / "log" / "engine.log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_with_process_and_correlation(log_file: Path) -> None:
    """Our lines and those of libraries carry the same words."""
    with log_context(correlation_id="C1", traceparent="00-a"):
        structlog.get_logger("meterpost.x").info("drained", events=3)
        logging.getLogger("library").warning("odd %s", "thing")
    structlog.get_logger("meterpost.x").debug("not shown")
    structlog.get_logger("meterpost.x").info("after")
    first, second, third = lines(log_file)
    assert first["event"] == "drained"
    assert second["event"] == "odd thing"
    for line in (first, second):
        assert line["process"] == "engine"
        assert line["correlation_id"] == "C1"
        assert line["traceparent"] == "00-a"
        assert line["timestamp"].endswith("Z")
    assert first["events"] == 3
    assert "correlation_id" not in third
    assert log_file.stat().st_mode & 0o077 == 0


def test_exceptions_are_logged_with_their_trace_and_without_secrets(log_file: Path) -> None:
    """A password in an exception's words does not get into the file."""
    try:
        raise ValueError("postgresql://meterpost:hunter2@host/db refused")
    except ValueError:
        structlog.get_logger("meterpost.x").exception("broke")
    (line,) = lines(log_file)
    assert "Traceback" in line["exception"]
    assert "hunter2" not in log_file.read_text()
    assert "postgresql://meterpost:***@host/db" in line["exception"]


def test_secret_keys_are_masked_at_any_depth() -> None:
    """Keys named after secrets show asterisks, also nested and as header pairs; counts stay."""
    masked = mask_secrets(
        None,
        "info",
        {
            "password": "p",
            "api_token": "t",
            "Authorization": "Bearer abcdefghij",
            "tokens": 7,
            "config": {"client_secret": "s", "url": "http://u:pw@h/"},
            "headers": [("authorization", "Basic abcdefghijk"), ("accept", "x")],
            "words": "sent Bearer abcdefghijkl to it",
            "dsn": None,
        },
    )
    assert masked == {
        "password": "***",
        "api_token": "***",
        "Authorization": "***",
        "tokens": 7,
        "config": {"client_secret": "***", "url": "http://u:***@h/"},
        "headers": [["authorization", "***"], ["accept", "x"]],
        "words": "sent Bearer *** to it",
        "dsn": None,
    }


def test_what_is_nested_too_deeply_is_not_shown() -> None:
    """A structure too deep to be searched is masked whole."""
    deep: dict[str, Any] = {"password": "hunter2"}
    for _ in range(12):
        deep = {"in": deep}
    assert "hunter2" not in str(mask_secrets(None, "info", {"deep": deep}))
