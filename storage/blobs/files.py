"""Blobs in a folder: written beside their place, made durable, then renamed into it."""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from domain.errors import NotFound, StorageFull, Unavailable
from storage.blobs.keys import check_key
from storage.ports import BlobInfo
from storage.signing import BlobGrant, sign_blob

_PIECE: Final = 1024 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEFTOVER_SECONDS: Final = 3_600


class FileBlobs:
    """A blob store in one folder.

    Args:
        folder: made if absent; a probe of its health is `check`.
        secret: signs the URLs under which blobs may be read.
        public_url: address of this server, as users reach it.
    """

    def __init__(self, folder: Path, *, secret: bytes, public_url: str) -> None:
        self._folder = folder
        self._secret = secret
        self._public_url = public_url.rstrip("/")
        with contextlib.suppress(OSError):  # `check` tells; the server starts all the same
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._remove_leftovers()

    def put(self, key: str, data: bytes | BinaryIO, content_type: str) -> BlobInfo:  # noqa: ARG002 - the row knows it
        """Keep bytes under a key, wholly or not at all."""
        target = self._path(key)
        partial = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.partial")
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        with _telling_failures():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with _create(partial) as file:
                    for piece in [data] if isinstance(data, bytes) else iter(lambda: data.read(_PIECE), b""):
                        file.write(piece)
                        digest.update(piece)
                        size += len(piece)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
                _sync_folder(target.parent)
            except OSError:
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
        return BlobInfo(size, digest.hexdigest())

    def get(self, key: str) -> bytes:
        """Return the bytes of a key."""
        with self._opened(key) as file, _telling_failures():
            return file.read()

    def open(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key in pieces of at most 1 MiB; a missing key is told before the first piece."""
        file = self._opened(key)
        return _pieces(file)

    def info(self, key: str) -> BlobInfo:
        """Return size and ETag of a key."""
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        for piece in self.open(key):
            digest.update(piece)
            size += len(piece)
        return BlobInfo(size, digest.hexdigest())

    def delete(self, keys: Sequence[str]) -> None:
        """Forget keys; absent ones are no error."""
        with _telling_failures():
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    self._path(key).unlink()

    def read_url(self, key: str, *, filename: str, content_type: str, expires_seconds: int = 3600) -> str:
        """Return a URL at which this server streams the blob until it expires."""
        grant = BlobGrant(check_key(key), filename, content_type, int(time.time()) + expires_seconds)
        return f"{self._public_url}/v1/blobs/{sign_blob(self._secret, grant)}"

    def check(self) -> None:
        """Prove that the folder can be written to and read from."""
        probe = "probe/health"
        self.put(probe, b"ok", "text/plain")
        self.get(probe)
        self.delete([probe])

    def _path(self, key: str) -> Path:
        *folders, name = check_key(key).split("/")
        # Two characters of a hash spread many files over 256 folders, so that none grows without bound.
        spread = hashlib.blake2b(key.encode(), digest_size=1).hexdigest()
        return self._folder.joinpath(*folders, spread, name)

    def _opened(self, key: str) -> BinaryIO:
        with _telling_failures():
            try:
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise NotFound("blob", key) from error
        return os.fdopen(descriptor, "rb")

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left half-written; a fresh one may still be in the making."""
        before = time.time() - _LEFTOVER_SECONDS
        for partial in self._folder.rglob(".*.partial"):
            with contextlib.suppress(OSError):
                if partial.stat().st_mtime < before:
                    partial.unlink()


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("blob store", "the disk of its folder is full") from error
        raise Unavailable("blob store", f"its folder cannot be used: {error.strerror}") from error
