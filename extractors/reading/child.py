"""The process in which files are read: it has the parsers loaded, and forks for each file.

What a hostile file can do is what a fork may do: so much memory, so much time of the processor, no file written. It
ends with the file, so nothing that one file left behind meets the next. Frames on stdin and stdout, in network order:

    request    three lengths, then the blob's declared type, the content type, the bytes
    reply      wait status of the fork, a length, then JSON

Whoever started this ends it by closing stdin, or by killing its process group when a file takes too long.
"""

import gc
import json
import os
import resource
import struct
import sys
from typing import BinaryIO, Final

REQUEST: Final = struct.Struct("!HHQ")
REPLY: Final = struct.Struct("!iQ")
MOST_MEMORY: Final = 1024 * 1024 * 1024  # bytes of address space
MOST_CPU_SECONDS: Final = 45


def main() -> None:
    """Answer requests until stdin ends."""
    # Loaded once and shared by all forks; 0.1 s that each file would otherwise pay.
    import extractors.reading.docx  # noqa: PLC0415
    import extractors.reading.html  # noqa: PLC0415
    import extractors.reading.pdf  # noqa: F401, PLC0415

    gc.freeze()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        declared, content_type, raw = (requests.read(length) for length in REQUEST.unpack(head))
        status, reply = _forked(declared.decode(), content_type.decode("utf-8", "replace"), raw)
        replies.write(REPLY.pack(status, len(reply)))
        replies.write(reply)
        replies.flush()


def _forked(declared: str, content_type: str, raw: bytes) -> tuple[int, bytes]:
    """Read a file in a fork and return how that ended and what it said."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(ours)
            _confine()
            with os.fdopen(theirs, "wb") as out:
                _read(declared, content_type, raw, out)
            status = 0
        finally:
            os._exit(status)  # nothing of the parent's is run on the way out
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        reply = pipe.read()
    return os.waitpid(pid, 0)[1], reply


def _confine() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_CPU, MOST_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Only the soft limit for the processor's time: its signal says why the fork ended, the hard one's does not.
        resource.setrlimit(what, (allowed, hard if what == resource.RLIMIT_CPU else allowed))


def _read(declared: str, content_type: str, raw: bytes, out: BinaryIO) -> None:
    from domain.errors import ObjectFailed  # noqa: PLC0415
    from extractors import reading  # noqa: PLC0415
    from extractors.reading.layout import to_plain  # noqa: PLC0415

    try:
        try:
            said = json.dumps(to_plain(reading.read(raw, declared, content_type)))
        except MemoryError as error:  # too much for the reply alone
            message = "The file needs more memory to be read than one file may have. Split it."
            raise ObjectFailed(message, code="TOO_LARGE") from error
    except ObjectFailed as failed:
        said = json.dumps({"code": failed.code, "message": failed.message})
    out.write(said.encode())


if __name__ == "__main__":
    main()
