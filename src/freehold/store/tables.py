"""The tables as they are now. ``store/migrations`` holds the steps that lead here; a test compares the two."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, false, text

metadata = MetaData()

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite's own row number, which is what makes it fast

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),  # "sha256:<hex>"; the key itself is kept nowhere
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("expires_at", Float),
)

teams = Table(
    "teams",
    metadata,
    Column("name", String, primary_key=True),
    Column("created_at", Float, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("key", String, primary_key=True),  # its id
    Column("since", Float, primary_key=True),
    Column("team", String, nullable=False),
    Column("until", Float),
)
_OPEN = text("until IS NULL")
Index("one_team", memberships.c.key, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)

limits = Table(
    "limits",
    metadata,
    Column("kind", String, primary_key=True),  # "key" or "team"
    Column("id", String, primary_key=True),  # the key's id, or the team's name
    Column("says", JSON, nullable=False),  # a `types.Limits`
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
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
    Column("alias", String),  # the name that was sent, where it was one
    Column("joules", Float),  # its part of what the machine drew; null where no counter says so
    Column("event", BigInteger),  # in the chain, which settled it; null as long as it is open, and where it is older
    Index("calls_by_time", "opened_at"),
)

NO_CALL = text("act <> 'call.settled'")

events = Table(
    "events",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("act", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Index("events_acts", "act", sqlite_where=NO_CALL, postgresql_where=NO_CALL),  # the few among very many
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),  # of the event that was the head
    Column("at", Float, nullable=False),
    Column("key", String, nullable=False),  # the public key that signed it, in base64
    Column("envelope", String, nullable=False),
)

house = Table(
    "house",
    metadata,
    Column("id", String, primary_key=True),  # the one row: whose chain this is
    Column("salt", String, nullable=False),  # of the hashes of names in the chain
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", String, primary_key=True),
    Column("moves", Integer, nullable=False),  # counts its changes
)

targets = Table(
    "targets",
    metadata,
    Column("alias", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1; the alias points at the last not left
    Column("model", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("upstream", String, nullable=False),
    Column("task", String, nullable=False),
    Column("by", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("why", String, nullable=False),
    Column("left_at", Float),
    Column("left_by", String, nullable=False),
)

canaries = Table(
    "canaries",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("model", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("upstream", String, nullable=False),
    Column("task", String, nullable=False),
    Column("by", String, nullable=False),
    Column("why", String, nullable=False),
    Column("share", Float, nullable=False),
    Column("salt", String, nullable=False),
    Column("tolerance", Float, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("ended", String, nullable=False),
    Column("incumbent", JSON, nullable=False),  # counts of calls: no text, and no call by itself
    Column("candidate", JSON, nullable=False),
    Column("missed", BigInteger, nullable=False),
    Column("own", JSON, nullable=False),  # the states of the two tests
    Column("told", JSON, nullable=False),
    Index("canaries_by_alias", "alias"),
)
