"""Aliases: what they point at and pointed at before, their canaries, and in each call the alias that was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0004_aliases"
down_revision = "0003_engine_time"

_TARGET = ("model", "digest", "upstream", "task", "by")


def upgrade() -> None:
    """Make the three tables and add the column; no call had asked for an alias before there were any."""
    op.add_column("calls", sa.Column("alias", sa.String))
    op.create_table(
        "aliases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("moves", sa.Integer, nullable=False),
    )
    op.create_table(
        "targets",
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.String, nullable=False) for name in _TARGET),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("left_at", sa.Float),
        sa.Column("left_by", sa.String, nullable=False),
    )
    op.create_table(
        "canaries",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("alias", sa.String, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in _TARGET),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("salt", sa.String, nullable=False),
        sa.Column("tolerance", sa.Float, nullable=False),
        sa.Column("alpha", sa.Float, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("ended", sa.String, nullable=False),
        sa.Column("incumbent", sa.JSON, nullable=False),
        sa.Column("candidate", sa.JSON, nullable=False),
        sa.Column("missed", sa.BigInteger, nullable=False),
        sa.Column("own", sa.JSON, nullable=False),
        sa.Column("told", sa.JSON, nullable=False),
    )
    op.create_index("canaries_by_alias", "canaries", ["alias"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("canaries", "targets", "aliases"):
        op.drop_table(table)
    op.drop_column("calls", "alias")
