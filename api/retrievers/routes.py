"""Retrievers: saved pipelines, and pipelines run once."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Response

from api.bodies import StrictRoute
from api.buckets.schemas import ListQuery
from api.deps import Asked, InNamespace, Inside, Paging
from api.documents.schemas import internal
from api.replies import reply
from api.retrievers.schemas import AdhocBody, ExecuteBody, RetrieverCreate, execution_view, view
from domain.errors import Invalid
from domain.filters import both, parse
from domain.ids import new_id
from domain.json_types import Fields
from extractors import registry
from extractors.contract import Extractor, ModelHome
from retrieval import engine
from retrieval.contract import Context
from retrieval.corpus import LiveCorpus, check_live
from retrieval.inputs import check_inputs, read_schema
from retrieval.pagination import cut
from retrieval.spelling import StageSpec, read_stages
from storage.tables import collections, retrievers
from storage.tables.collections import CollectionRow
from storage.tables.retrievers import RetrieverRow

router = APIRouter(prefix="/retrievers", route_class=StrictRoute, tags=["retrievers"])
ThisPage = Annotated[Asked, Depends(Paging(default=10))]


@router.post("")
def create_retriever(here: InNamespace, body: RetrieverCreate) -> Response:
    """Save a pipeline. One that could never run is refused, with the path of the fault."""
    schema = read_schema(body.input_schema)
    stages = read_stages(body.stages)
    engine.check(stages, schema)
    with here.services.storage.database.writing() as uow:
        rows = [collections.require(uow.session, here.scope, one) for one in dict.fromkeys(body.collection_identifiers)]
        row = RetrieverRow(
            id=new_id("ret"),
            organization_id=here.scope.organization_id,
            namespace_id=here.scope.namespace_id,
            name=body.retriever_name,
            description=body.description,
            stages=[stage.shown() for stage in stages],
            input_schema=schema,
            collection_ids=[one.id for one in rows],
            settings={"tags": body.tags or [], "metadata": body.metadata or {}},
        )
        retrievers.add(uow.session, row)
    return reply(view(row), warnings=body.unknown_keys())


@router.get("")
def list_retrievers_get(
    here: InNamespace, asked: ThisPage, search: Annotated[str | None, Query(max_length=256)] = None
) -> Response:
    """List retrievers, oldest first."""
    return _listed(here, asked, search)


@router.post("/list")
def list_retrievers(here: InNamespace, asked: ThisPage, body: ListQuery) -> Response:
    """List retrievers, oldest first."""
    return _listed(here, asked, body.search)


@router.post("/execute")
def execute_adhoc_retriever(here: InNamespace, body: AdhocBody) -> Response:
    """Run stages that are not saved; without collections, over all of the namespace."""
    schema = read_schema(body.input_schema)
    stages = read_stages(body.stages)
    engine.check(stages, schema)
    with here.services.storage.database.reading() as session:
        if body.collection_identifiers:
            rows = [collections.require(session, here.scope, one) for one in dict.fromkeys(body.collection_identifiers)]
        else:
            rows = collections.all_living(session, here.scope)
    response = _execute(here, None, stages, schema, rows, body)
    response.headers["X-Execution-Mode"] = "adhoc"
    return response


@router.get("/{retriever_id}")
def get_retriever(here: InNamespace, retriever_id: str) -> Response:
    """Return a retriever by id or name."""
    with here.services.storage.database.reading() as session:
        return reply(view(retrievers.require(session, here.scope, retriever_id)))


@router.delete("/{retriever_id}")
def delete_retriever(here: InNamespace, retriever_id: str) -> Response:
    """Delete a retriever."""
    with here.services.storage.database.writing() as uow:
        row = retrievers.require(uow.session, here.scope, retriever_id)
        retrievers.remove(uow.session, here.scope, row.id)
    return reply({"success": True, "message": f"The retriever {row.name!r} is deleted.", "retriever_id": row.id})


@router.post("/{retriever_id}/execute")
def execute_retriever(here: InNamespace, retriever_id: str, body: ExecuteBody) -> Response:
    """Run a saved pipeline."""
    with here.services.storage.database.reading() as session:
        row = retrievers.require(session, here.scope, retriever_id)
        if row.collection_ids:
            rows = collections.load(session, here.scope, row.collection_ids)
        else:
            rows = collections.all_living(session, here.scope)
    check_live(rows, row.collection_ids)
    return _execute(here, row.id, read_stages(row.stages), row.input_schema, rows, body)


def _execute(
    here: Inside,
    retriever_id: str | None,
    stages: Sequence[StageSpec],
    schema: Fields,
    rows: Sequence[CollectionRow],
    body: ExecuteBody,
) -> Response:
    if body.stream:
        raise Invalid(
            "Streaming is not offered yet; leave stream out.", location=("body", "stream"), code="not_offered"
        )
    wanted = parse(body.filters)
    if isinstance(body, AdhocBody):
        wanted = both(wanted, parse(body.pre_filters, location=("body", "pre_filters")))
    models = here.services.models
    corpus = LiveCorpus(here.services.storage, here.scope, rows, lambda row: _extractor(row, models), internal)
    context = Context(corpus, check_inputs(schema, body.inputs or {}), wanted, timings=corpus.timings)
    execution = engine.execute(stages, context)
    about = orjson.dumps([retriever_id, body.inputs, body.filters], option=orjson.OPT_SORT_KEYS).decode()
    page, pagination = cut(execution.documents, body.pagination, limit=body.wanted_limit(), about=about)
    content = execution_view(new_id("exec"), retriever_id, execution, page, pagination)
    return reply(content, warnings=body.unknown_keys())


def _extractor(row: CollectionRow, models: ModelHome) -> Extractor:
    return _configured(row.extractor_name, orjson.dumps(row.parameters, option=orjson.OPT_SORT_KEYS), models)


@lru_cache(maxsize=1_000)
def _configured(name: str, parameters: bytes, models: ModelHome) -> Extractor:
    return registry.configure(name, orjson.loads(parameters), models)


def _listed(here: Inside, asked: Asked, search: str | None) -> Response:
    with here.services.storage.database.reading() as session:
        page = retrievers.list_page(session, here.scope, asked.page, search)
        results: list[Any] = [view(row) for row in page.rows]
    return reply(
        {"results": results, "total": page.total, "total_count": page.total, "pagination": asked.pagination(page)}
    )
