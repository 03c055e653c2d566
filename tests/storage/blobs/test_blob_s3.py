"""What the bucket promises beyond the port, on a real S3 server that checks signatures."""

import io
import time
from contextlib import ExitStack

import httpx
import pytest

from domain.errors import NotFound, StorageFull, Unavailable
from storage.blobs.s3 import S3Blobs
from tests.services.http import QuietHandler, serving
from tests.services.ports import free_port
from tests.services.seaweedfs import SECRET_KEY

pytestmark = pytest.mark.services


def test_a_signed_url_is_read_by_anybody_as_an_attachment(s3_blobs):
    s3_blobs.put("obj/page.html", b"<script>alert(1)</script>", "text/html")
    url = s3_blobs.read_url("obj/page.html", filename='Zeugnis "Ü".html', content_type="text/html")
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''Zeugnis%20%22%C3%9C%22.html"


def test_a_signed_url_ends_and_cannot_be_bent(s3_blobs):
    s3_blobs.put("mine", b"mine", "text/plain")
    s3_blobs.put("other", b"other", "text/plain")
    url = s3_blobs.read_url("mine", filename="x", content_type="text/plain", expires_seconds=1)
    for bent in (
        url.replace("/mine?", "/other?"),
        url.replace("X-Amz-Expires=1", "X-Amz-Expires=999"),
        url.replace("attachment", "inline"),
        url.replace("X-Amz-Signature=", "X-Amz-Signature=0"),
        url.partition("?")[0],
    ):
        assert bent != url
        assert httpx.get(bent).status_code == 403
    assert httpx.put(url, content=b"x").status_code == 403
    time.sleep(2.1)
    assert httpx.get(url).status_code == 403


def test_signed_urls_name_the_public_endpoint(seaweedfs_server, s3_blobs):
    store = S3Blobs(
        seaweedfs_server.bucket,
        endpoint_url=seaweedfs_server.endpoint,
        public_endpoint_url="https://files.peek.test",
        prefix="p",
    )
    url = store.read_url("key", filename="x", content_type="text/plain")
    assert url.startswith(f"https://files.peek.test/{seaweedfs_server.bucket}/p/key?")
    assert SECRET_KEY not in url
    store.close()


def test_two_prefixes_in_one_bucket_are_strangers(seaweedfs_server, s3_blobs):
    other = S3Blobs(seaweedfs_server.bucket, endpoint_url=seaweedfs_server.endpoint, prefix="/elsewhere/")
    s3_blobs.put("key", b"x", "text/plain")
    with pytest.raises(NotFound):
        other.get("key")
    other.close()


def test_more_keys_than_one_request_takes_are_deleted(s3_blobs):
    s3_blobs.put("k/0", b"x", "text/plain")
    s3_blobs.put("k/1500", b"x", "text/plain")
    s3_blobs.delete([f"k/{n}" for n in range(1501)])
    for key in ("k/0", "k/1500"):
        with pytest.raises(NotFound):
            s3_blobs.get(key)


def test_a_stream_larger_than_one_part_arrives_whole(s3_blobs):
    data = bytes(range(256)) * 70_000  # 17.9 MB
    kept = s3_blobs.put("large", io.BytesIO(data), "application/octet-stream")
    assert kept.size_bytes == len(data)
    assert s3_blobs.get("large") == data


def told_by(store: S3Blobs) -> Unavailable:
    """Return what every call says of a store that is out of order; they all say the same."""
    said = set()
    for call in (
        store.check,
        lambda: store.put("key", b"x", "text/plain"),
        lambda: store.put("key", io.BytesIO(b"x"), "text/plain"),
        lambda: store.get("key"),
        lambda: store.open("key"),
        lambda: store.delete(["key"]),
    ):
        with pytest.raises(Unavailable) as told:
            call()
        said.add(str(told.value))
        last = told.value
    store.close()
    assert len(said) == 1, said
    return last


