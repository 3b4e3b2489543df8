"""Alembic's entry point. `Store` hands over a connection that is already in a transaction."""

from alembic import context

from freehold.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
