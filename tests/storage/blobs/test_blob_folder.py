"""What the folder of blobs promises beyond the port: nothing half-written, no links followed, clear reasons."""

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import NotFound, StorageFull, Unavailable
from storage.blobs import files
from storage.blobs.files import FileBlobs
from tests.services.processes import package_folder

SECRET = b"a secret of thirty-two bytes, ok"


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def the_file(folder: Path) -> Path:
    (found,) = everything_in(folder)
    return found


def again(folder: Path) -> FileBlobs:
    return FileBlobs(folder, secret=SECRET, public_url="http://peek.test")


@pytest.mark.parametrize("failing", ["write", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_and_leaves_nothing(file_blobs, tmp_path, monkeypatch, failing, number):
    def full(*args, **kwargs):
        """A double of a system call on a full disk."""
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, failing, full)
    with pytest.raises(StorageFull) as told:
        file_blobs.put("key", b"some bytes", "text/plain")
    monkeypatch.undo()
    assert told.value.status == 507
    assert everything_in(tmp_path) == []
    file_blobs.put("key", b"there is room again", "text/plain")
    assert file_blobs.get("key") == b"there is room again"


def test_a_disk_that_fills_up_in_the_middle_of_a_write_keeps_the_old_blob(file_blobs, tmp_path, monkeypatch):
    file_blobs.put("key", b"old", "text/plain")
    write = os.write

    def half(descriptor, data):
        """A double of a disk with four bytes left: it takes them, and refuses the rest."""
        if len(data) <= 4:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[:4])

    monkeypatch.setattr(files.os, "write", half)
    with pytest.raises(StorageFull):
        file_blobs.put("key", b"new and long", "text/plain")
    monkeypatch.undo()
    assert file_blobs.get("key") == b"old"
    assert len(everything_in(tmp_path)) == 1