def test_a_wrong_secret_is_told_with_the_bucket_and_without_the_secret(seaweedfs_server, s3_blobs, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-canary-8812")
    told = told_by(S3Blobs(seaweedfs_server.bucket, endpoint_url=seaweedfs_server.endpoint))
    assert seaweedfs_server.bucket in told.message
    assert "refuses our credentials" in told.message
    assert "canary" not in told.message


def test_missing_credentials_are_told_with_the_way_out(seaweedfs_server, s3_blobs, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = S3Blobs(seaweedfs_server.bucket, endpoint_url=seaweedfs_server.endpoint)
    assert "AWS_ACCESS_KEY_ID" in told_by(store).message
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        store.read_url("key", filename="x", content_type="text/plain")
    store.close()


def test_an_absent_bucket_is_no_absent_blob(seaweedfs_server, s3_blobs):
    told = told_by(S3Blobs("no-such-bucket", endpoint_url=seaweedfs_server.endpoint))
    assert "'no-such-bucket': the bucket does not exist" in told.message


def test_a_server_that_is_away_is_told_and_making_a_store_asks_nobody(s3_blobs):
    told = told_by(S3Blobs("bucket", endpoint_url=f"http://127.0.0.1:{free_port()}"))
    assert "connection to the S3 server failed" in told.message


class StumblingS3(QuietHandler):
    """A double of an S3 server in trouble: it gives every request the same answer."""

    status = 200
    body = b""
    announced = 0
    delay_seconds = 0.0
    asked = 0

    def answer(self):
        type(self).asked += 1
        time.sleep(self.delay_seconds)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(self.announced or len(self.body)))
        self.send_header("ETag", '"x"')
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_PUT = do_POST = do_HEAD = answer


@pytest.fixture
def stumbling(s3_blobs):
    """Return a maker of stores whose server stumbles in a given way."""
    with ExitStack() as stack:

        def make(**way):
            kind = type("Stumbling", (StumblingS3,), way)
            port = stack.enter_context(serving(kind))
            store = S3Blobs("bucket", endpoint_url=f"http://127.0.0.1:{port}", answer_seconds=0.3)
            stack.callback(store.close)
            return store, kind

        yield make


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>secret-canary-31</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (507, b"", StorageFull, "no room"),
        (507, error("InsufficientStorage"), StorageFull, "no room"),
        (403, error("QuotaExceeded"), StorageFull, "no room"),
        (403, error("AccessDenied"), Unavailable, r"refuses our credentials \(AccessDenied\)"),
        (500, error("InternalError"), Unavailable, r"answered 500 \(InternalError\)"),
        (503, error("SlowDown"), Unavailable, r"answered 503 \(SlowDown\)"),
        (400, error("Strange"), Unavailable, r"answered 400 \(Strange\)"),
    ],
)
def test_what_a_server_in_trouble_says_becomes_a_fact(stumbling, status, body, kind, words):
    store, server = stumbling(status=status, body=body)
    for call in (
        lambda: store.put("key", b"x", "text/plain"),
        lambda: store.put("key", io.BytesIO(b"x"), "text/plain"),
    ):
        with pytest.raises(kind, match=words) as told:
            call()
        assert isinstance(told.value, StorageFull) == (kind is StorageFull)
        assert "canary" not in told.value.message
    assert server.asked <= 4, "no request is tried more than twice"


def test_a_truncated_answer_is_never_taken_for_the_blob(stumbling):
    store, _ = stumbling(body=b"only half", announced=18)
    with pytest.raises(Unavailable):
        store.get("key")
    with pytest.raises(Unavailable):
        list(store.open("key"))


def test_a_server_that_hangs_costs_two_waits_and_no_more(stumbling):
    store, server = stumbling(delay_seconds=1.0)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="no answer in time"):
        store.get("key")
    assert time.monotonic() - start < 2.5
    assert server.asked == 2


def test_a_delete_that_the_server_refuses_is_told(stumbling):
    body = b"<DeleteResult><Error><Key>key</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    store, _ = stumbling(body=body)
    with pytest.raises(Unavailable, match=r"kept 1 blobs .*AccessDenied"):
        store.delete(["key"])
