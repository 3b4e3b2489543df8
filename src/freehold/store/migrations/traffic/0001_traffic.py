"""Recorded calls, what candidates made of them, and what was decided on that."""

import sqlalchemy as sa
from alembic import op

revision = "0001_traffic"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "samples",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("group", sa.String, nullable=False),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("incumbent", sa.String, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("import", sa.String, nullable=False),
        sa.Column("prompt", sa.Integer, nullable=False),
        sa.Column("answer", sa.Integer, nullable=False),
        sa.Column("has_expected", sa.Boolean, nullable=False),
        sa.Column("split", sa.String),
        sa.Column("round", sa.Integer),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_index("samples_by_time", "samples", ["task", "at", "id"])
    op.create_index("samples_by_request", "samples", ["task", "request"], unique=True)
    op.create_table(
        "imports",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("file", sa.String, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False),
        sa.Column("sensitive", sa.JSON, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_table(
        "skips",
        sa.Column("import", sa.String, primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("duplicate", sa.Boolean, nullable=False),
    )
    op.create_table(
        "candidates",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("engine", sa.String, nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("candidate", sa.String, primary_key=True),
        sa.Column("sample", sa.String, primary_key=True),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=False),
        sa.Column("first_token_ms", sa.Float),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "scores",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("of", sa.String, primary_key=True),
        sa.Column("scorer", sa.String, primary_key=True),
        sa.Column("sample", sa.String, primary_key=True),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("detail", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.String, nullable=False),
    )
    op.create_table(
        "fixings",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("margin", sa.Float, nullable=False),
        sa.Column("alpha", sa.Float, nullable=False),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("scorer", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String, nullable=False),
    )
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("candidate", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("p", sa.Float),
        sa.Column("outcome", sa.String, nullable=False),
    )
    op.create_index("looks_by_split", "looks", ["task", "round"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("looks", "fixings", "scores", "answers", "candidates", "skips", "imports", "samples"):
        op.drop_table(table)
