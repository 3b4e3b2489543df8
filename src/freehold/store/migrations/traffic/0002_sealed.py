"""Which key each row's texts are encrypted with, and the one that is in use."""

import sqlalchemy as sa
from alembic import op

revision = "0002_sealed"
down_revision = "0001_traffic"
_TABLES = ("samples", "skips", "answers", "scores")


def upgrade() -> None:
    """Rows that are there are plain."""
    for table in _TABLES:
        op.add_column(table, sa.Column("sealed", sa.String, nullable=False, server_default=""))
        op.create_index(f"{table}_by_key", table, ["sealed"])
    op.drop_index("samples_by_time", "samples")
    op.create_index("samples_by_time", "samples", ["task", "at", "id", "sealed"])
    op.create_table(
        "sealing",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("sealing")
    op.drop_index("samples_by_time", "samples")
    op.create_index("samples_by_time", "samples", ["task", "at", "id"])
    for table in _TABLES:
        op.drop_index(f"{table}_by_key", table)
        op.drop_column(table, "sealed")
