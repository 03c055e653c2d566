"""The stage ``feature_search``: search by meaning, with one or several queries."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from domain.documents import Document
from domain.errors import Invalid
from domain.features import FeatureURI
from domain.filters import Filter, both, parse
from domain.json_types import Json, is_vector
from retrieval.contract import Category, Context, SearchRequest, StageParameters
from retrieval.fusion import reciprocal_rank
from retrieval.registry import register

MAX_ARRIVED: Final = 50_000
_COLLECTIONS: Final = AliasChoices("collection_identifiers", "collection_ids")
_TEXT_MODES: Final = frozenset({"text", "content"})
_ONE_SEARCH: Final = ("feature_uri", "query", "input", "top_k", "min_score", "optional", "on_empty")


def _without_null(raw: Any) -> Any:
    return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


def _without_null_items(raw: Any) -> Any:
    return [item for item in raw if item is not None] if isinstance(raw, list) else raw


class Search(BaseModel):
    """One search."""

    model_config = ConfigDict(extra="allow", frozen=True)
    feature_uri: str | None = Field(
        None,
        max_length=400,
        validation_alias=AliasChoices("feature_uri", "uri", "feature_address"),
        description="Which vectors; by default those of the only text model there is.",
    )
    query: Json = Field(
        None,
        validation_alias=AliasChoices("query", "input"),
        description="A text, a vector, or {input_mode: text | content | vector, value}.",
    )
    top_k: int = Field(
        100,
        ge=1,
        le=5_000,
        validation_alias=AliasChoices("top_k", "limit"),
        description="The most hits of this search.",
    )
    min_score: float | None = Field(None, description="The least cosine similarity of a hit.")
    weight: float = Field(
        1.0, ge=0, le=1_000, allow_inf_nan=False, description="What this search counts in the fusion."
    )
    optional: bool = Field(default=False, description="Whether the search is left out when its query is empty.")
    on_empty: Literal["error", "skip", "random"] = Field(
        "error", description="What an empty query does: error or skip."
    )
    collection_identifiers: list[str] = Field(
        default_factory=list,
        validation_alias=_COLLECTIONS,
        description="Ids or names; by default all of the retriever.",
    )
    filters: Json = Field(None, description="A filter for this search alone.")
    lexical: Json = Field(None, description="Not offered yet.")
    query_preprocessing: Json = Field(None, description="Not offered yet.")

    _null_means_default = model_validator(mode="before")(_without_null)
    _no_null_collections = field_validator("collection_identifiers", mode="before")(_without_null_items)

    @property
    def may_be_left_out(self) -> bool:
        """Whether an empty query is no error."""
        return self.optional or self.on_empty == "skip"


class FeatureSearchParameters(StageParameters):
    """Up to ten searches and how they are fused."""

    searches: list[Search] = Field(min_length=1, max_length=10, description="The searches.")
    final_top_k: int = Field(25, ge=1, le=5_000, description="The most documents that go on.")
    fusion: Literal["rrf", "dbsf", "weighted", "max", "learned"] = Field(
        "rrf", description="rrf; others are not offered."
    )
    collection_identifiers: list[str] = Field(
        default_factory=list,
        validation_alias=_COLLECTIONS,
        description="Ids or names; by default all of the retriever.",
    )
    filters: Json = Field(None, description="A filter for every search.")
    group_by: Json = Field(None, description="Not offered yet.")
    facets: Json = Field(None, description="Not offered yet.")
    learning_config: Json = Field(None, description="Not offered yet.")

    _no_null_collections = field_validator("collection_identifiers", mode="before")(_without_null_items)

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, raw: Any) -> Any:
        """Turn the flat spellings into the one with ``searches``; null means default."""
        if not isinstance(raw, dict):
            return raw
        given: dict[str, Any] = _without_null(raw)
        given.pop("feature_extractor", None)  # says {"type": "text"}, the only kind there is
        if "searches" in given:
            return given
        limit = given.pop("limit", given.get("top_k"))
        listed = given.pop("feature_uris", None)
        one = {key: given.pop(key) for key in _ONE_SEARCH if key in given}
        if limit is not None:
            given.setdefault("final_top_k", limit)
            one.setdefault("top_k", limit)
        if isinstance(listed, list):
            return {**given, "searches": [{**one, **item} if isinstance(item, dict) else item for item in listed]}
        return {**given, "searches": [one]} if one else given


@register("feature_search")
class FeatureSearch:
    """Search by meaning. Ordered by (-score, id), also after another stage, whose documents alone are ranked.

    One search scores by cosine similarity, several by reciprocal rank fusion.
    """

    category: ClassVar[Category] = Category.FILTER
    icon: ClassVar[str] = "search"
    Parameters: ClassVar[type[StageParameters]] = FeatureSearchParameters

    def __init__(self, parameters: FeatureSearchParameters) -> None:
        for name in ("group_by", "facets", "learning_config"):
            if getattr(parameters, name):
                raise Invalid(f"{name} is not offered yet; leave it out.", location=(name,), code="not_offered")
        if parameters.fusion != "rrf":
            message = f"The fusion {parameters.fusion} is not offered yet; use rrf."
            raise Invalid(message, location=("fusion",), code="not_offered")
        everywhere = parse(parameters.filters, location=("filters",))
        self._final_top_k = parameters.final_top_k
        self._searches = [
            _Prepared(search, index, everywhere, parameters.collection_identifiers)
            for index, search in enumerate(parameters.searches)
        ]

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Search, fuse, and cut to ``final_top_k``. If every search is left out, documents go on as they came."""
        arrived = None if first else {document.document_id: document for document in documents}
        if arrived == {}:
            return []
        if arrived is not None and len(arrived) > MAX_ARRIVED:
            message = (
                f"feature_search ranks at most {MAX_ARRIVED:,} documents of an earlier stage. Filter or limit them."
            )
            raise Invalid(message, code="too_many_documents")
        rankings = [
            (search.weight, found) for search in self._searches if (found := search.run(context, arrived)) is not None
        ]
        if not rankings:
            return documents
        ranked = rankings[0][1] if len(rankings) == 1 else reciprocal_rank(rankings)
        return ranked[: self._final_top_k]


