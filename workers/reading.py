"""Reading files apart from this process: a hostile one can neither hang nor fill nor crash the worker.

A reader is a child process (`extractors/reading/child.py`) that serves one file at a time. Idle ones wait here for
the next file; one that had to be killed is replaced.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import extractors
from domain.errors import ObjectFailed, Unavailable
from extractors.reading import read_as
from extractors.reading.child import MOST_CPU_SECONDS, MOST_MEMORY, REPLY, REQUEST
from extractors.reading.formats import recognise
from extractors.reading.layout import MOST_BYTES, Reading, from_plain

# Below the minute after which work that does not move is taken to be stuck (workers/runtime.py).
MOST_SECONDS: Final = 50.0
_MOST_IDLE: Final = 4
_LONGEST_TYPE: Final = 1_000

_idle: list["_Reader"] = []
_lock = threading.Lock()


def read(raw: bytes, declared: str, content_type: str, *, seconds: float = MOST_SECONDS) -> Reading:
    """Return the text of a file and its places.

    Args:
        raw: the file.
        declared: the type of its blob: ``text`` or ``pdf``.
        content_type: as it came with the bytes.
        seconds: after so long it is given up.

    Raises:
        ObjectFailed: it cannot be read; the code says why. READING_TIMED_OUT, READER_CRASHED, TOO_LARGE and those
            of the formats.
        Unavailable: no process can be started.
    """
    format_ = recognise(raw, declared, content_type)
    if format_ == "text" or not raw or len(raw) > MOST_BYTES:
        return read_as(format_, raw, content_type)  # nothing is parsed
    request = (declared.encode(), content_type[:_LONGEST_TYPE].encode("utf-8", "replace"), raw)
    reader = _take()
    answer = reader.ask(request, seconds)
    if answer is None and not reader.timed_out:
        # The reader itself is gone, perhaps killed while it was idle: once more with a new one.
        reader = _Reader()
        answer = reader.ask(request, seconds)
    if answer is None:
        raise _timed_out() if reader.timed_out else _crashed("the reader was killed")
    _give_back(reader)
    status, said = answer
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise _timed_out()
    if status != 0:
        raise _crashed(f"it ended with status {status}")
    reply: dict[str, Any] = json.loads(said)
    if "code" in reply:
        raise ObjectFailed(reply["message"], code=reply["code"])
    return from_plain(reply)


def _timed_out() -> ObjectFailed:
    message = f"The file takes longer to be read than one file may: {MOST_CPU_SECONDS} s. Split it."
    return ObjectFailed(message, code="READING_TIMED_OUT")


def _crashed(how: str) -> ObjectFailed:
    limit = f"{MOST_MEMORY // 1024**2} MB of memory"
    return ObjectFailed(f"Reading the file failed within {limit}: {how}.", code="READER_CRASHED")


class _Reader:
    """A child process that reads one file at a time."""

    def __init__(self) -> None:
        root = str(Path(extractors.__file__).parent.parent)
        # Nothing of our environment: a parser that was taken over finds no secret there.
        environment = {"PYTHONPATH": root, "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        command = [sys.executable, "-P", "-m", "extractors.reading.child"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a group of its own: it is killed with its fork
            )
        except OSError as error:
            raise Unavailable("document reader", f"no process can be started: {error}") from error
        self.timed_out = False

    def ask(self, request: tuple[bytes, bytes, bytes], seconds: float) -> tuple[int, bytes] | None:
        """Return the wait status of the fork and what it said; None if this reader is gone."""
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        watch = threading.Timer(seconds, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            requests.write(REQUEST.pack(*map(len, request)))
            for part in request:
                requests.write(part)
            requests.flush()
            status, length = REPLY.unpack(_exactly(replies, REPLY.size))
            return status, _exactly(replies, length)
        except (OSError, EOFError):
            self.kill()
            return None
        finally:
            watch.cancel()

    def kill(self) -> None:
        """End this reader and whatever it is reading."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what could not be sent any more
                if pipe is not None:
                    pipe.close()

    def _give_up(self) -> None:
        self.timed_out = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _exactly(pipe: Any, length: int) -> bytes:
    found: bytes = pipe.read(length)
    if len(found) != length:
        raise EOFError
    return found


def _take() -> _Reader:
    with _lock:
        if _idle:
            return _idle.pop()
    return _Reader()


def _give_back(reader: _Reader) -> None:
    with _lock:
        if len(_idle) < _MOST_IDLE and not reader.timed_out:
            _idle.append(reader)
            return
    reader.kill()


@atexit.register
def close() -> None:
    """End all idle readers."""
    with _lock:
        gone, _idle[:] = list(_idle), []
    for reader in gone:
        reader.kill()


os.register_at_fork(after_in_child=_idle.clear)  # they belong to the parent
