"""SIGKILL of every process at every named crash point, while usage becomes invoices.

Here: a small installation of real processes (PostgreSQL, engine, edge under the supervisor; the
sandbox ERP beside them), a sender that keeps books of its own, the kills, and a verdict by
those books and by the ERP's ledger. ``python -m meterpost.testing.kills --help``.
Not here: the crash points themselves (`meterpost.core.crashpoints`).
"""
