"""One deadline for everything a request does, however slowly bytes drip."""

import ssl
import threading
import time

import httpcore


class Clock(threading.local):
    """When the present request of this thread must have ended."""

    deadline = 0.0
    seconds = 0.0

    def start(self, seconds: float) -> None:
        """Give the present request so many seconds from now."""
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; raises httpcore's timeout if none are."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left

    def extensions(self) -> dict[str, dict[str, float]]:
        """Return what httpcore wants to know of it."""
        return {"timeout": {"pool": self.left()}}


class TimedStream(httpcore.NetworkStream):
    """A connection on which no read outlasts the request, however slowly bytes drip."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Return some bytes."""
        return self._stream.read(max_bytes, self._clock.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send all bytes."""
        self._stream.write(buffer, self._clock.left())

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Return the same connection, encrypted from here on."""
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._clock.left()), self._clock)

    def get_extra_info(self, info: str) -> object:
        """Return what the connection knows about itself."""
        return self._stream.get_extra_info(info)
