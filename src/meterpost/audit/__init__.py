"""Who did what, sealed in order, and packs of evidence for auditors.

Lives here: audit entries, seals, their verification. Not here: why a step was allowed
(the room that took it), how rows are kept (``storage``).
"""
