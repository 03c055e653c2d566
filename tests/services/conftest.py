"""The fixtures of this folder, for its own tests."""

from tests.services.fixtures import postgres_server

__all__ = ["postgres_server"]
