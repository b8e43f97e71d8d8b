"""Write the SQL of the declared tables, for the first migration of a release under construction.

Run: python tools/freeze_schema.py > src/meterpost/storage/migrations/versions/0001_spine.sql
A released migration is never rewritten; a test compares a migrated database with the tables.
"""

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from meterpost.storage.tables import METADATA

DIALECT = postgresql.dialect()

print("-- Written by tools/freeze_schema.py from the declared tables.")
for table in METADATA.sorted_tables:
    print(str(CreateTable(table).compile(dialect=DIALECT)).strip() + ";\n")
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        print(str(CreateIndex(index).compile(dialect=DIALECT)).strip() + ";")
    print()
print("ALTER TABLE meterpost.journal ALTER COLUMN body SET STORAGE EXTERNAL;")