class _Prepared:
    """A search whose query and filter have been read."""

    def __init__(self, search: Search, index: int, everywhere: Filter | None, collection_ids: Sequence[str]) -> None:
        location = ("searches", index)
        for name in ("lexical", "query_preprocessing"):
            if getattr(search, name):
                message = f"{name} is not offered yet; leave it out."
                raise Invalid(message, location=(*location, name), code="not_offered")
        if search.on_empty == "random":
            message = "on_empty random is not offered; use skip or error."
            raise Invalid(message, location=(*location, "on_empty"), code="not_offered")
        self.weight = search.weight
        self._search = search
        self._location = location
        self._feature = _feature(search.feature_uri, (*location, "feature_uri"))
        self._filter = both(everywhere, parse(search.filters, location=(*location, "filters")))
        self._query = _query(search.query, (*location, "query"))
        self._collection_ids = search.collection_identifiers or collection_ids
        if self._query is None and not search.may_be_left_out:
            raise Invalid("The query is empty.", location=(*location, "query"), code="empty_query")

    def run(self, context: Context, arrived: dict[str, Document] | None) -> list[Document] | None:
        """Return the ranking, or None when the search has nothing to ask and is left out."""
        if self._query is None:
            if not self._search.optional:
                context.warnings.append(f"Search {self._location[1]} was left out: its query is empty.")
            return None
        request = SearchRequest(
            feature=self._feature,
            query=self._query,
            collection_ids=self._collection_ids,
            filter=both(self._filter, context.filter),
            limit=self._search.top_k,
        )
        if arrived is None:
            found = context.corpus.search(request)
        else:
            hits = context.corpus.search(request, among=list(arrived))
            # What earlier stages have added to a document stays with it.
            found = [
                arrived[hit.document_id].with_score(hit.score or 0.0) for hit in hits if hit.document_id in arrived
            ]
        least = self._search.min_score
        return found if least is None else [one for one in found if (one.score or 0.0) >= least]


def _feature(text: str | None, location: tuple[str | int, ...]) -> FeatureURI | str | None:
    if text is None or "://" not in text:
        return text
    try:
        return FeatureURI.parse(text)
    except Invalid as error:
        raise Invalid(error.message, location=location, code=error.code) from error


def _query(raw: Json, location: tuple[str | int, ...]) -> str | list[float] | None:
    """Return the text or the vector of a query; None where nothing is asked."""
    if isinstance(raw, list):
        return _vector(raw, location)
    if not isinstance(raw, dict):
        return _text(raw, location)
    inner = [raw[key] for key in ("value", "text", "content", "values", "vector") if raw.get(key) is not None]
    value = inner[0] if inner else None
    mode = raw.get("input_mode") or ("vector" if isinstance(value, list) else "text")
    if mode == "vector":
        return _vector(value, location)
    if mode not in _TEXT_MODES:
        message = f"input_mode {str(mode)[:40]!r} is not offered yet; use text or vector."
        raise Invalid(message, location=(*location, "input_mode"), code="not_offered")
    return _text(value, location)


def _text(value: Json, location: tuple[str | int, ...]) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a template may bring a number
    if value is not None and not isinstance(value, str):
        message = "A query is a text, a vector, or an object with input_mode and value."
        raise Invalid(message, location=location)
    return value if value and value.strip() else None


def _vector(raw: Json, location: tuple[str | int, ...]) -> list[float] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not is_vector(raw):
        raise Invalid("A query vector is a list of numbers.", location=location)
    return list(map(float, cast("list[float]", raw))) or None
