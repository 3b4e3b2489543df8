"""When a key ends; teams and who is in them; and the limits of keys and teams."""

import sqlalchemy as sa
from alembic import op

revision = "0006_policy"
down_revision = "0005_energy"


def upgrade() -> None:
    """Add the column and make the three tables; no key ended by itself or was in a team before."""
    op.add_column("keys", sa.Column("expires_at", sa.Float))
    op.create_table(
        "teams",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "memberships",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("since", sa.Float, primary_key=True),
        sa.Column("team", sa.String, nullable=False),
        sa.Column("until", sa.Float),
    )
    is_open = sa.text("until IS NULL")
    op.create_index("one_team", "memberships", ["key"], unique=True, sqlite_where=is_open, postgresql_where=is_open)
    op.create_table(
        "limits",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("says", sa.JSON, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    for table in ("limits", "memberships", "teams"):
        op.drop_table(table)
    op.drop_column("keys", "expires_at")
