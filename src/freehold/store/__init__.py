"""The database: SQLAlchemy Core tables, opened by `Store`, kept current by named Alembic migrations."""

from freehold.store.canonical import canonical
from freehold.store.commits import GroupCommit
from freehold.store.database import HOUSE, TRAFFIC, Query, Schema, Store, cause
from freehold.store.tables import (
    NO_CALL,
    aliases,
    calls,
    canaries,
    checkpoints,
    events,
    house,
    keys,
    limits,
    memberships,
    targets,
    teams,
)

__all__ = [
    "HOUSE",
    "NO_CALL",
    "TRAFFIC",
    "GroupCommit",
    "Query",
    "Schema",
    "Store",
    "aliases",
    "calls",
    "canaries",
    "canonical",
    "cause",
    "checkpoints",
    "events",
    "house",
    "keys",
    "limits",
    "memberships",
    "targets",
    "teams",
]
