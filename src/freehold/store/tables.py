"""The tables as they are now. ``store/migrations`` holds the steps that lead here; a test compares the two."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, false

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),  # "sha256:<hex>"; the key itself is kept nowhere
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

calls = Table(
    "calls",
    metadata,
    Column("id", String, primary_key=True),
    Column("opened_at", Float, nullable=False),
    Column("caller", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("outcome", String),
    Column("status", Integer),
    Column("error", String),
    Column("model", String),
    Column("digest", String),
    Column("prompt_tokens", BigInteger, nullable=False, default=0),
    Column("completion_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("first_token_ms", Float),
    Column("total_ms", Float),
    Column("left_the_house", Boolean, nullable=False, default=False, server_default=false()),
    Column("waited_ms", Float),  # in line for an engine; null where it did not come to its turn
    Column("engine_ms", Float),  # for which it held its slot at an engine; null where nobody knows
    Index("calls_by_time", "opened_at"),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("act", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
)
