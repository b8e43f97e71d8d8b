"""The operational database's tables, declared once; migrations are tested against them.

One file per room. Schema ``meterpost``; amounts and quantities are NUMERIC, moments are
``timestamptz``, open ends of validity are NULL.
"""

from meterpost.storage.tables import access, audit, ingest, masterdata, posting, staging, workflows
from meterpost.storage.tables.base import METADATA, SCHEMA

__all__ = [
    "METADATA",
    "SCHEMA",
    "access",
    "audit",
    "ingest",
    "masterdata",
    "posting",
    "staging",
    "workflows",
]
