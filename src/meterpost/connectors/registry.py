"""Finds connectors by name; ours and those of other packages come through the same door.

A connector's package names its module in its ``pyproject.toml``::

    [project.entry-points."meterpost.connectors"]
    acme = "acme_meterpost"

and that module offers what `ErpModule` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from meterpost.core.errors import InvalidInput, NotFound
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector

GROUP = "meterpost.connectors"


class ErpModule(Protocol):
    """A connector's module, for the role ``erp``."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """The connector's name, as connections write it."""
        ...

    @property
    def ROLES(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """What it can be: ``erp``, ``crm``, ``source``."""
        ...

    @property
    def SECRETS(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """Names of the secrets it needs."""
        ...

    def open_erp(self, config: ConnectionConfig, secrets: Mapping[str, str]) -> ErpConnector:
        """The connector for one connection; nothing is asked of the ERP yet.

        Raises: InvalidInput for options it does not know or cannot use.
        """
        ...


def connector_names() -> tuple[str, ...]:
    """The connectors installed here, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> ErpModule:
    """The connector's module, imported now.

    Raises: NotFound naming what is installed, or what the connector itself lacks.
    """
    point = next((point for point in entry_points(group=GROUP) if point.name == name), None)
    if point is None:
        known = ", ".join(connector_names()) or "none"
        raise NotFound(
            f"There is no connector named {name!r}.",
            hint=f"Installed: {known}. Others come with their packages (pip install ...).",
        )
    return _import(point)


def open_erp(config: ConnectionConfig, secrets: Mapping[str, str]) -> ErpConnector:
    """The connection's connector, ready to post; ``secrets`` are the resolved values by name.

    Raises: NotFound for an unknown connector; InvalidInput where a secret is missing or the
    connector cannot post.
    """
    module = load(config.connector)
    if "erp" not in module.ROLES:
        raise InvalidInput(
            f"Connection {config.name} uses the connector {config.connector}, which does not "
            f"post documents.",
            hint=f"It can be: {', '.join(module.ROLES)}.",
        )
    missing = [name for name in module.SECRETS if not secrets.get(name)]
    if missing:
        raise InvalidInput(
            f"Connection {config.name} lacks the secret {', '.join(missing)}.",
            hint=f"Add e.g. `{missing[0]}: {{file: ...}}` or `{{env: ...}}` to its secrets.",
        )
    return module.open_erp(config, secrets)


def _import(point: EntryPoint) -> ErpModule:
    try:
        module: ErpModule = point.load()
    except ImportError as exc:
        raise NotFound(
            f"The connector {point.name} cannot be loaded: {exc}.",
            hint="Install it with its extra requirements.",
        ) from exc
    return module
