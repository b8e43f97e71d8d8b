"""PostgreSQL tables, stores and migrations, the embedded server, the event stores.

Implements the ports of the rooms; no room imports it, `meterpost.bootstrap` wires it.
"""
