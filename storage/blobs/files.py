"""Blobs in a folder: written beside their place, made durable, then renamed into it.

    FOLDER/ab/obj_01+content.txt   the blob obj_01/content.txt; ab is two hexadecimal digits of a hash of its key
    FOLDER/.incoming/…             what is being written; also the sign that this is a folder of blobs

Every file is reached through descriptors of its folders, and no symbolic link inside FOLDER is followed.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from domain.errors import NotFound, StorageFull, Unavailable
from storage.blobs.keys import check_key
from storage.ports import BlobInfo
from storage.signing import BlobGrant, sign_blob

_PIECE: Final = 1024 * 1024  # bytes
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_INCOMING: Final = ".incoming"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INNER_FOLDER: Final = _FOLDER | os.O_NOFOLLOW
# Keeps `info` from reading a whole file. Where a disk has no such attributes, the file is read.
_ETAG_ATTRIBUTE: Final = "user.openpeek.md5"


class FileBlobs:
    """A blob store in one folder; several processes may share it.

    Making one touches the folder, and never fails because of it: `check` tells what is wrong, and a folder that
    is put right later is used from then on.

    Args:
        folder: made if absent.
        secret: signs the URLs under which blobs may be read.
        public_url: address of this server, as users reach it.
    """

    def __init__(self, folder: Path, *, secret: bytes, public_url: str) -> None:
        self._folder = folder
        self._secret = secret
        self._public_url = public_url.rstrip("/")
        self._prepared = False
        with contextlib.suppress(Unavailable):
            self._prepare()

    def put(self, key: str, data: bytes | BinaryIO, content_type: str) -> BlobInfo:  # noqa: ARG002 - the row knows it
        """Keep bytes under a key, wholly or not at all; durable once this returns.

        Raises:
            StorageFull: the disk, a quota or a limit on file sizes is exhausted; nothing is left behind.
            Unavailable: the folder is missing or cannot be written to.
        """
        shard, name = _place(key)
        with self._opened_root() as root, _Incoming(root) as incoming:
            info = incoming.write(data)
            with _told(), _opened_shard(root, shard, make=True) as folder:
                incoming.move_to(folder, name)
                os.fsync(folder)
        return info

    def get(self, key: str) -> bytes:
        """Return the bytes of a key.

        Raises:
            NotFound: there are none.
            Unavailable: the folder is missing or cannot be read.
        """
        with _told(), self._file(key) as file:
            return file.read()

    def open(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key in pieces of at most 1 MiB; a missing key is told at once. Raises as `get`."""
        return _Pieces(self._file(key))

    def info(self, key: str) -> BlobInfo:
        """Return size and ETag (MD5 in hexadecimal) of a key. Raises as `get`."""
        with _told(), self._file(key) as file:
            return BlobInfo(os.fstat(file.fileno()).st_size, _kept_etag(file.fileno()) or _digest(file))

    def delete(self, keys: Sequence[str]) -> None:
        """Forget keys; absent ones are no error.

        Raises:
            Unavailable: the folder is missing or cannot be written to; some keys may be gone.
        """
        with self._opened_root() as root:
            for key in keys:
                shard, name = _place(key)
                with _told(), contextlib.suppress(FileNotFoundError), _opened_shard(root, shard) as folder:
                    os.unlink(name, dir_fd=folder)

    def read_url(self, key: str, *, filename: str, content_type: str, expires_seconds: int = 3600) -> str:
        """Return a URL at which this server streams the blob until it expires."""
        grant = BlobGrant(check_key(key), filename, content_type, int(time.time()) + expires_seconds)
        return f"{self._public_url}/v1/blobs/{sign_blob(self._secret, grant)}"

    def close(self) -> None:
        """Do nothing: a folder holds no connection."""

    def check(self) -> None:
        """Prove that the folder can be written to and read from. Raises as `put`."""
        probe = f"probe/{os.urandom(8).hex()}"  # of its own, because several processes may look at once
        self.put(probe, b"ok", "text/plain")
        self.get(probe)
        self.delete([probe])

    def _prepare(self) -> None:
        if self._prepared:
            return
        with _told():
            (self._folder / _INCOMING).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prepared = True
            _remove_leftovers(self._folder / _INCOMING)

    @contextlib.contextmanager
    def _opened_root(self) -> Iterator[int]:
        self._prepare()
        with _told():
            root = os.open(self._folder, _FOLDER)
        try:
            yield root
        finally:
            os.close(root)

    def _file(self, key: str) -> BinaryIO:
        shard, name = _place(key)
        with self._opened_root() as root, _told():
            try:
                with _opened_shard(root, shard) as folder:
                    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb")
            except FileNotFoundError as error:
                # An empty folder where the blobs' disk should be mounted must not pass for blobs that are gone.
                os.stat(_INCOMING, dir_fd=root, follow_symlinks=False)
                raise NotFound("blob", key) from error


