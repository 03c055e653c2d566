"""Collections: a source and one configured extractor."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Boolean, Index, Integer, String, Text, func, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.features import FeatureURI, VectorSpec
from domain.json_types import Fields
from storage.database import JsonColumn, JsonList, JsonObject, Row
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import NamedRow, add_named, living, require_named, within


class CollectionRow(NamedRow, Row):
    """A collection. Which model, revision and width it has is decided once and never changed.

    ``source`` is ``{"type": "bucket", "bucket_ids": […]}`` or ``{"type": "collection", "collection_ids": […]}``
    with ids only. ``revision`` and the hashes are empty until the weights have first been seen.
    """

    __tablename__ = "collections"
    __table_args__ = (
        Index(
            "ux_collections_name",
            "organization_id",
            "namespace_id",
            "name",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )
    description: Mapped[str | None] = mapped_column(Text)
    source: Mapped[JsonObject] = mapped_column(JsonColumn)
    extractor_name: Mapped[str] = mapped_column(String(100))
    extractor_version: Mapped[str] = mapped_column(String(10))
    parameters: Mapped[JsonObject] = mapped_column(JsonColumn)
    input_mappings: Mapped[JsonObject] = mapped_column(JsonColumn)
    field_passthrough: Mapped[JsonList] = mapped_column(JsonColumn)
    include_all_source_fields: Mapped[bool] = mapped_column(Boolean, default=False)
    input_schema: Mapped[JsonObject] = mapped_column(JsonColumn)
    output_schema: Mapped[JsonObject] = mapped_column(JsonColumn)
    settings: Mapped[JsonObject] = mapped_column(JsonColumn)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    lifecycle_reason: Mapped[str | None] = mapped_column(Text)
    model_id: Mapped[str | None] = mapped_column(String(200))
    inference_name: Mapped[str | None] = mapped_column(String(100))
    revision: Mapped[str | None] = mapped_column(String(64))
    weights_sha256: Mapped[str | None] = mapped_column(String(64))
    tokenizer_sha256: Mapped[str | None] = mapped_column(String(64))
    dimensions: Mapped[int | None] = mapped_column(Integer)
    precision: Mapped[str | None] = mapped_column(String(10))
    document_prefix: Mapped[str | None] = mapped_column(Text)

    @property
    def extractor_id(self) -> str:
        """Name and version of the extractor, as the contract writes them together."""
        return f"{self.extractor_name}_{self.extractor_version}"

    @property
    def feature_uri(self) -> FeatureURI | None:
        """The address of this collection's vectors, or None if it has none."""
        if self.inference_name is None:
            return None
        return FeatureURI(self.extractor_name, self.extractor_version, self.inference_name)

    @property
    def spec(self) -> VectorSpec | None:
        """What its vectors are, or None as long as nobody has seen the weights (or there are none)."""
        if not (self.model_id and self.inference_name and self.revision and self.dimensions):
            return None
        precision = self.precision or "fp32"
        return VectorSpec(self.model_id, self.inference_name, self.revision, self.dimensions, precision)

    @property
    def model(self) -> Fields | None:
        """Everything that decides its vectors, as far as it is known, or None if it has none."""
        known: Fields = {
            "model_id": self.model_id,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "document_prefix": self.document_prefix,
            "precision": self.precision,
            "dimensions": self.dimensions,
        }
        return {key: value for key, value in known.items() if value is not None} or None

    def source_ids(self, kind: str) -> list[str]:
        """Return the ids of the buckets or collections this one reads; empty for the other kind."""
        if self.source.get("type") != kind:
            return []
        ids = self.source.get(f"{kind}_ids")
        return [str(item) for item in ids] if isinstance(ids, list) else []


HINT = "List them with POST /v1/collections/list."


def add(session: Session, row: CollectionRow) -> CollectionRow:
    """Insert a collection. Raises AlreadyExists when the name is taken."""
    return add_named(session, row, "collection")


def require(session: Session, scope: Scope, identifier: str) -> CollectionRow:
    """Return a collection by id or name. Raises NotFound."""
    return require_named(session, CollectionRow, scope, "collection", identifier, HINT)


def all_living(session: Session, scope: Scope) -> list[CollectionRow]:
    """Return every living collection of a namespace, oldest first."""
    statement = living(CollectionRow, scope).order_by(CollectionRow.created_at, CollectionRow.id)
    return list(session.scalars(statement))


def load(session: Session, scope: Scope, collection_ids: Sequence[str]) -> list[CollectionRow]:
    """Return the living ones among these ids."""
    return list(session.scalars(living(CollectionRow, scope).where(CollectionRow.id.in_(collection_ids))))


def get(session: Session, collection_id: str) -> CollectionRow | None:
    """Return a collection for a worker, living or not."""
    return session.get(CollectionRow, collection_id)


def list_page(session: Session, scope: Scope, request: PageRequest, search: str | None = None) -> Page[CollectionRow]:
    """Return one page of a namespace's collections, with their number."""
    statement = living(CollectionRow, scope)
    if search:
        statement = statement.where(func.lower(CollectionRow.name).contains(search.lower(), autoescape=True))
    return page(session, statement, (CollectionRow.created_at, CollectionRow.id), request, count=True)


def bind_model(session: Session, collection_id: str, revision: str, weights_sha256: str, tokenizer_sha256: str) -> None:
    """Record which weights embed for a collection, the first time they are seen; later calls change nothing."""
    statement = update(CollectionRow).where(CollectionRow.id == collection_id, CollectionRow.revision.is_(None))
    session.execute(
        statement.values(revision=revision, weights_sha256=weights_sha256, tokenizer_sha256=tokenizer_sha256)
    )


def models_in_use(session: Session) -> list[CollectionRow]:
    """Return one living collection for every model, revision and precision in use."""
    statement = select(CollectionRow).where(CollectionRow.state == "active", CollectionRow.model_id.is_not(None))
    seen: dict[tuple[str | None, str | None, str | None], CollectionRow] = {}
    for row in session.scalars(statement):
        seen.setdefault((row.model_id, row.revision, row.precision), row)
    return list(seen.values())


def fed_by(rows: Iterable[CollectionRow], bucket_id: str) -> list[list[CollectionRow]]:
    """Return the tiers of collections that a bucket feeds: first those on it, then those on these, and so on."""
    rest = [row for row in rows if row.enabled]
    tiers: list[list[CollectionRow]] = []
    reached: set[str] = set()
    tier = [row for row in rest if bucket_id in row.source_ids("bucket")]
    while tier:
        tiers.append(tier)
        reached.update(row.id for row in tier)
        above = {row.id for row in tier}
        tier = [row for row in rest if row.id not in reached and above.intersection(row.source_ids("collection"))]
    return tiers


def mark_deleting(session: Session, scope: Scope, collection_id: str) -> None:
    """Hide a collection; the sweep removes its points and rows."""
    statement = update(CollectionRow).where(within(CollectionRow, scope), CollectionRow.id == collection_id)
    session.execute(statement.values(state="deleting"))


def note_lost_source(session: Session, scope: Scope, row: CollectionRow, reason: str) -> None:
    """Say on a collection that what it reads has been deleted."""
    statement = update(CollectionRow).where(within(CollectionRow, scope), CollectionRow.id == row.id)
    session.execute(statement.values(lifecycle_reason=reason))
