"""The one way out: every address that a user names is fetched here, and only if it leads to the public internet.

A name is resolved once, every address behind it is checked, and the connection goes to a checked address,
so a name that answers differently the second time gains nothing. Each redirect goes the same way.
"""

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpcore
import httpx

from domain.errors import ObjectFailed, Unavailable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], list[str]]

MAX_REDIRECTS: Final = 3
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.ip_network("64:ff9b:1::/48")
# Networks that Python calls global, and that are not the public internet all the same.
_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "fec0::/10", "2001::/23")
)


class SourceUnavailable(Unavailable):
    """A foreign address does not answer now; it may in a moment."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"source {host}", reason, retry_after_seconds=5, code="SOURCE_UNAVAILABLE")


class AddressForbidden(Exception):
    """An address that users must not reach through this server."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched."""

    body: bytes
    content_type: str


def is_public(address: Address) -> bool:
    """Say whether an address is on the public internet, looking through IPv4 that is wrapped in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _unwrapped(address)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address in _LOCAL_NAT64:
            return False
    forbidden = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or any(address in network for network in _NEVER if network.version == address.version)
    )
    return address.is_global and not forbidden


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


class Fetcher:
    """A guarded HTTP client.

    Args:
        allow: networks that may be reached although they are private; http is allowed for them too.
        resolve: host and port → addresses; the system's resolver by default.
    """

    def __init__(self, *, allow: Sequence[str] = (), resolve: Resolver | None = None) -> None:
        self._allow: list[Network] = [ipaddress.ip_network(network) for network in allow]
        self._backend = _GuardedBackend(self._allow, resolve or _resolve)
        transport = httpx.HTTPTransport(trust_env=False)
        # httpx offers no public way to say how its pool connects; this is the pool it would have made itself.
        transport._pool = httpcore.ConnectionPool(  # noqa: SLF001
            ssl_context=httpx.create_ssl_context(trust_env=False), network_backend=self._backend, max_connections=20
        )
        self._client = httpx.Client(
            transport=transport, trust_env=False, follow_redirects=False, headers={"User-Agent": "OpenPeek"}
        )

    def get(self, url: str, *, max_bytes: int, timeout_seconds: float = 30.0) -> Fetched:
        """Fetch an address.

        Raises:
            ObjectFailed: it may not be fetched, does not exist, refuses, or holds too much; the code says which.
            SourceUnavailable: it does not answer now.
        """
        deadline = time.monotonic() + timeout_seconds
        current = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._check_url(current)
            try:
                with self._client.stream("GET", current, timeout=min(10.0, timeout_seconds)) as response:
                    if response.is_redirect:
                        current = current.join(response.headers["location"])
                        continue
                    _check_status(response)
                    return _read(response, max_bytes, deadline)
            except AddressForbidden as error:
                raise ObjectFailed(str(error), code="SOURCE_FORBIDDEN") from error
            except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
                raise SourceUnavailable(current.host, type(error).__name__) from error
        raise ObjectFailed(f"{current.host} redirects more than {MAX_REDIRECTS} times.", code="SOURCE_REFUSED")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _check_url(self, url: httpx.URL) -> None:
        if url.userinfo:
            raise ObjectFailed("The address carries a user name or password; leave it out.", code="SOURCE_FORBIDDEN")
        if not url.host or url.scheme not in {"https", "http"}:
            raise ObjectFailed(f"An address of scheme {url.scheme[:20]!r} cannot be fetched.", code="SOURCE_FORBIDDEN")
        if url.scheme == "http" and not self._backend.is_allowed_host(url.host, url.port or 80):
            raise ObjectFailed("Only https addresses are fetched.", code="SOURCE_FORBIDDEN")


class _GuardedBackend(httpcore.SyncBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, allow: Sequence[Network], resolve: Resolver) -> None:
        self._allow = allow
        self._resolve = resolve

    def is_allowed_host(self, host: str, port: int) -> bool:
        """Say whether every address of a host lies in an allowed network."""
        try:
            addresses = self._addresses(host, port)
        except OSError:
            return False
        return bool(addresses) and all(self._is_allowed(address) for address in addresses)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host, if all of them may be reached."""
        try:
            addresses = self._addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        for address in addresses:
            if not is_public(address) and not self._is_allowed(address):
                message = f"{host} leads to {address}, which is not on the public internet."
                raise AddressForbidden(message)
        if not addresses:
            raise httpcore.ConnectError(f"{host} cannot be resolved")
        return super().connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    def _addresses(self, host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolve(host.strip("[]"), port)]

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allow if network.version == address.version)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _check_status(response: httpx.Response) -> None:
    status, host = response.status_code, response.url.host
    if status >= 500 or status in {408, 425, 429}:  # noqa: PLR2004
        raise SourceUnavailable(host, f"it answered {status}")
    if status in {404, 410}:
        raise ObjectFailed(f"{host} answered {status}: there is nothing at this address.", code="SOURCE_NOT_FOUND")
    if status >= 300:  # noqa: PLR2004
        raise ObjectFailed(f"{host} answered {status} and does not let us read this.", code="SOURCE_REFUSED")


def _read(response: httpx.Response, max_bytes: int, deadline: float) -> Fetched:
    """Read a body up to a size, counted after decompression, and up to a time."""
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes(64 * 1024):
        size += len(piece)
        if size > max_bytes:
            raise ObjectFailed(f"{response.url.host} sends more than {max_bytes:,} bytes.", code="SOURCE_TOO_LARGE")
        if time.monotonic() > deadline:
            raise SourceUnavailable(response.url.host, "it sends too slowly")
        pieces.append(piece)
    return Fetched(b"".join(pieces), response.headers.get("content-type", ""))
