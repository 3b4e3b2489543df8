"""The database: SQLAlchemy Core tables, opened by `Store`, kept current by named Alembic migrations."""

from freehold.store.commits import GroupCommit
from freehold.store.database import HOUSE, TRAFFIC, Query, Schema, Store, cause
from freehold.store.tables import aliases, calls, canaries, events, keys, limits, memberships, targets, teams

__all__ = [
    "HOUSE",
    "TRAFFIC",
    "GroupCommit",
    "Query",
    "Schema",
    "Store",
    "aliases",
    "calls",
    "canaries",
    "cause",
    "events",
    "keys",
    "limits",
    "memberships",
    "targets",
    "teams",
]
