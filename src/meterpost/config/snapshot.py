"""The part of the configuration that results depend on, as plain JSON that can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from meterpost.core.canonical import digest, to_plain
from meterpost.core.errors import InvalidInput
from meterpost.metering.model import Meter
from meterpost.workflows.model import Workflow


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Meters and workflows in order of their names: the same definitions, the same digest.

    Neither environment nor connections are part of it, so that what was rehearsed in a sandbox
    has the same digest in production.
    """

    meters: tuple[Meter, ...]
    workflows: tuple[Workflow, ...]

    @classmethod
    def of(cls, meters: Iterable[Meter], workflows: Iterable[Workflow]) -> Snapshot:
        """The snapshot of these definitions, whatever their order."""
        return cls(
            tuple(sorted(meters, key=lambda meter: meter.id)),
            tuple(sorted(workflows, key=lambda workflow: workflow.name)),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `plain`."""
        return digest(self.plain())

    def plain(self) -> dict[str, object]:
        """JSON form: Decimals are strings, enums their words."""
        return {"meters": to_plain(self.meters), "workflows": to_plain(self.workflows)}


_ADAPTER: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)


def from_snapshot(plain: Mapping[str, Any]) -> Snapshot:
    """The definitions a stored snapshot holds.

    Raises: InvalidInput when it was stored by a version whose words this one does not know.
    """
    try:
        return _ADAPTER.validate_python(dict(plain), extra="forbid")
    except ValidationError as exc:
        raise InvalidInput(
            f"A stored configuration cannot be read back: {exc.error_count()} parts are unknown.",
            hint="It was stored by another version of meterpost; use that one to run its close.",
        ) from exc
