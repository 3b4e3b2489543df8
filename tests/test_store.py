"""The database: its migrations lead to the tables, and a newer one is refused."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select

from freehold.errors import StoreFailed
from freehold.store import HOUSE, TRAFFIC, Store, keys


@pytest.mark.parametrize("schema", [HOUSE, TRAFFIC], ids=lambda schema: schema.folder)
def test_the_migrations_lead_to_the_tables(tmp_path, schema):
    """Alembic sees no difference between a migrated database and the tables."""
    store = Store(f"sqlite:///{tmp_path / 'x.db'}", schema)
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.tables) == []
    store.close()


def test_opening_twice_changes_nothing(tmp_path):
    """The second opening finds the schema current."""
    store = Store(tmp_path / "x.db")
    with store.write() as connection:
        connection.execute(insert(keys).values(id="k", name="n", role="member", hash="h", created_at=1.0))
    store.close()
    again = Store(tmp_path / "x.db")
    with again.reader() as connection:
        assert connection.execute(select(keys.c.name)).scalars().all() == ["n"]
    again.close()


def test_a_newer_database_is_refused(tmp_path):
    """A schema that this program does not know is not touched."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    Store(url).close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_future'")
    connection.close()
    with pytest.raises(StoreFailed, match="newer Freehold"):
        Store(url)


def test_a_database_that_cannot_be_opened_is_a_sentence(tmp_path):
    """A folder that is not there, and a file that is no database."""
    with pytest.raises(StoreFailed, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}/none/x.db")
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreFailed, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path / 'x.db'}")
