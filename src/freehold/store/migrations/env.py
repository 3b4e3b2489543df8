"""Alembic's entry point. `Store` hands over a connection that is already in a transaction, and the tables."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], target_metadata=attributes["metadata"])
context.run_migrations()
