"""What every blob store promises."""

import hashlib
import io
import os

import pytest

from domain.errors import NotFound

SIZES = [0, 1, 5 * 1024 * 1024]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_comes_back_whole(blobs, size):
    data = os.urandom(size)
    kept = blobs.put("objects/obj_1/content.txt", data, "text/plain")
    assert blobs.get("objects/obj_1/content.txt") == data
    assert b"".join(blobs.open("objects/obj_1/content.txt")) == data
    assert kept.size_bytes == size
    assert kept.etag == hashlib.md5(data).hexdigest()
    assert blobs.info("objects/obj_1/content.txt") == kept


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_is_kept_like_bytes(blobs, size):
    data = os.urandom(size)
    kept = blobs.put("stream", io.BytesIO(data), "application/octet-stream")
    assert blobs.get("stream") == data
    assert (kept.size_bytes, kept.etag) == (size, hashlib.md5(data).hexdigest())


def test_a_blob_is_read_in_pieces_of_at_most_a_mebibyte(blobs):
    blobs.put("large", bytes(3 * 1024 * 1024 + 7), "text/plain")
    sizes = [len(piece) for piece in blobs.open("large")]
    assert sum(sizes) == 3 * 1024 * 1024 + 7
    assert max(sizes) <= 1024 * 1024


def test_a_key_that_exists_is_replaced(blobs):
    blobs.put("key", b"the first, and longer one", "text/plain")
    blobs.put("key", b"second", "text/plain")
    assert blobs.get("key") == b"second"
    assert blobs.info("key").size_bytes == 6


def test_a_reader_that_began_before_a_replacement_sees_one_version_only(blobs):
    old, new = b"a" * 3_000_000, b"b" * 3_000_000
    blobs.put("key", old, "text/plain")
    pieces = blobs.open("key")
    first = next(pieces)
    blobs.put("key", new, "text/plain")
    assert first + b"".join(pieces) == old


def test_a_stream_that_breaks_leaves_the_old_blob(blobs):
    class Breaking(io.RawIOBase):
        """A double of an upload whose sender goes away."""

        def readable(self):
            return True

        def read(self, size=-1):
            raise ConnectionAbortedError("the sender went away")

    blobs.put("key", b"old", "text/plain")
    with pytest.raises(ConnectionAbortedError):
        blobs.put("key", Breaking(), "text/plain")
    assert blobs.get("key") == b"old"


@pytest.mark.parametrize("ask", ["get", "open", "info"])
def test_an_absent_key_is_not_found(blobs, ask):
    blobs.put("present", b"x", "text/plain")
    with pytest.raises(NotFound, match="absent"):
        getattr(blobs, ask)("absent")


def test_deleted_keys_are_gone_and_absent_ones_are_no_error(blobs):
    blobs.put("one", b"1", "text/plain")
    blobs.put("two", b"2", "text/plain")
    blobs.put("three", b"3", "text/plain")
    blobs.delete(["one", "never/was", "two"])
    blobs.delete(["one"])
    blobs.delete([])
    for gone in ("one", "two"):
        with pytest.raises(NotFound):
            blobs.get(gone)
    assert blobs.get("three") == b"3"


def test_a_key_may_begin_with_another(blobs):
    blobs.put("a", b"1", "text/plain")
    blobs.put("a/b", b"2", "text/plain")
    blobs.put("a/b/c", b"3", "text/plain")
    assert [blobs.get(key) for key in ("a", "a/b", "a/b/c")] == [b"1", b"2", b"3"]


EVIL_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "../secret.key",
    "a/../../secret.key",
    "a/..",
    "..",
    ".",
    "a//b",
    "a/",
    "a/./b",
    ".incoming/x",
    "a/.hidden",
    "a..b",
    "a\\..\\b",
    "%2e%2e/x",
    "a\x00b",
    "a\n",
    "A",
    "a b",
    "a+b",
    "ｅ",  # noqa: RUF001 - a full-width letter, on purpose
    "a/‥/b",
    "C:x",
    "x" * 201,
]


@pytest.mark.parametrize("key", EVIL_KEYS)
def test_a_key_that_is_not_ours_is_refused_by_every_call(blobs, key):
    calls = [
        lambda: blobs.put(key, b"x", "text/plain"),
        lambda: blobs.get(key),
        lambda: blobs.open(key),
        lambda: blobs.info(key),
        lambda: blobs.delete([key]),
        lambda: blobs.read_url(key, filename="x", content_type="text/plain"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a blob key"):
            call()


def test_a_healthy_store_passes_its_check_and_keeps_nothing_of_it(blobs):
    blobs.check()
    blobs.check()