def test_a_write_in_several_steps_is_whole(file_blobs, monkeypatch):
    write = os.write
    # A double of a disk that takes three bytes at a time.
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    file_blobs.put("key", b"0123456789", "text/plain")
    assert file_blobs.get("key") == b"0123456789"


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    code = """
        import pathlib, resource, sys
        from domain.errors import StorageFull
        from storage.blobs.files import FileBlobs
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        store = FileBlobs(pathlib.Path(sys.argv[1]), secret=b"s", public_url="")
        try:
            store.put("key", bytes(200_000), "text/plain")
        except StorageFull:
            sys.exit(7)
    """
    done = run_python(code, tmp_path / "blobs")
    assert done.returncode == 7, done.stderr
    assert everything_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full_is_told_and_leaves_nothing(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        store = again(tmp_path / "blobs")
        store.put("small", b"x" * 1000, "text/plain")
        with pytest.raises(StorageFull):
            store.put("large", bytes(1_000_000), "text/plain")
        with pytest.raises(StorageFull):
            store.put("stream", io.BytesIO(bytes(1_000_000)), "text/plain")
        assert store.get("small") == b"x" * 1000
        assert len(everything_in(tmp_path)) == 1
        store.put("fits", b"y" * 1000, "text/plain")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_a_killed_writer_left_is_cleaned_at_the_next_start(tmp_path):
    folder = tmp_path / "blobs"
    code = """
        import os, pathlib, signal, sys
        from storage.blobs.files import FileBlobs
        class Deadly:
            def __init__(self):
                self.pieces = [b"half of it", None]
            def read(self, size):
                piece = self.pieces.pop(0)
                if piece is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return piece
        FileBlobs(pathlib.Path(sys.argv[1]), secret=b"s", public_url="").put("key", Deadly(), "text/plain")
    """
    done = run_python(code, folder)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(everything_in(folder)) == 1, "the half-written file is there"
    store = again(folder)
    assert everything_in(folder) == []
    with pytest.raises(NotFound):
        store.get("key")


def test_what_a_living_writer_is_writing_is_left_alone_by_a_start(file_blobs, tmp_path):
    class StartingAnother:
        """A double of a stream during which another process starts on the same folder."""

        def __init__(self):
            self.pieces = [b"first, ", b"second", b""]

        def read(self, size):
            again(tmp_path / "blobs")
            return self.pieces.pop(0)

    file_blobs.put("key", StartingAnother(), "text/plain")
    assert file_blobs.get("key") == b"first, second"


def test_a_start_between_creating_and_locking_costs_nothing(file_blobs, tmp_path, monkeypatch):
    lock = files.fcntl.flock
    starts = iter([True])

    def start_just_now(descriptor, operation):
        """A double of the unlucky moment: another process starts, and sweeps, right before the lock."""
        if operation == files.fcntl.LOCK_EX and next(starts, False):
            again(tmp_path / "blobs")
        return lock(descriptor, operation)

    monkeypatch.setattr(files.fcntl, "flock", start_just_now)
    file_blobs.put("key", b"data", "text/plain")
    assert file_blobs.get("key") == b"data"


def test_symbolic_links_are_never_followed(file_blobs, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_bytes(b"secret")
    file_blobs.put("key", b"ours", "text/plain")
    place = the_file(tmp_path / "blobs")

    place.unlink()
    place.symlink_to(outside / "key")
    with pytest.raises(Unavailable):
        file_blobs.get("key")
    file_blobs.put("key", b"ours again", "text/plain")  # replaces the link, not what it points at
    assert (outside / "key").read_bytes() == b"secret"
    assert file_blobs.get("key") == b"ours again"

    shard = place.parent
    place.unlink()
    shard.rmdir()
    shard.symlink_to(outside)
    for call in (
        lambda: file_blobs.get("key"),
        lambda: file_blobs.put("key", b"x", "text/plain"),
        lambda: file_blobs.delete(["key"]),
    ):
        with pytest.raises(Unavailable):
            call()
    assert (outside / "key").read_bytes() == b"secret"


def test_a_folder_that_cannot_be_made_fails_only_when_it_is_used_and_heals(tmp_path):
    obstacle = tmp_path / "blobs"
    obstacle.write_text("a file is in the way")
    store = again(obstacle / "inside")
    with pytest.raises(Unavailable, match=r"folder cannot be used: Not a directory"):
        store.check()
    obstacle.unlink()
    store.check()


def test_a_folder_that_vanished_is_told_as_such_and_not_as_blobs_that_are_gone(file_blobs, tmp_path):
    file_blobs.put("key", b"x", "text/plain")
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    for emptied in (False, True):
        if emptied:
            (tmp_path / "blobs").mkdir()  # a mount point without its disk
        for call in (
            lambda: file_blobs.get("key"),
            lambda: file_blobs.info("key"),
            lambda: file_blobs.put("key", b"y", "text/plain"),
        ):
            with pytest.raises(Unavailable, match=r"is its disk mounted\?"):
                call()


def test_a_read_only_folder_can_be_read_and_says_why_it_takes_nothing(file_blobs, monkeypatch):
    file_blobs.put("key", b"x", "text/plain")
    opened = os.open

    def read_only(path, flags, *args, **kwargs):
        """A double of a read-only disk (root may write wherever mode bits say no)."""
        if flags & (os.O_CREAT | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", read_only)
    assert file_blobs.get("key") == b"x"
    with pytest.raises(Unavailable, match="Read-only file system"):
        file_blobs.check()


def test_a_put_is_on_the_disk_before_it_returns(file_blobs, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*args, _real=real, _name=name, **kwargs):
            """A double that writes down the order of calls."""
            calls.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(files.os, name, noted)
    file_blobs.put("new-shard", b"x", "text/plain")
    assert calls in (["fsync", "fsync", "replace", "fsync"], ["fsync", "replace", "fsync"])
    calls.clear()
    file_blobs.put("new-shard", b"y", "text/plain")
    assert calls == ["fsync", "replace", "fsync"], "file, its new name, its folder"


def test_the_etag_is_right_on_a_disk_without_attributes(file_blobs, monkeypatch):
    def none(*args):
        """A double of a disk that keeps no attributes."""
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(files.os, "setxattr", none, raising=False)
    monkeypatch.setattr(files.os, "getxattr", none, raising=False)
    file_blobs.put("key", b"data", "text/plain")
    assert file_blobs.info("key").etag == hashlib.md5(b"data").hexdigest()


def test_an_abandoned_reader_holds_no_file(file_blobs):
    file_blobs.put("key", b"data", "text/plain")
    descriptors = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")
    before = len(list(descriptors.iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(50):
            file_blobs.open("key")  # never read
            next(file_blobs.open("key"))  # left in the middle
    assert len(list(descriptors.iterdir())) <= before


def test_threads_that_write_one_key_leave_one_whole_version(file_blobs, tmp_path):
    versions = [bytes([n]) * 100_000 for n in range(8)]
    seen = set()

    def write(data):
        for _ in range(5):
            file_blobs.put("key", data, "text/plain")

    threads = [threading.Thread(target=write, args=(data,)) for data in versions]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        try:
            seen.add(file_blobs.get("key"))
        except NotFound:
            continue
    for thread in threads:
        thread.join()
    assert seen <= set(versions)
    assert file_blobs.get("key") in versions
    assert len(everything_in(tmp_path)) == 1


KEYS = st.from_regex(r"[a-z0-9_-][a-z0-9_-]{0,8}(/[a-z0-9_-][a-z0-9_-]{0,8}){0,3}", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(kept=st.dictionaries(KEYS, st.binary(max_size=50), max_size=20), forgotten=st.sets(KEYS, max_size=5))
def test_a_folder_is_a_dictionary(tmp_path_factory, kept, forgotten):
    store = again(tmp_path_factory.mktemp("model"))
    for key, data in kept.items():
        store.put(key, data, "text/plain")
    store.delete(sorted(forgotten))
    for key, data in kept.items():
        if key in forgotten:
            with pytest.raises(NotFound):
                store.get(key)
        else:
            assert store.get(key) == data


def run_python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own, with the repository on its path."""
    root = str(package_folder("storage").parent)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root},
        timeout=30,
        check=False,
    )
