"""Doubles of networks for the guarded fetcher."""

from typing import Any

import httpcore

LOOPBACK = ("127.0.0.0/8", "::1/128")


class RecordingNetwork(httpcore.NetworkBackend):
    """A double of the network: it writes down whom it should connect to, and nobody is there."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    def connect_tcp(self, host: str, port: int, **_: Any) -> httpcore.NetworkStream:
        self.connected.append(host)
        raise httpcore.ConnectError("nobody is there")
