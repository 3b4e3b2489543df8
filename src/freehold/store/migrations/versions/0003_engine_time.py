"""How long a call waited for an engine and how long it held its slot there: what its cost is worked out from."""

import sqlalchemy as sa
from alembic import op

revision = "0003_engine_time"
down_revision = "0002_left_the_house"


def upgrade() -> None:
    """Add the columns; of calls until now it is not known."""
    op.add_column("calls", sa.Column("waited_ms", sa.Float))
    op.add_column("calls", sa.Column("engine_ms", sa.Float))


def downgrade() -> None:
    """Drop them again."""
    op.drop_column("calls", "engine_ms")
    op.drop_column("calls", "waited_ms")
