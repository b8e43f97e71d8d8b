"""What one connection to an ERP is told, before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meterpost.core.errors import NotAllowed
from meterpost.core.ids import TargetId
from meterpost.posting.throttle import RateLimit


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret stands: the name of an environment variable, or a file's path.

    The configuration carries references only, so that it can be shown, hashed and committed.
    """

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret is given by exactly one of `env` and `file`")

    def __str__(self) -> str:
        return f"environment variable {self.env}" if self.env is not None else f"file {self.file}"


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """One connection, as ``connections/NAME.yaml`` states it.

    ``connector`` names an entry point of ``meterpost.connectors``; ``environment`` the kind of
    system at ``url`` (``sandbox``, ``production``); ``options`` are the connector's own and
    checked by it. Durations in seconds: ``timeout_s`` bounds one exchange as we wait for it,
    ``lease_s`` is how long a reserved call may wait for its turn to be written,
    ``request_limit_s`` is the longest the server goes on working after we gave up,
    ``visibility_s`` how long a stored document may hide from look-ups, ``margin_s`` what is
    added to both for clocks that differ.
    """

    name: TargetId
    connector: str
    environment: str
    url: str
    secrets: Mapping[str, SecretReference] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    timeout_s: float = 30.0
    lease_s: float = 10.0
    request_limit_s: float = 60.0
    visibility_s: float = 0.0
    margin_s: float = 5.0
    attempts_max: int = 20
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("timeout_s", "lease_s", "request_limit_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} of connection {self.name} must be above zero")
        for name in ("visibility_s", "margin_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of connection {self.name} must not be negative")
        if self.attempts_max < 1:
            raise ValueError(f"attempts_max of connection {self.name} must be at least 1")


def require_same_environment(config: ConnectionConfig, environment: str) -> None:
    """Nothing, where the connection belongs to the environment that wants to use it.

    Raises: NotAllowed, so that production credentials do not work in a sandbox installation
    and a rehearsal's connection is not used for real documents.
    """
    if config.environment != environment:
        raise NotAllowed(
            f"Connection {config.name} is for the environment {config.environment!r}, "
            f"this installation is {environment!r}.",
            hint="Use a connection of this environment; credentials do not cross over.",
        )
