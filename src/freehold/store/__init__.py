"""The database: SQLAlchemy Core tables, opened by `Store`, kept current by named Alembic migrations."""

from freehold.store.database import Store
from freehold.store.tables import calls, events, keys

__all__ = ["Store", "calls", "events", "keys"]
