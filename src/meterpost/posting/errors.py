"""What a connector may raise beyond the core errors, so that posting knows what to do next."""

from __future__ import annotations

from meterpost.core.errors import MeterpostError, Permanent


class Rejected(Permanent):
    """The ERP understood and refused; nothing was stored. The vendor's own words are kept."""

    code = "rejected"

    def __init__(self, sentence: str, *, vendor_text: str = "", hint: str | None = None) -> None:
        super().__init__(sentence, hint=hint)
        self.vendor_text = vendor_text


class ClosedPeriod(Rejected):
    """The accounting date lies in a period that the ERP has closed; nothing was stored."""

    code = "closed-period"


class Duplicate(MeterpostError):
    """The ERP holds a document with this key already; look it up, compare, then link."""

    code = "duplicate"
