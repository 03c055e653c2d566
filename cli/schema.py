"""The schema of the database: where it is, where it should be, and how it gets there."""

import shutil
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from domain.errors import OpenPeekError
from storage.database import Database


class SchemaBehind(OpenPeekError):
    """The database's schema is older than the code."""

    code = "schema_behind"


def head() -> str:
    """Return the revision that this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def current(database: Database) -> str | None:
    """Return the revision that the database has, or None when it is empty."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision, by default what the code needs; does nothing when it is."""
    with database.engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def prepare(database: Database) -> None:
    """Make the schema fit for a start: SQLite migrates itself after a copy, PostgreSQL only on command.

    Raises:
        SchemaBehind: the schema is not what the code needs, and this is not the place to change it.
    """
    there = current(database)
    if there == head():
        return
    if not database.is_sqlite:
        state = f"is at revision {there}" if there else "is empty"
        message = f"OPENPEEK_DATABASE_URL: the database {state}, the code needs {head()}. Run `openpeek migrate`."
        raise SchemaBehind(message)
    if there is not None:
        _copy(Path(str(database.engine.url.database)), there)
    upgrade(database)


def _copy(path: Path, revision: str) -> None:
    """Copy a SQLite database beside itself, with what its write-ahead log still holds."""
    target = path.with_name(f"{path.name}.before-{revision}")
    if target.exists():
        return
    partial = target.with_name(f"{target.name}.partial")
    with sqlite3.connect(path) as source, sqlite3.connect(partial) as destination:
        source.backup(destination)
    source.close()
    destination.close()
    shutil.move(partial, target)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
