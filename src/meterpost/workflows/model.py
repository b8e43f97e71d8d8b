"""Workflow definitions and the frame of a close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from meterpost.core.ids import CloseId, LegalEntityId, MeterId, TargetId
from meterpost.metering.model import Cutoff
from meterpost.staging.model import ApprovalPolicy


class LatePolicy(StrEnum):
    """What usage that arrives after a close leads to."""

    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Workflow:
    """A closing workflow, as a YAML file states it (docs/workflows.md).

    ``purpose`` outlives the name: a usage record is claimed once per purpose. ``target`` is
    the connection that documents go to.
    """

    name: str
    purpose: str
    meters: tuple[MeterId, ...]
    target: TargetId
    kind: str = "billing.usage"
    trigger: str = "period_close"
    approval: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    late: LatePolicy = LatePolicy.DELTA
    description: str = ""


class Basis(StrEnum):
    """Why there is an nth close of a period."""

    FIRST = "first"
    MASTERDATA = "masterdata"
    LATE = "late"


class CloseState(StrEnum):
    """How far a close has come; each step is repeated whole after a crash."""

    OPEN = "open"
    COMPUTED = "computed"
    STAGED = "staged"


@dataclass(frozen=True, slots=True)
class Close:
    """The frame of a calculation, stored before its first usage record."""

    id: CloseId
    workflow: str
    purpose: str
    legal_entity: LegalEntityId
    accounting_period: str
    n: int
    basis: Basis
    cutoff: Cutoff
    masterdata_rev: int
    config_digest: str
    state: CloseState
    requested_by: str
    requested_at: datetime
    correlation_id: str
    counts: Mapping[str, object] = field(default_factory=dict)
