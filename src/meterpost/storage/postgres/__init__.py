"""Stores over the operational database: one file per port, one `Database` for all."""
