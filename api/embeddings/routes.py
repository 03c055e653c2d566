"""Embedding texts directly: the route of OpenAI's clients, and the contract's raw inference."""

import asyncio
import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool

from api.bodies import StrictRoute
from api.deps import ServicesNow
from api.embeddings import service
from api.embeddings.schemas import EmbeddingsRequest, InferenceParameters, InferenceRequest, checked_texts
from api.embeddings.service import Batchers, Prepared
from api.replies import reply
from domain.errors import Invalid
from domain.features import FeatureURI
from extractors.contract import Vectors

PROVIDER = "openpeek"
_ALIASES = {None, "embedding", "text_embedding"}

router = APIRouter(route_class=StrictRoute, tags=["embeddings"])


async def _batchers(request: Request) -> Batchers:
    batchers: Batchers = request.app.state.batchers
    return batchers


BatchersNow = Annotated[Batchers, Depends(_batchers)]


# The one place where routes wait without a thread of their own: many may wait for the model, and other routes
# must go on meanwhile.
@router.post("/embeddings")
async def create_embeddings(body: EmbeddingsRequest, services: ServicesNow, batchers: BatchersNow) -> Response:
    """Embed texts, as OpenAI's route of the same name does. No namespace is needed."""
    prepared = await run_in_threadpool(
        service.prepare, services.models, body.input, body.model, body.dimensions, body.input_type
    )
    vectors = await asyncio.wrap_future(batchers.submit(prepared))
    return await run_in_threadpool(_openai, prepared, vectors, body)


@router.post("/inference")
async def execute_raw_inference(body: InferenceRequest, services: ServicesNow, batchers: BatchersNow) -> Response:
    """Embed `text` or `texts` by a model of this server; other kinds of inference are not offered."""
    began = time.perf_counter()
    texts = _texts(body)
    asked = body.parameters or InferenceParameters()
    prepared = await run_in_threadpool(
        service.prepare, services.models, texts, _named(body), asked.dimensions, asked.input_type
    )
    vectors = prepared.shortened(await asyncio.wrap_future(batchers.submit(prepared)))
    content = {
        "data": {"embedding": vectors[0].tolist()} if "text" in body.inputs else {"embeddings": vectors.tolist()},
        "provider": PROVIDER,
        "model": prepared.engine.model.model_id,
        "tokens_used": _usage(prepared),
        "latency_ms": round((time.perf_counter() - began) * 1000, 2),
        "cached": False,
    }
    return reply(content, warnings=body.unknown_keys())


def _openai(prepared: Prepared, vectors: Vectors, body: EmbeddingsRequest) -> Response:
    rows = prepared.shortened(vectors)
    packed = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if packed else row.tolist(),
        }
        for index, row in enumerate(rows)
    ]
    content = {"object": "list", "data": data, "model": prepared.engine.model.model_id, "usage": _usage(prepared)}
    return reply(content, warnings=body.unknown_keys())


def _usage(prepared: Prepared) -> dict[str, Any]:
    return {"prompt_tokens": prepared.tokens, "total_tokens": prepared.tokens}


def _texts(body: InferenceRequest) -> list[str]:
    """Return the texts to embed, or raise Invalid."""
    if body.provider is not None and body.provider.casefold() != PROVIDER:
        message = f"The provider {body.provider!r} is not offered: this server runs its own models."
        raise Invalid(message, location=("body", "provider"), code="not_offered")
    given = [key for key in ("text", "texts") if body.inputs.get(key) is not None]
    if len(given) != 1 or len(body.inputs) != 1:
        message = "inputs must hold `text` or `texts` and nothing else: embeddings are the inference that is offered."
        raise Invalid(message, location=("body", "inputs"), code="not_offered")
    try:
        return checked_texts(body.inputs[given[0]])
    except PydanticCustomError as error:
        where = ("body", "inputs", given[0])
        raise Invalid(f"{given[0]}: {error.message()}", location=where, code=error.type) from error


def _named(body: InferenceRequest) -> str | None:
    """Return the model that was asked for, under whichever of its names; None stands for the default."""
    if body.feature_uri is not None:
        output = FeatureURI.parse(body.feature_uri).output
        return None if output in _ALIASES else output
    return body.inference_name or body.model
