"""Blob stores for the tests of this folder: one of each kind."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.blobs.files import FileBlobs
from storage.blobs.s3 import S3Blobs
from storage.ports import BlobStore
from tests.services.fixtures import seaweedfs_server  # noqa: F401 - a fixture
from tests.services.seaweedfs import SeaweedServer

SECRET = b"a secret of thirty-two bytes, ok"
_numbers = itertools.count(1)


@pytest.fixture
def file_blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs", secret=SECRET, public_url="http://peek.test:8000/")


@pytest.fixture
def s3_blobs(seaweedfs_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Blobs]:  # noqa: F811
    for name, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(name, value)
    store = S3Blobs(seaweedfs_server.bucket, endpoint_url=seaweedfs_server.endpoint, prefix=f"test/{next(_numbers)}")
    yield store
    store.close()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def blobs(request: pytest.FixtureRequest) -> BlobStore:
    """Every adapter of the port."""
    store: BlobStore = request.getfixturevalue({"folder": "file_blobs", "s3": "s3_blobs"}[request.param])
    return store
