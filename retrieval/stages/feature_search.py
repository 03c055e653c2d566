"""The stage ``feature_search``: search by meaning, with one or several queries."""

from typing import Any, ClassVar, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from domain.documents import Document
from domain.errors import Invalid
from domain.features import FeatureURI
from domain.filters import both, parse
from domain.json_types import Json
from retrieval.contract import Category, Context, SearchRequest, StageParameters
from retrieval.fusion import reciprocal_rank
from retrieval.registry import register

_TEXT_MODES: Final = frozenset({"text", "content"})


class Search(BaseModel):
    """One search."""

    model_config = ConfigDict(extra="allow", frozen=True)
    feature_uri: str | None = Field(None, validation_alias=AliasChoices("feature_uri", "uri", "feature_address"))
    query: Json = Field(None, validation_alias=AliasChoices("query", "input"))
    top_k: int = Field(100, ge=1, le=5_000, validation_alias=AliasChoices("top_k", "limit"))
    min_score: float | None = None
    weight: float = Field(1.0, ge=0, le=1_000)
    optional: bool = False
    on_empty: str = Field("error", pattern="^(error|skip|random)$")
    collection_identifiers: list[str] = Field(
        default_factory=list, validation_alias=AliasChoices("collection_identifiers", "collection_ids")
    )
    filters: Json = None
    lexical: Json = None
    query_preprocessing: Json = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


class FeatureSearchParameters(StageParameters):
    """Up to ten searches and how they are fused."""

    searches: list[Search] = Field(min_length=1, max_length=10)
    final_top_k: int = Field(25, ge=1, le=5_000)
    fusion: str = "rrf"
    collection_identifiers: list[str] = Field(
        default_factory=list, validation_alias=AliasChoices("collection_identifiers", "collection_ids")
    )
    group_by: Json = None
    facets: Json = None
    learning_config: Json = None

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, raw: Any) -> Any:
        """Turn the flat spellings into the one with ``searches``; null means default."""
        if not isinstance(raw, dict):
            return raw
        given = {key: value for key, value in raw.items() if value is not None}
        if given.get("searches"):
            return given
        listed = given.pop("feature_uris", None)
        if isinstance(listed, list) and listed:
            return {**given, "searches": listed}
        one = {
            key: given.pop(key)
            for key in ("feature_uri", "query", "input", "top_k", "min_score", "filters")
            if key in given
        }
        given.pop("feature_extractor", None)
        limit = given.pop("limit", None)
        if limit is not None:
            given.setdefault("final_top_k", limit)
            one.setdefault("top_k", limit)
        return {**given, "searches": [one]} if one else given


@register("feature_search")
class FeatureSearch:
    """Search by meaning. Ordered by (-score, id); several searches are fused by reciprocal rank.

    After another stage only the documents that arrived are ranked.
    """

    category: ClassVar[Category] = Category.FILTER
    icon: ClassVar[str] = "search"
    Parameters: ClassVar[type[StageParameters]] = FeatureSearchParameters

    def __init__(self, parameters: FeatureSearchParameters) -> None:
        self._parameters = parameters
        for name in ("group_by", "facets", "learning_config"):
            if getattr(parameters, name):
                raise Invalid(f"{name} is not offered yet.", location=(name,), code="not_offered")
        if parameters.fusion != "rrf":
            message = f"The fusion {parameters.fusion[:40]!r} is not offered yet; use rrf."
            raise Invalid(message, location=("fusion",), code="not_offered")
        self._searches = [_Prepared(search, index) for index, search in enumerate(parameters.searches)]

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Search, fuse, and cut to ``final_top_k``."""
        arrived = None if first else {document.document_id: document for document in documents}
        if arrived == {}:
            return []
        rankings: list[tuple[float, list[Document]]] = []
        for search in self._searches:
            found = search.run(context, self._parameters, arrived)
            if found is not None:
                rankings.append((search.weight, found))
        fused = rankings[0][1] if len(rankings) == 1 else reciprocal_rank(rankings)
        return fused[: self._parameters.final_top_k]


class _Prepared:
    """A search whose query and filter have been read."""

    def __init__(self, search: Search, index: int) -> None:
        location = ("searches", index)
        for name in ("lexical", "query_preprocessing"):
            if getattr(search, name):
                raise Invalid(f"{name} is not offered yet.", location=(*location, name), code="not_offered")
        if search.on_empty == "random":
            message = "on_empty random is not offered; use skip or error."
            raise Invalid(message, location=(*location, "on_empty"), code="not_offered")
        self.weight = search.weight
        self._search = search
        self._feature = _feature(search.feature_uri)
        self._location = location
        self._query = _query(search.query, (*location, "query"))
        self._filter = parse(search.filters, location=(*location, "filters"))

    def run(
        self, context: Context, stage: FeatureSearchParameters, arrived: dict[str, Document] | None
    ) -> list[Document] | None:
        """Return the ranking, or None when the search has nothing to ask and may be left out."""
        query = self._query
        if query is None or (isinstance(query, str) and not query.strip()):
            if self._search.optional or self._search.on_empty == "skip":
                if not self._search.optional:
                    context.warnings.append(f"Search {self._location[1]} was left out: its query is empty.")
                return None
            raise Invalid("The query is empty.", location=(*self._location, "query"), code="empty_query")
        request = SearchRequest(
            feature=self._feature,
            query=query,
            collection_ids=self._search.collection_identifiers or stage.collection_identifiers,
            filter=both(self._filter, context.filter),
            limit=self._search.top_k,
        )
        found = context.corpus.search(request) if arrived is None else _among(context, request, arrived)
        least = self._search.min_score
        return found if least is None else [one for one in found if (one.score or 0.0) >= least]


def _among(context: Context, request: SearchRequest, arrived: dict[str, Document]) -> list[Document]:
    """Rank only what arrived, keeping what earlier stages have added to it."""
    found = context.corpus.search(request, among=list(arrived))
    return [arrived[one.document_id].with_score(one.score or 0.0) for one in found if one.document_id in arrived]


def _feature(text: str | None) -> FeatureURI | str | None:
    if text is None:
        return None
    return FeatureURI.parse(text) if "://" in text else text


def _query(raw: Json, location: tuple[str | int, ...]) -> str | list[float] | None:
    """Return the text or the vector of a query; None where there is none."""
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return str(raw)
    if isinstance(raw, list):
        return _vector(raw, location)
    if not isinstance(raw, dict):
        raise Invalid("A query is a text, a vector, or an object with an input_mode.", location=location)
    mode = raw.get("input_mode") or ("vector" if isinstance(raw.get("values") or raw.get("value"), list) else "text")
    if mode == "vector":
        value = raw.get("value") if raw.get("value") is not None else raw.get("values", raw.get("vector"))
        return _vector(value, location)
    if mode not in _TEXT_MODES:
        message = f"input_mode {str(mode)[:40]!r} is not offered yet; use text or vector."
        raise Invalid(message, location=(*location, "input_mode"), code="not_offered")
    text = next((raw[key] for key in ("value", "text", "content") if raw.get(key) is not None), None)
    if text is not None and not isinstance(text, str):
        raise Invalid("The text of a query must be a string.", location=location)
    return text


def _vector(raw: Json, location: tuple[str | int, ...]) -> list[float]:
    if not isinstance(raw, list) or not raw:
        raise Invalid("A query vector is a list of numbers.", location=location)
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in raw):
        raise Invalid("A query vector holds numbers only.", location=location)
    return [float(item) for item in raw]  # type: ignore[arg-type]
