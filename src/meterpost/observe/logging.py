"""Structured logs: one JSON object per line, or columns for a terminal.

Every line carries the process, the level and the moment in UTC, and, inside `log_context`, the
correlation id and the producer's traceparent. Lines of libraries take the same way.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import structlog
from structlog.typing import Processor

LogFormat = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

#: A log file is begun anew at this size; so many old ones are kept beside it.
FILE_BYTES_MAX = 20_000_000
FILES_KEPT = 5

MASK = "***"
#: Keys whose values are secrets. `token` alone would also hide counts such as `tokens`.
_SECRET_KEY = re.compile(
    r"(^|_|-)(token|password|passwd|secret|authorization|cookie|credentials?|dsn"
    r"|private_key|api_secret|passphrase)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@/]+(@)")
_AUTHORIZATION = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_DEPTH_MAX = 6

#: Libraries that tell more than anybody asked for.
_QUIET = ("httpx", "httpcore", "alembic", "sqlalchemy")


def configure_logging(
    process: str,
    *,
    level: Level = "info",
    format: LogFormat = "json",
    file: Path | None = None,
) -> None:
    """From now on log lines of this process go to the file, or to standard error.

    A terminal always gets the readable form, a file that of ``format``. Calling it again
    replaces what was configured before.
    """
    readable = format == "console" or (file is None and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
        structlog.stdlib.ExtraAdder(),
    ]
    handler = _handler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Exceptions become text first, so that their words are masked like all others.
                structlog.processors.format_exc_info,
                mask_secrets,
                structlog.dev.ConsoleRenderer(colors=file is None and sys.stderr.isatty())
                if readable
                else structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:-1],
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


@contextmanager
def log_context(
    *, correlation_id: str | None = None, traceparent: str | None = None, **more: str | int
) -> Iterator[None]:
    """Log lines inside carry these words; None leaves a word out."""
    words = {"correlation_id": correlation_id, "traceparent": traceparent, **more}
    given = {key: value for key, value in words.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**given):
        yield


def mask_secrets(
    _logger: object, _method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """The line without values of secret keys, passwords in URLs and authorization headers."""
    for key in list(event):
        event[key] = _masked(key, event[key], 0)
    return event


def _masked(key: str, value: object, depth: int) -> object:
    if value is not None and _SECRET_KEY.search(key):
        return MASK
    match value:
        case str():
            return _AUTHORIZATION.sub(rf"\1 {MASK}", _URL_PASSWORD.sub(rf"\1{MASK}\2", value))
        case Mapping() | list() | tuple() if depth >= _DEPTH_MAX:
            return MASK  # deeper than anything we log: not searched, so not shown
        case Mapping():
            return {name: _masked(str(name), each, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return _masked_pair(value, depth) or [_masked("", each, depth + 1) for each in value]
        case bytes():
            return f"<{len(value)} bytes>"
    return value


def _masked_pair(value: Sequence[object], depth: int) -> list[object] | None:
    """A header as (name, value), which a list of headers consists of."""
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
        return [value[0], _masked(value[0], value[1], depth + 1)]
    return None


def _named(process: str) -> Processor:
    def add(
        _logger: object, _method: str, event: MutableMapping[str, object]
    ) -> MutableMapping[str, object]:
        event.setdefault("process", process)
        return event

    return add


def _handler(file: Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(
        file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8"
    )
    file.chmod(0o600)
    return handler
