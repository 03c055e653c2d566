"""The one place that knows which adapter stands behind which port. Mode is asked here and nowhere else."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from api.services import Services
from cli import schema, secrets
from cli.schema import SchemaBehind
from cli.secrets import Secrets
from cli.settings import Settings, SettingsWrong
from domain.errors import OpenPeekError
from extractors.contract import Canaries, ModelHome
from storage.blobs.files import FileBlobs
from storage.bundle import Storage
from storage.canaries import DatabaseCanaries
from storage.database import Database
from storage.embeddings import HttpEmbeddings
from storage.fetch import Fetcher
from storage.ports import BlobStore, JobQueue, VectorIndex
from storage.queues.relay import Relay
from storage.queues.threads import ThreadQueue
from storage.tables import items
from workers.loop import WorkLoop
from workers.runtime import Runtime, new_worker_id


@dataclass(slots=True)
class House:
    """A whole process' worth of parts, connected."""

    settings: Settings
    secrets: Secrets
    storage: Storage
    models: ModelHome
    relay: Relay
    bell: ThreadQueue | None

    @property
    def lease_ms(self) -> int:
        """How long a claim holds."""
        return int(self.settings.lease_seconds * 1000)

    def services(self, public_url: str, preloading: Callable[[], str | None] = lambda: None) -> Services:
        """Return what the API needs; ``preloading`` says why it should not be asked yet."""
        return Services(
            storage=self.storage,
            models=self.models,
            pepper=self.secrets.pepper,
            blob_secret=self.secrets.blob_secret,
            public_url=public_url,
            lease_ms=self.lease_ms,
            preloading=preloading,
        )

    def runtime(self) -> Runtime:
        """Return what a worker needs."""
        return Runtime(
            storage=self.storage,
            models=self.models,
            fetcher=Fetcher(allow=self.settings.allowed_networks, allow_http=bool(self.settings.allowed_networks)),
            worker_id=new_worker_id(),
            lease_ms=self.lease_ms,
        )

    def embedded_loop(self) -> WorkLoop | None:
        """Return the work loop of embedded mode, or None where workers are processes of their own."""
        if self.bell is None:
            return None
        with self.storage.database.writing() as uow:
            items.orphan_all(uow.session)  # the data folder is ours alone, so whoever held a lease is dead
        return WorkLoop(self.runtime(), self.bell.wait)

    def close(self) -> None:
        """Let go of everything."""
        self.relay.stop()
        if self.models.server is not None:
            self.models.server.close()
        self.storage.close()


def build(settings: Settings, *, public_url: str = "http://127.0.0.1:8000") -> House:
    """Connect everything. Only the database must answer; other parts may be away and come later.

    Raises:
        SettingsWrong: the database does not answer, or its schema is behind; the key is named.
        FolderInUse: another process has the data folder's vectors open.
    """
    load_plugins(settings)
    _make_folder(settings.data)
    found = secrets.load_secrets(settings)
    database = open_database(settings)
    bell = None if settings.is_distributed else ThreadQueue()
    queue = _queue(settings) if bell is None else bell
    relay = Relay(database, queue)
    storage = Storage(database, _blobs(settings, found, public_url), _vectors(settings), queue, relay.wake)
    return House(settings, found, storage, model_home(settings, DatabaseCanaries(database)), relay, bell)


def model_home(settings: Settings, canaries: Canaries | None = None) -> ModelHome:
    """Return where models lie, and what embeds with them."""
    server = None
    if settings.embeddings_url is not None:
        key = settings.embeddings_key
        server = HttpEmbeddings(
            settings.embeddings_url,
            key.get_secret_value() if key else None,
            revision=settings.embeddings_revision,
            name=settings.embeddings_model,
        )
    return ModelHome(str(settings.models_folder), settings.default_model, settings.device, server, canaries)


def open_database(settings: Settings, *, prepare: bool = True) -> Database:
    """Return the database, its schema made fit.

    Raises:
        SettingsWrong: it does not answer, or its schema is behind.
    """
    try:
        database = Database(settings.database)
        with database.reading() as session:
            session.execute(text("SELECT 1"))
        if prepare:
            schema.prepare(database)
    except SchemaBehind as error:
        raise SettingsWrong(error.message) from error
    except OpenPeekError as error:
        where = "OPENPEEK_DATABASE_URL" if settings.database_url else f"OPENPEEK_DATA ({settings.data})"
        message = f"{where}: {error.message} Is the server running, and are address, user and password right?"
        raise SettingsWrong(message) from error
    return database


def load_plugins(settings: Settings) -> None:
    """Import the operator's modules, which register what they bring.

    Raises:
        SettingsWrong: a module cannot be imported.
    """
    for name in (part.strip() for part in (settings.plugins or "").split(",")):
        if not name:
            continue
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SettingsWrong(f"OPENPEEK_PLUGINS: the module {name!r} cannot be imported: {error}") from error


@contextmanager
def told() -> Iterator[None]:
    """Turn errors that an operator can mend into one line and an exit code."""
    from storage.vectors.embedded import FolderInUse  # noqa: PLC0415 - 30 ms that `--help` does not need

    try:
        yield
    except (SettingsWrong, FolderInUse, OpenPeekError) as error:
        sys.stderr.write(f"openpeek: {error}\n")
        raise SystemExit(2) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsWrong(f"OPENPEEK_DATA: the folder {folder} cannot be made: {error.strerror}.") from error


def _blobs(settings: Settings, found: Secrets, public_url: str) -> BlobStore:
    if settings.blobs is not None and settings.blobs.startswith("s3://"):
        from storage.blobs.s3 import S3Blobs  # noqa: PLC0415 - boto3 is slow to import, and rarely needed

        bucket, _, prefix = settings.blobs.removeprefix("s3://").partition("/")
        return S3Blobs(
            bucket,
            prefix=prefix,
            endpoint_url=settings.s3_endpoint,
            public_endpoint_url=settings.s3_public_endpoint or settings.s3_endpoint,
        )
    folder = Path(settings.blobs) if settings.blobs else settings.data / "blobs"
    return FileBlobs(folder, secret=found.blob_secret, public_url=settings.public_url or public_url)


def _vectors(settings: Settings) -> VectorIndex:
    if settings.vectors_url is not None:
        from storage.vectors.server import QdrantIndex, connect  # noqa: PLC0415 - slow to import, and not always needed

        key = settings.vectors_api_key.get_secret_value() if settings.vectors_api_key else None
        return QdrantIndex(connect(settings.vectors_url.get_secret_value(), key))
    from storage.vectors.embedded import EdgeIndex  # noqa: PLC0415

    return EdgeIndex(settings.data / "vectors")


def _queue(settings: Settings) -> JobQueue:
    from storage.queues.celery import CeleryQueue  # noqa: PLC0415

    assert settings.queue_url is not None
    return CeleryQueue(settings.queue_url.get_secret_value())
