"""The tables of recorded traffic and of what came of it, in a database of their own: a long import shall not keep the
ledger waiting, and a file with text in it can be kept, encrypted and removed by itself.
"""

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

samples = Table(
    "samples",
    metadata,
    Column("task", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("group", String, nullable=False),
    Column("request", String, nullable=False),  # the digest of what was asked
    Column("incumbent", String, nullable=False),
    Column("caller", String, nullable=False),
    Column("import", String, nullable=False),  # the import that brought it; "" if it was captured
    Column("prompt", Integer, nullable=False),  # characters
    Column("answer", Integer, nullable=False),
    Column("has_expected", Boolean, nullable=False),
    Column("split", String),
    Column("round", Integer),
    Column("content", LargeBinary, nullable=False),  # the sample, as JSON
    Column("sealed", String, nullable=False, server_default=""),  # the key of its texts, "" where they are plain
    Index("samples_by_time", "task", "at", "id", "sealed"),  # so that outlines are read without their contents
    Index("samples_by_key", "sealed"),
    Index("samples_by_request", "task", "request", unique=True),
)

imports = Table(
    "imports",
    metadata,
    Column("id", String, primary_key=True),
    Column("task", String, nullable=False),
    Column("file", String, nullable=False),
    Column("format", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("line", Integer, nullable=False),
    Column("kept", Integer, nullable=False),
    Column("duplicates", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("sensitive", JSON, nullable=False),
    Column("done", Boolean, nullable=False),
)

skips = Table(
    "skips",
    metadata,
    Column("import", String, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("reason", String, nullable=False),
    Column("duplicate", Boolean, nullable=False),
    Column("sealed", String, nullable=False, server_default=""),
    Index("skips_by_key", "sealed"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("key", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("engine", String, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("task", String, primary_key=True),
    Column("candidate", String, primary_key=True),
    Column("sample", String, primary_key=True),
    Column("answer", LargeBinary),  # as JSON
    Column("error", String, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("first_token_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("sealed", String, nullable=False, server_default=""),
    Index("answers_by_key", "sealed"),
)

scores = Table(
    "scores",
    metadata,
    Column("task", String, primary_key=True),
    Column("of", String, primary_key=True),  # a candidate's key, "incumbent" or "rerun"
    Column("scorer", String, primary_key=True),
    Column("sample", String, primary_key=True),
    Column("value", Float, nullable=False),
    Column("detail", LargeBinary, nullable=False),  # as JSON
    Column("error", String, nullable=False),
    Column("sealed", String, nullable=False, server_default=""),
    Index("scores_by_key", "sealed"),
)

fixings = Table(
    "fixings",
    metadata,
    Column("task", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("margin", Float, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("split", String, nullable=False),
    Column("scorer", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
)

looks = Table(
    "looks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("candidate", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("p", Float),
    Column("outcome", String, nullable=False),
    Index("looks_by_split", "task", "round"),
)

sealing = Table(
    "sealing",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row, or none
    Column("key", String, nullable=False),  # with which everything is encrypted that is written now
    Column("at", Float, nullable=False),
)
