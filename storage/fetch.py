"""The one way out of the house: a GET that reaches public addresses only, and ends in time and in size.

A name is resolved where the connection is made, every address that it has is judged, and one of exactly those is
connected to; so nothing can change between the check and its use. The connection's TLS and Host still carry the name.

httpx parses the URLs, and its engine httpcore is driven directly: httpx would log whole URLs, follow the proxies of
the environment, and unpack without bounds.
"""

import ipaddress
import queue
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import httpcore
import httpx

from domain.errors import ObjectFailed, Unavailable
from storage.addresses import Network, may_reach
from storage.deadline import Clock, TimedStream
from storage.gunzip import Gunzip

MOST_REDIRECTS: Final = 3
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_OVERHEAD: Final = 64 * 1024  # by how much packed bytes may exceed what they unpack to
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_COME_AGAIN: Final = frozenset({408, 425, 429})
_GONE: Final = frozenset({404, 410})

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
Code: TypeAlias = Literal[
    "SOURCE_FORBIDDEN", "SOURCE_NOT_FOUND", "SOURCE_REFUSED", "SOURCE_TOO_LARGE", "SOURCE_UNREADABLE"
]


class SourceUnavailable(Unavailable):
    """A foreign server does not answer now; it may later. Not our own dependency: attempts count."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"source {origin}", reason, code="SOURCE_UNAVAILABLE")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL led to.

    Attributes:
        body: unpacked, and never more than was asked for.
        content_type: as the server says, with its parameters; empty if it says nothing.
        final_url: after redirects. It may hold secrets of the user's: do not log it.
    """

    body: bytes
    content_type: str
    final_url: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, whatever its status; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Fetches what users point at. Threads may share one; connections are kept for the next request.

    Args:
        allow_http: also fetch without encryption.
        allow: networks (such as ``10.1.0.0/16``) that may be reached although they are not public.
        resolve: from host and port to addresses; the system's resolver by default.
        network: makes the connections, always to an address and never to a name.
    """

    def __init__(
        self,
        *,
        allow_http: bool = False,
        allow: Iterable[str] = (),
        resolve: Resolve | None = None,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._schemes = {"https", "http"} if allow_http else {"https"}
        self._clock = Clock()
        allowed = tuple(ipaddress.ip_network(one, strict=False) for one in allow)
        guard = _Guard(self._clock, allowed, resolve or _system_resolve, network or httpcore.SyncBackend())
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            network_backend=guard,
            max_connections=64,
            max_keepalive_connections=16,
            keepalive_expiry=15,
        )

    def get(self, url: str, *, max_bytes: int, timeout_seconds: float, content_types: Sequence[str] = ()) -> Fetched:
        """Return what a URL leads to.

        Args:
            url: what a user gave us.
            max_bytes: of the body, packed or unpacked.
            timeout_seconds: for everything together: name, connection, redirects and body.
            content_types: beginnings of the media types that are taken (``text/``); any if empty.

        Raises:
            ObjectFailed: it will never work; the code says why (see `Code`).
            SourceUnavailable: it may work later.
        """
        self._clock.start(timeout_seconds)
        target = self._admitted(url)
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._ask(target, max_bytes, content_types)
            if isinstance(answer, Fetched):
                return answer
            target = self._admitted(answer)
        raise _failed("SOURCE_UNREADABLE", f"{_origin(target)} redirects more than {MOST_REDIRECTS} times.")

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        max_bytes: int,
        timeout_seconds: float,
    ) -> Answer:
        """Send one request and return its answer, of whatever status; no redirect is followed.

        Raises:
            ObjectFailed: it may not be sent, or the answer is larger than ``max_bytes``.
            SourceUnavailable: there is no whole answer in time.
        """
        self._clock.start(timeout_seconds)
        target = self._admitted(url)
        sent = {"Host": target.netloc.decode("ascii"), "User-Agent": "openpeek", **headers}
        if body:
            sent["Content-Length"] = str(len(body))
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
        with (
            _told(_origin(target), self._clock),
            self._pool.stream(
                method, _address(target), headers=lines, content=body, extensions=self._clock.extensions()
            ) as response,
        ):
            found = _headers(response)
            return Answer(response.status, found, _read(response, found, max_bytes, _origin(target), self._clock))

    def close(self) -> None:
        """Close the connections that were kept."""
        self._pool.close()

    def _admitted(self, url: str | httpx.URL) -> httpx.URL:
        """Return a URL that may be asked for, as far as one can see before its name is resolved."""
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            # Not chained: the parser's message quotes the URL.
            raise _failed("SOURCE_UNREADABLE", "The URL is malformed.") from None
        if target.scheme not in self._schemes:
            taken = " and ".join(sorted(self._schemes, reverse=True))
            raise _failed("SOURCE_FORBIDDEN", f"Only {taken} URLs are fetched, and this one is {target.scheme!r}.")
        if target.userinfo:
            raise _failed("SOURCE_FORBIDDEN", "The URL holds a user name or password. Use a signed URL instead.")
        if not target.host:
            raise _failed("SOURCE_UNREADABLE", "The URL names no host.")
        return target

    def _ask(self, target: httpx.URL, max_bytes: int, content_types: Sequence[str]) -> Fetched | httpx.URL:
        """Return the answer, or where it redirects to."""
        origin = _origin(target)
        headers = [
            (b"Host", target.netloc),
            (b"User-Agent", b"openpeek"),
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"gzip"),
        ]
        with (
            _told(origin, self._clock),
            self._pool.stream(
                "GET", _address(target), headers=headers, extensions=self._clock.extensions()
            ) as response,
        ):
            found = _headers(response)
            if response.status in _REDIRECTS and "location" in found:
                return _next(target, found["location"])
            _check_status(response.status, origin)
            content_type = found.get("content-type", "").strip()
            if content_types and not content_type.lower().startswith(tuple(content_types)):
                shown = content_type.partition(";")[0][:100] or "nothing"
                raise _failed("SOURCE_UNREADABLE", f"{origin} sent {shown}, which is not a type that can be read here.")
            body = _read(response, found, max_bytes, origin, self._clock)
            return Fetched(body, content_type, str(target))


class _Guard(httpcore.NetworkBackend):
    """Makes connections to permitted addresses only."""

    def __init__(
        self,
        clock: Clock,
        allowed: Sequence[Network],
        resolve: Resolve,
        network: httpcore.NetworkBackend,
    ) -> None:
        self._clock = clock
        self._allowed = allowed
        self._resolve = resolve
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the clock knows better
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to one of the addresses of a host, if all of them are permitted.

        Raises:
            ObjectFailed: one of them is not.
        """
        addresses = _resolve_in_time(self._resolve, host, port, self._clock.left())
        for address in addresses:
            if not may_reach(address, self._allowed):
                # The address is not shown: it would tell strangers how the names of this network resolve.
                raise _failed(
                    "SOURCE_FORBIDDEN",
                    f"{host} has an address that is not public. The operator can permit networks with "
                    "OPENPEEK_FETCH_ALLOW.",
                )
        for rest in range(len(addresses), 0, -1):
            try:
                stream = self._network.connect_tcp(
                    addresses[-rest],
                    port,
                    timeout=self._clock.left() / rest,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if rest == 1:
                    raise
            else:
                return TimedStream(stream, self._clock)
        raise httpcore.ConnectError("the name has no address")


def _system_resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _resolve_in_time(resolve: Resolve, host: str, port: int, seconds: float) -> Sequence[str]:
    """Resolve on a thread of its own, because the system's resolver knows no deadline."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(host, port))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise httpcore.ConnectTimeout from None
    if isinstance(answer, Exception):
        raise SourceUnavailable(host, "its name was not found") from answer
    return answer


def _read(response: httpcore.Response, headers: dict[str, str], max_bytes: int, origin: str, clock: Clock) -> bytes:
    """Return the body, unpacked. The announced length is believed only when it is too large."""
    announced = headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(origin, max_bytes)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise _failed("SOURCE_UNREADABLE", f"{origin} packs its answer as {encoding[:40]!r}, which nobody asked for.")
    body = bytearray()
    raw = 0
    unpacker = Gunzip() if "gzip" in encoding else None
    for piece in response.iter_stream():
        raw += len(piece)
        try:
            for part in (piece,) if unpacker is None else unpacker.unpack(piece):
                body += part
                if len(body) > max_bytes or raw > max_bytes + _OVERHEAD:
                    raise _too_large(origin, max_bytes)
                clock.left()
        except zlib.error as error:
            raise _failed("SOURCE_UNREADABLE", f"{origin} sent a broken gzip stream.") from error
    if unpacker is not None and unpacker.is_inside:
        raise _failed("SOURCE_UNREADABLE", f"{origin} sent a gzip stream that breaks off.")
    return bytes(body)


def _address(target: httpx.URL) -> httpcore.URL:
    port = target.port or DEFAULT_PORTS[target.scheme]
    return httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=port, target=target.raw_path)


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _next(target: httpx.URL, location: str) -> httpx.URL:
    try:
        return target.join(location)
    except (httpx.InvalidURL, ValueError):
        raise _failed("SOURCE_UNREADABLE", f"{_origin(target)} redirects to a malformed URL.") from None


def _check_status(status: int, origin: str) -> None:
    if 200 <= status < 300:  # noqa: PLR2004 - the range says it
        return
    if status >= 500 or status in _COME_AGAIN:  # noqa: PLR2004
        raise SourceUnavailable(origin, f"it answered {status}")
    if status in _GONE:
        raise _failed("SOURCE_NOT_FOUND", f"{origin} answered {status}: nothing is there.")
    if status >= 400:  # noqa: PLR2004
        raise _failed("SOURCE_REFUSED", f"{origin} answered {status}. Has the URL expired, or does it need a login?")
    raise _failed("SOURCE_UNREADABLE", f"{origin} answered {status}, which is no content.")


@contextmanager
def _told(origin: str, clock: Clock) -> Iterator[None]:
    """Tell failures of the network as facts about the source."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise SourceUnavailable(origin, f"it took longer than {clock.seconds:g} s") from error
    except httpcore.ConnectError as error:
        # httpcore cuts the chain of causes, and keeps the original as argument.
        if any(isinstance(argument, ssl.SSLCertVerificationError) for argument in error.args):
            raise SourceUnavailable(origin, "its certificate cannot be verified") from error
        raise SourceUnavailable(origin, "no connection was possible") from error
    except (httpcore.NetworkError, OSError) as error:
        raise SourceUnavailable(origin, "the connection broke off") from error
    except httpcore.ProtocolError as error:
        raise SourceUnavailable(origin, "its answer is incomplete or not HTTP") from error


def _origin(target: httpx.URL) -> str:
    """Name the server only: path and query of a URL may be secrets."""
    return f"{target.scheme}://{target.netloc.decode('ascii')}"


def _failed(code: Code, message: str) -> ObjectFailed:
    return ObjectFailed(message, code=code)


def _too_large(origin: str, max_bytes: int) -> ObjectFailed:
    return _failed("SOURCE_TOO_LARGE", f"{origin} sends more than the {max_bytes:,} bytes that are taken.")
