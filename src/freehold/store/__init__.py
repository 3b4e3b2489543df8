"""The database: SQLAlchemy Core tables, opened by `Store`, kept current by named Alembic migrations."""

from freehold.store.commits import GroupCommit
from freehold.store.database import Query, Store, cause
from freehold.store.tables import calls, events, keys

__all__ = ["GroupCommit", "Query", "Store", "calls", "cause", "events", "keys"]
