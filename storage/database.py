"""The database: one way to write, one way to read, the same on SQLite and PostgreSQL.

SQLite loses updates when transactions read first and write later, so every writing transaction begins with
``BEGIN IMMEDIATE``; and its waiting writers sleep instead of queueing, so within one process a lock lines
them up. PostgreSQL needs neither.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import BigInteger, Engine, Integer, create_engine, event, make_url
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import JSON

from domain.errors import StorageFull, Unavailable
from storage.tables.json_filters import teach_sqlite

# Threads that serve requests, plus a few of the workers': a request never waits for a connection.
POOL_SIZE: Final = 40
STATEMENT_TIMEOUT_MS: Final = 10_000
_WRITE: Final = "openpeek_write"

JsonObject: TypeAlias = dict[str, Any]  # SQLAlchemy cannot read the recursive type `domain.json_types.Fields`
JsonList: TypeAlias = list[Any]
JsonColumn: Final = JSON().with_variant(JSONB(), "postgresql")
BigId: Final = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts up by itself on SQLite


class Row(DeclarativeBase):
    """Base of all rows."""


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as SQL
    """The database's clock, as integer UTC milliseconds. No other clock decides anything."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_sqlite(_element: now_ms, _compiler: Any, **_: Any) -> str:
    return "cast(round((julianday('now')-2440587.5)*86400000) as integer)"


@compiles(now_ms, "postgresql")
def _now_postgresql(_element: now_ms, _compiler: Any, **_: Any) -> str:
    return "(extract(epoch from clock_timestamp())*1000)::bigint"


class UnitOfWork:
    """A writing transaction, and what is to happen once it has been committed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._after: list[Callable[[], None]] = []

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run an action after the commit; a failing or lost one must do no harm."""
        self._after.append(action)

    def run_after_commit(self) -> None:
        """Run what was asked for. Called once, by the database."""
        for action in self._after:
            action()


class Database:
    """Sessions over one engine. Made once per process, after any fork."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writers = self.engine.execution_options(**{_WRITE: True})
        self._line: threading.Lock | nullcontext[None] = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        """Open a writing transaction; commit on success, roll back on any error.

        Raises:
            Unavailable: the database does not answer; whether a commit counted is then unknown.
            StorageFull: its disk is full; nothing was written.
        """
        with _telling_failures(), self._line, Session(self._writers, expire_on_commit=False) as session:
            uow = UnitOfWork(session)
            with session.begin():
                yield uow
        uow.run_after_commit()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads. Raises as `writing`."""
        with _telling_failures(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


@contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("database", "all connections are in use") from error
    except (OperationalError, InterfaceError) as error:
        raise explain(error) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise explain(error) from error


def explain(error: DBAPIError) -> Unavailable:
    """Turn a driver's failure into one that callers understand, without the URL and its password."""
    text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if "disk is full" in text or "No space left" in text:
        return StorageFull("database", "its disk is full")
    return Unavailable("database", text[:200])


def _engine(url: str) -> Engine:
    options: dict[str, Any] = {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "pool_size": POOL_SIZE,
        "max_overflow": 10,
        "pool_timeout": 8,
    }
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": 30, "check_same_thread": False}, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    connect = {"connect_timeout": 3, "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"}
    return create_engine(parsed, pool_pre_ping=True, pool_recycle=1800, connect_args=connect, **options)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    teach_sqlite(connection)
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=30000",
        "foreign_keys=ON",
        "cache_size=-65536",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
