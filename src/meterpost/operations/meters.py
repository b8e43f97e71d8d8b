"""Meters."""

from __future__ import annotations

from dataclasses import dataclass

from meterpost.access.model import Scope
from meterpost.operations.registry import Context, operation


@dataclass(frozen=True)
class ListMeters:
    """All of them; there are few."""


@operation("meters.list", scope=Scope.USAGE_READ, summary="The meters in use.")
def list_meters(context: Context, asked: ListMeters) -> object:
    """As they are configured, each with the digest that changes when its results could."""
    items = [
        {
            "id": meter.id,
            "event_type": meter.event_type,
            "aggregation": meter.aggregation,
            "unit": meter.unit,
            "value": meter.value,
            "filter": meter.filter,
            "dimensions": meter.dimensions,
            "description": meter.description,
            "digest": meter.digest,
        }
        for meter in sorted(context.app.workspace.meters, key=lambda meter: meter.id)
    ]
    return {"items": items, "next": None}
