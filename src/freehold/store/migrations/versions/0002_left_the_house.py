"""Which calls left the house: those that were sent to an upstream."""

import sqlalchemy as sa
from alembic import op

revision = "0002_left_the_house"
down_revision = "0001_first"


def upgrade() -> None:
    """Add the column; no call had left before there were upstreams."""
    op.add_column("calls", sa.Column("left_the_house", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("calls", "left_the_house")
