"""One chain for acts and calls: each call names its event, checkpoints are kept, and the chain is some house's."""

import sqlalchemy as sa
from alembic import op

revision = "0007_audit"
down_revision = "0006_policy"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TEXTS = ("actor", "act", "subject")
_COLUMNS = "seq, at, actor, act, subject, detail, previous, hash"


def upgrade() -> None:
    """Calls that were settled before have no event of their own; `Ledger.start` enters them all together. The events'
    hashes lose their index: the chain itself says that none is there twice, and a million calls would pay for it."""
    op.add_column("calls", sa.Column("event", sa.BigInteger))
    if op.get_bind().dialect.name == "sqlite":
        _events_anew()
    else:
        op.drop_constraint("events_hash_key", "events")
        op.alter_column("events", "seq", type_=sa.BigInteger)
    no_call = sa.text("act <> 'call.settled'")
    op.create_index("events_acts", "events", ["act"], sqlite_where=no_call, postgresql_where=no_call)
    op.create_table(
        "checkpoints",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("envelope", sa.String, nullable=False),
    )
    op.create_table(
        "house",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("salt", sa.String, nullable=False),
    )


def _events_anew() -> None:
    """SQLite takes no constraint away but with its table."""
    op.rename_table("events", "events_before")
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in _TEXTS),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.execute(f"INSERT INTO events ({_COLUMNS}) SELECT {_COLUMNS} FROM events_before")
    op.drop_table("events_before")


def downgrade() -> None:
    """Drop them again. The events of calls stay in the chain."""
    for table in ("house", "checkpoints"):
        op.drop_table(table)
    op.drop_index("events_acts", "events")
    op.drop_column("calls", "event")
