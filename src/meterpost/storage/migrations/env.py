"""Runs migrations on the connection that `Database.migrate` hands over."""

from alembic import context

from meterpost.storage.tables import METADATA, SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table_schema=SCHEMA,
    version_table="schema_version",
    include_schemas=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
