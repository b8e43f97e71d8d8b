"""Usage events at the door: accepted durably, or refused with a reason.

Lives here: CloudEvents and schema checks, limits, personal fields, reading usage files, the
words of the configuration for all of that. Not here: how the journal is written (``storage``),
HTTP (``api``), dedupe and what events mean (``metering``).
"""
