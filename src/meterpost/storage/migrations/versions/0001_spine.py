"""The spine: every table of the first release (0.1, before the code)."""

from pathlib import Path

from alembic import op

revision = "0001_spine"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file, as it was frozen at the release."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text("utf-8"))
