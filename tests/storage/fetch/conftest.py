"""Doubles of networks and servers for the guarded fetcher. Nothing but this machine is ever contacted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from storage.fetch import Fetcher
from tests.services.http import QuietHandler, serving
from tests.storage.fetch.doubles import LOOPBACK, RecordingNetwork


@pytest.fixture
def network() -> RecordingNetwork:
    return RecordingNetwork()


@pytest.fixture
def make_fetcher() -> Iterator[Callable[..., Fetcher]]:
    """Return a maker of fetchers that are closed in the end."""
    with ExitStack() as stack:

        def make(**given: Any) -> Fetcher:
            made = Fetcher(**{"allow_http": True, **given})
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def fetcher(make_fetcher: Callable[..., Fetcher]) -> Fetcher:
    """Return a fetcher that may reach this machine."""
    return make_fetcher(allow=LOOPBACK)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a starter of servers: the function given answers every GET; the start of its URLs comes back."""
    with ExitStack() as stack:

        def start(answer: Callable[[QuietHandler], None]) -> str:
            kind = type("Answering", (QuietHandler,), {"do_GET": answer})
            return f"http://127.0.0.1:{stack.enter_context(serving(kind))}"

        yield start
