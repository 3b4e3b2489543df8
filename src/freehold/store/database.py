"""`Store` opens the database, brings its schema up to date, and hands out connections."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from sqlalchemy import URL, Connection, Engine, MetaData, Select, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from freehold.errors import StoreFailed
from freehold.store import tables, traffic
from freehold.store.canonical import canonical

LATEST = "0007_audit"
_LATELY = 0.001  # seconds
_MIGRATIONS = Path(__file__).parent / "migrations"


class Schema(Struct, frozen=True):
    """The tables of one kind of database, the folder of the steps that lead to them, and the last of these."""

    tables: MetaData
    folder: str
    latest: str
    pragmas: tuple[str, ...] = ()  # SQLite's, over those of every database


HOUSE = Schema(tables.metadata, "versions", LATEST)
# what is removed there was text: its bytes are overwritten
TRAFFIC = Schema(traffic.metadata, "traffic", "0002_sealed", ("secure_delete = ON",))


class Store:
    """One database, by URL or as the path of an SQLite file. Several processes may open it; writers take turns.

    Raises:
        StoreFailed: the database cannot be opened, or is newer than this program.
    """

    def __init__(self, place: str | Path, schema: Schema = HOUSE):
        self._schema = schema
        try:
            self.url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else make_url(place)
            self.engine = _engine(self.url, schema.pragmas)
            self._file = self.url.database if self.url.drivername.startswith("sqlite") else None
            self._seen: int | None = None
            self._looked_at = -math.inf
            self._bring_up_to_date()
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise StoreFailed(
                f"The database {_shown(place)} cannot be opened: {cause(error)}.",
                hint="See that its folder can be written and the disk is not full.",
            ) from None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer can interleave with; committed at the end, or rolled back."""
        with self.engine.begin() as connection:
            yield connection

    def reader(self) -> Connection:
        """A connection on which every statement stands alone, so that it always sees the latest commit."""
        return self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection on which every statement sees the database as it was at the first. Writers need not wait."""
        if not self._file and self.url.get_backend_name() != "sqlite":
            with self.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                yield connection
            return
        with self.reader() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def exclusively(self, table: Table) -> tuple[str, ...]:
        """The statements that begin a transaction beside which nobody else writes to the table; readers may go on."""
        if self.engine.dialect.name == "sqlite":
            return ("BEGIN IMMEDIATE",)
        return ("BEGIN", f"LOCK TABLE {table.name} IN EXCLUSIVE MODE")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What goes wrong with the database: as the driver says it, and as SQLAlchemy does."""
        return (self.engine.dialect.dbapi.Error, SQLAlchemyError)

    def query(self, statement: Select) -> Query:
        """A statement that is asked again and again."""
        return Query(self.reader(), statement)

    def touch(self) -> None:
        """Tell every process on this machine that something it may have remembered has changed."""
        if self._file:
            with suppress(OSError):  # what is remembered is forgotten soon in any case
                now = time.time_ns()  # the kernel's own clock for files has steps of milliseconds
                os.utime(self._file, ns=(now, now))
                self._looked_at = -math.inf

    def version(self) -> int | None:
        """Changes after every `touch`; None where there is nothing to go by."""
        try:
            self._seen = os.stat(self._file).st_mtime_ns if self._file else None
        except OSError:
            self._seen = None
        self._looked_at = time.monotonic()
        return self._seen

    def version_lately(self) -> int | None:
        """The same as it was at most a millisecond ago: for those who ask right after somebody has asked."""
        return self._seen if time.monotonic() - self._looked_at < _LATELY else self.version()

    def scrub(self) -> None:
        """Take what was removed out of the log that SQLite keeps beside the file, where it may stand yet.

        Raises:
            StoreFailed: somebody reads or writes all the while; what was removed is removed all the same.
        """
        if not self._file:
            return
        try:
            with self.reader() as connection:
                busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            reason = "another process uses it" if busy else ""
        except self.errors as error:
            reason = cause(error)
        if reason:
            raise StoreFailed(
                f"It is removed, but its text may still be in {self._file}-wal: {reason}.",
                hint="Give the same command again when nothing else uses the database.",
            )

    def rewrite(self) -> None:
        """Write the whole file anew, so that nothing is left of what was exchanged in it. Raises StoreFailed."""
        try:
            if self._file:
                with self.reader() as connection:
                    connection.exec_driver_sql("VACUUM")
        except self.errors as error:
            raise StoreFailed(
                f"{self._file} cannot be written anew: {cause(error)}.",
                hint="It needs as much free space as it has bytes, and nobody else who writes; give the command again.",
            ) from None
        self.scrub()

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()

    def _bring_up_to_date(self) -> None:
        revision = self._revision()
        if revision == self._schema.latest:
            return
        if revision is not None and revision not in self._known_revisions():
            raise StoreFailed(
                f"The database {_shown(self.url)} was made by a newer Freehold (schema {revision}).",
                hint="Use that version, or another home.",
            )
        self._migrate()

    def _revision(self) -> str | None:
        with self.reader() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def _migrate(self) -> None:
        from alembic import command  # half a second of imports that most starts do not need
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("version_locations", str(_MIGRATIONS / self._schema.folder))
        config.set_main_option("path_separator", "newline")  # a path may hold any of the others
        config.attributes["metadata"] = self._schema.tables
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _known_revisions(self) -> set[str]:
        return {path.stem for path in (_MIGRATIONS / self._schema.folder).glob("[0-9]*.py")}


class Query:
    """One statement on a connection of its own, compiled once: asked of the driver itself it takes some
    microseconds, which matters where every call asks it. Ask with the names of its bind parameters."""

    def __init__(self, connection: Connection, statement: Select):
        compiled = statement.compile(dialect=connection.dialect)
        self._text, self._names, self._fixed = str(compiled), compiled.positiontup, compiled.params
        self._connection = connection
        self._cursor = connection.connection.cursor()

    def first(self, **values: Any) -> tuple | None:
        """The first row, or None. Raises one of `Store.errors` if the database does not answer."""
        self._cursor.execute(self._text, self._given(values))
        return self._cursor.fetchone()

    def every(self, **values: Any) -> list[tuple]:
        """All rows. Raises as `first`."""
        self._cursor.execute(self._text, self._given(values))
        return self._cursor.fetchall()

    def _given(self, values: dict[str, Any]) -> Any:
        """The values of all bind parameters: those that are given, and those that stand in the statement."""
        if self._names is None:
            return self._fixed | values
        return tuple(values[name] if name in values else self._fixed[name] for name in self._names)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _shown(place: str | Path | URL) -> str:
    """Where it is, without a password."""
    try:
        return str(place) if isinstance(place, Path) else make_url(place).render_as_string()
    except SQLAlchemyError:
        return "named by the setting 'database'"


def _engine(url: URL, pragmas: tuple[str, ...]) -> Engine:
    if not url.drivername.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, json_serializer=canonical)
    engine = create_engine(
        url, poolclass=NullPool, json_serializer=canonical,
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": 10},
    )  # fmt: skip
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, pragmas))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection, pragmas: tuple[str, ...]) -> None:
    """WAL lets readers and the writer work at once; FULL puts every commit on the disk before it returns."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start: a transaction that reads first and writes later can otherwise fail."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def cause(error: Exception) -> str:
    """What the driver says, in one line."""
    said = str(getattr(error, "orig", None) or error).splitlines()
    return said[0] if said else type(error).__name__
