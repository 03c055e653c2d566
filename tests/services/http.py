"""A small HTTP server in this process, for doubles of servers in trouble."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that prints nothing; subclasses say how to answer."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a handler that hangs on purpose must not hold up the end of its test

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients of these tests hang up in the middle."""


@contextmanager
def serving(handler: type[QuietHandler]) -> Iterator[int]:
    """Serve on 127.0.0.1 and yield the port."""
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
