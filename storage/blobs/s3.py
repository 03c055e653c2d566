"""Blobs in a bucket of an S3 server. Only plain requests are used, so that any server of that kind will do.

Credentials and region come from boto3's own chain (environment, shared files, instance role); none are kept here.
"""

import base64
import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import quote

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from urllib3.exceptions import HTTPError

from domain.errors import NotFound, OpenPeekError, StorageFull, Unavailable
from storage.blobs.keys import check_key
from storage.ports import BlobInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PIECE: Final = 1024 * 1024  # bytes
_KEYS_PER_DELETE: Final = 1_000  # S3's own limit
_LONGEST_URL_SECONDS: Final = 7 * 24 * 3600  # S3's own limit
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_FULL: Final = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded"})
# A larger stream goes up in parts of this size, so that it is never held in memory as a whole.
_PART: Final = 16 * 1024 * 1024
_FAILURES: Final = (BotoCoreError, ClientError, Boto3Error, HTTPError)


class S3Blobs:
    """A blob store in one bucket. Threads may share it. Making one contacts nobody.

    Args:
        bucket: it exists already.
        endpoint_url: address of the server as this process reaches it; Amazon's if None.
        public_endpoint_url: address of the same server as users reach it, for signed URLs; the other one if None.
        prefix: put before every key, so that several installations may share a bucket.
        answer_seconds: how long an answer, or the next piece of it, may take; each request is tried twice.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        prefix: str = "",
        answer_seconds: float = 10.0,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._endpoint_url = endpoint_url
        self._public_endpoint_url = public_endpoint_url or endpoint_url
        self._answer_seconds = answer_seconds
        self._clients: dict[str | None, S3Client] = {}
        self._making = threading.Lock()

    def put(self, key: str, data: bytes | BinaryIO, content_type: str) -> BlobInfo:
        """Keep bytes under a key, wholly or not at all.

        Raises:
            StorageFull: the server has no room.
            Unavailable: the server does not answer, or refuses us.
        """
        name = self._name(key)
        with self._told(key):
            if isinstance(data, bytes):
                kept = self._client().put_object(
                    Bucket=self._bucket, Key=name, Body=data, ContentType=content_type, ContentMD5=_md5_header(data)
                )
                return BlobInfo(len(data), _bare(kept["ETag"]))
            self._client().upload_fileobj(
                data,
                self._bucket,
                name,
                ExtraArgs={"ContentType": content_type},
                Config=TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False),
            )
        return self.info(key)

    def get(self, key: str) -> bytes:
        """Return the bytes of a key.

        Raises:
            NotFound: there are none.
            Unavailable: the server does not answer, refuses us, or breaks off.
        """
        with self._told(key):
            body = self._client().get_object(Bucket=self._bucket, Key=self._name(key))["Body"]
            with contextlib.closing(body):
                return body.read()

    def open(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key in pieces of at most 1 MiB; a missing key is told at once. Raises as `get`."""
        with self._told(key):
            body = self._client().get_object(Bucket=self._bucket, Key=self._name(key))["Body"]

        def pieces() -> Iterator[bytes]:
            with self._told(key), contextlib.closing(body):
                yield from body.iter_chunks(_PIECE)

        return pieces()

    def info(self, key: str) -> BlobInfo:
        """Return size and ETag of a key. Raises as `get`.

        The ETag is the MD5 in hexadecimal, except of what went up in parts or is encrypted by the server's keys.
        """
        with self._told(key):
            head = self._client().head_object(Bucket=self._bucket, Key=self._name(key))
        return BlobInfo(head["ContentLength"], _bare(head["ETag"]))

    def delete(self, keys: Sequence[str]) -> None:
        """Forget keys; absent ones are no error.

        Raises:
            Unavailable: the server does not answer, or refuses us; some keys may be gone.
        """
        names = [self._name(key) for key in keys]
        for start in range(0, len(names), _KEYS_PER_DELETE):
            some = names[start : start + _KEYS_PER_DELETE]
            with self._told(""):
                answer = self._client().delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in some], "Quiet": True}
                )
            refused = [one for one in answer.get("Errors", []) if one.get("Code") not in _ABSENT]
            if refused:
                raise self._unavailable(
                    f"it kept {len(refused)} blobs that were to be deleted ({refused[0].get('Code')})"
                )

    def read_url(self, key: str, *, filename: str, content_type: str, expires_seconds: int = 3600) -> str:
        """Return a URL at which the S3 server itself hands out the blob until it expires, at most for 7 days.

        Raises:
            Unavailable: there are no credentials to sign with.
        """
        asked = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        }
        with self._told(key):
            return self._client(public=True).generate_presigned_url(
                "get_object", Params=asked, ExpiresIn=min(expires_seconds, _LONGEST_URL_SECONDS)
            )

    def check(self) -> None:
        """Prove that the bucket can be written to and read from. Raises as `put`."""
        probe = f"probe/{os.urandom(8).hex()}"  # of its own, because several processes may look at once
        self.put(probe, b"ok", "text/plain")
        try:
            self.get(probe)
        except NotFound as error:
            raise self._unavailable("it does not have what was just written") from error
        self.delete([probe])

    def close(self) -> None:
        """Let go of the connections."""
        with self._making:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _client(self, *, public: bool = False) -> "S3Client":
        """Return the client of an endpoint, made when first needed: looking for credentials may ask the network."""
        endpoint = self._public_endpoint_url if public else self._endpoint_url
        with self._making:
            known = self._clients.get(endpoint)
            if known is None:
                session = boto3.session.Session()
                known = self._clients[endpoint] = session.client(
                    "s3",
                    endpoint_url=endpoint,
                    region_name=session.region_name or "us-east-1",
                    config=Config(
                        signature_version="s3v4",
                        connect_timeout=3,
                        read_timeout=self._answer_seconds,
                        retries={"mode": "standard", "total_max_attempts": 2},
                        max_pool_connections=32,
                        # Names of buckets are host names at Amazon's only.
                        s3={"addressing_style": "path" if endpoint else "auto"},
                        # Newer kinds of checksum are unknown to many servers that speak S3.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return known

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Tell boto3's errors as the port's."""
        try:
            yield
        except _FAILURES as error:
            raise self._translated(error, key) from error

    def _translated(self, error: Exception, key: str) -> OpenPeekError:
        # upload_fileobj wraps the answer of the server.
        answer = error if isinstance(error, ClientError) else error.__cause__ or error.__context__
        if isinstance(answer, ClientError):
            return self._answered(answer, key)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return self._unavailable("no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
            return self._unavailable("the S3 server gave no answer in time")
        if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | HTTPError):
            return self._unavailable("the connection to the S3 server failed")
        return self._unavailable(f"the S3 client failed ({type(error).__name__})")

    def _answered(self, answer: ClientError, key: str) -> OpenPeekError:
        code = str(answer.response.get("Error", {}).get("Code", ""))
        status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _ABSENT:
            return NotFound("blob", key)
        if code in _FULL or status == HTTPStatus.INSUFFICIENT_STORAGE:
            return StorageFull("blob store", "the S3 server has no room left")
        if code == "NoSuchBucket":
            return self._unavailable("the bucket does not exist")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return self._unavailable(f"the S3 server refuses our credentials ({code})")
        return self._unavailable(f"the S3 server answered {status} ({code})")

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable("blob store", f"bucket {self._bucket!r}: {reason}")


def _bare(etag: str) -> str:
    return etag.strip('"')


def _md5_header(data: bytes) -> str:
    """Let the server check what arrives; every S3 server knows this header."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
