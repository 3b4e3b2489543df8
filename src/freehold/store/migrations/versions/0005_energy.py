"""What a call drew by the machine's own counters: where nothing counts, and of calls until now, it is null."""

import sqlalchemy as sa
from alembic import op

revision = "0005_energy"
down_revision = "0004_aliases"


def upgrade() -> None:
    """Add the column."""
    op.add_column("calls", sa.Column("joules", sa.Float))


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("calls", "joules")
