"""Real servers as children of the test run: started in a folder of their own, and gone when the run is gone."""

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar, Self

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_open: "set[Server]" = set()


class Server:
    """A server that tests may start, stop, kill, freeze and start again; its data outlives all but `close`.

    A kind of server says in `command` how it is started, in `answers` how one sees that it is ready, and in
    `prepare` what has to exist before its first start.

    Attributes:
        folder: everything it writes, removed by `close`; short enough for Unix sockets (107 bytes).
        log: what it printed, of all its starts.
    """

    name: ClassVar[str]
    ready_within_seconds: ClassVar[float] = 10.0
    stop_within_seconds: ClassVar[float] = 10.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Sent by the kernel when the thread that started the server is no more: start servers on threads that last.
    orphan_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"openpeek-{self.name}-", dir=_short_temporary_folder()))
        # A folder of mode 0700 could not be reached by a server that gives up root's rights.
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        _open.add(self)

    def command(self) -> list[str]:
        """Return program and arguments, which stay in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Say whether the server does its work; an error means no."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what must exist before the first start."""

    def user(self) -> int | None:
        """Return the user that it runs as, if not as ours."""
        return None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or does not answer in time; the message shows the end of its log.
        """
        assert self._process is None, f"{self.name} is running already"
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self._process = self.spawn(self.command())
        deadline = time.monotonic() + self.ready_within_seconds
        while True:
            ended = self._process.poll() is not None
            if not ended and self._is_ready():
                return self
            if ended or time.monotonic() > deadline:
                what = f"ended with {self._process.returncode}" if ended else "does not answer"
                printed = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{self.name} {what}:\n{printed}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop it if it runs, and start it on the data and ports that it had."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it and its children: connections stay open, and nothing answers."""
        for pid in [self.pid, *_descendants(self.pid)]:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        for pid in [*_descendants(self.pid), self.pid]:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove all it wrote."""
        _open.discard(self)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a program in the folder, as the right user, printing into the log, dying with this process."""
        user = self.user()
        orphan_signal = int(self.orphan_signal)

        def die_with_parent() -> None:
            if _LIBC is not None:
                _LIBC.prctl(_PR_SET_PDEATHSIG, orphan_signal)

        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=user,
                group=None if user is None else _group_of(user),
                extra_groups=None if user is None else [],
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
            )

    def _is_ready(self) -> bool:
        try:
            return self.answers()
        except Exception:
            return False

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = _descendants(process.pid)
        for sent in (sign, signal.SIGKILL):
            process.send_signal(sent)
            for pid in [*children, process.pid]:  # what is frozen hears of its end only when it goes on
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            try:
                process.wait(self.stop_within_seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        _outlive(children)


def package_folder(package: str) -> Path:
    """Return where an installed package lies, without importing it: some print or warn when imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"The package {package} is not installed; it carries a server that the tests start.")
    return Path(found.submodule_search_locations[0])


def _short_temporary_folder() -> str:
    found = tempfile.gettempdir()
    return found if len(found) <= 40 else "/tmp"


def _group_of(user: int) -> int:
    return pwd.getpwuid(user).pw_gid


def _descendants(pid: int) -> list[int]:
    """Return the children of a process and theirs; none where there is no /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in brackets may itself have brackets and spaces.
            state, parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def _outlive(pids: list[int], seconds: float = 2.0) -> None:
    """Wait for orphaned children to see that they are alone; then end them."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        while _runs(pid):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.005)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


@atexit.register
def _close_all() -> None:
    for server in list(_open):
        server.close()