class _Incoming:
    """A file in the making. It is locked while its writer lives, which tells it from what a crash left behind."""

    def __init__(self, root: int) -> None:
        self._root = root

    def __enter__(self) -> Self:
        with _told():
            self._folder = os.open(_INCOMING, _INNER_FOLDER, dir_fd=self._root)
            try:
                self._create()
            except OSError:
                os.close(self._folder)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):  # as it is when the file has moved to its place
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    def write(self, data: bytes | BinaryIO) -> BlobInfo:
        """Write the bytes and wait until the disk has them. Errors of reading `data` pass unchanged."""
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        for piece in [data] if isinstance(data, bytes) else iter(lambda: data.read(_PIECE), b""):
            with _told():
                _write_all(self._descriptor, piece)
            digest.update(piece)
            size += len(piece)
        with _told():
            _keep_etag(self._descriptor, digest.hexdigest())
            os.fsync(self._descriptor)
        return BlobInfo(size, digest.hexdigest())

    def move_to(self, folder: int, name: str) -> None:
        """Put the file in its place."""
        os.replace(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder)

    def _create(self) -> None:
        while True:
            self._name = os.urandom(16).hex()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._name, flags, 0o600, dir_fd=self._folder)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if os.fstat(self._descriptor).st_nlink:
                return
            os.close(self._descriptor)  # swept away by a process that started between our two calls


class _Pieces(Iterator[bytes]):
    """The bytes of a file, piece by piece; it closes the file at the end, and also if nobody reads so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __next__(self) -> bytes:
        with _told():
            piece = b"" if self._file.closed else self._file.read(_PIECE)
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __del__(self) -> None:
        self.close()


def _place(key: str) -> tuple[str, str]:
    """Return folder and file name of a key. A name has no `+` of its own, so no two keys share one."""
    shard = hashlib.blake2b(check_key(key).encode(), digest_size=1).hexdigest()
    return shard, key.replace("/", "+")


@contextlib.contextmanager
def _descriptor(path: str | Path, flags: int, *, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_shard(root: int, shard: str, *, make: bool = False) -> Iterator[int]:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(shard, 0o700, dir_fd=root)
            os.fsync(root)
    with _descriptor(shard, _INNER_FOLDER, within=root) as folder:
        yield folder


def _remove_leftovers(incoming: Path) -> None:
    """Remove what dead writers left half-written."""
    with os.scandir(incoming) as entries:
        for entry in entries:
            with (
                contextlib.suppress(OSError),  # locked: its writer lives; gone: another process was faster
                _descriptor(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as descriptor,
            ):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry.path).unlink()


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:  # a disk that fills up takes the beginning first, and refuses only the next call
        rest = rest[os.write(descriptor, rest) :]


def _keep_etag(descriptor: int, etag: str) -> None:
    if hasattr(os, "setxattr"):
        with contextlib.suppress(OSError):
            os.setxattr(descriptor, _ETAG_ATTRIBUTE, etag.encode())


def _kept_etag(descriptor: int) -> str | None:
    if hasattr(os, "getxattr"):
        with contextlib.suppress(OSError):
            return os.getxattr(descriptor, _ETAG_ATTRIBUTE).decode()
    return None


def _digest(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell failures of the disk as the port's errors; those of the port itself pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("blob store", "the disk of its folder is full") from error
        reason = error.strerror or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "it is missing; is its disk mounted?"
        raise Unavailable("blob store", f"its folder cannot be used: {reason}") from error
