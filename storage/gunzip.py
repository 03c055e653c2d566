"""Unpacking answers that come packed, without ever holding more of them than is wanted."""

import zlib
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 64 * 1024  # bytes unpacked at once


class Gunzip:
    """Unpacks gzip in small pieces, so that a bomb is seen before it bursts."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None

    @property
    def is_inside(self) -> bool:
        """Whether more must follow."""
        return self._member is not None

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield what is unpacked, at most 64 KiB at a time. Raises zlib.error when it is no gzip."""
        while data:
            if self._member is None:
                self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            yield self._member.decompress(data, _PIECE)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if self._member.eof:
                self._member = None
