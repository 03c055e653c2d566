"""A real Valkey for the tests of this folder."""

from tests.services.fixtures import valkey_server

__all__ = ["valkey_server"]
