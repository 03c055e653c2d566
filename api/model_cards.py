"""The catalogue of models: what each is, demands and promises, and how a collection asks for it."""

from typing import Any

from fastapi import APIRouter, Response

from api.bodies import OpenRoute
from api.deps import ServicesNow
from api.replies import reply, without_none
from domain.errors import Invalid, NotFound
from extractors.contract import ModelHome
from extractors.text_embedding import cards, models, weights
from extractors.text_embedding.engine import Engine, choose
from extractors.text_embedding.models import Model
from retrieval.companions import stages_of_vectors

router = APIRouter(prefix="/discovery/models", route_class=OpenRoute, tags=["discovery"])


@router.get("")
def list_models_discovery(services: ServicesNow) -> Response:
    """List every model that collections can name, the default first."""
    shown = [_shown(model, services.models) for model in models.all_known()]
    return reply(sorted(shown, key=lambda one: not one["is_default"]))


@router.get("/{model_id:path}")  # ids hold a slash, as it is or percent-encoded
def get_model_discovery(model_id: str, services: ServicesNow) -> Response:
    """Return one model by its repository, its inference name or an alias."""
    try:
        model = models.require(model_id)
    except Invalid as error:
        raise NotFound("model", model_id, "List them with GET /v1/discovery/models.") from error
    return reply(_shown(model, services.models))


def _shown(model: Model, home: ModelHome) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "inference_name": model.inference_name,
        "aliases": list(model.aliases),
        "feature_uri": str(cards.feature_uri(model)),
        "is_default": choose(None, home).model_id == model.model_id,
        **_published(model),
        "dimensions": {"default": model.width, "minimum": model.narrowest, "maximum": model.width},
        "max_tokens": model.max_tokens,
        "document_prefix": model.document_prefix,
        "query_prefix": model.query_prefix,
        "revision": model.revision,
        "license": model.licence or None,
        "weights": without_none(
            {
                "at_hand": weights.is_here(model, home),
                "size_bytes": model.size_bytes,
                "how_to_get": how_to_get(model, home),
            }
        ),
        "int8": _int8(model, home),
        "feature_extractors": [str(cards.feature_uri(model)).rpartition("/")[0].removeprefix("mixpeek://")],
        "retriever_stages": stages_of_vectors(),
        "collection_body": cards.collection_body(model),
    }


def _int8(model: Model, home: ModelHome) -> dict[str, Any] | None:
    """Return what int8 costs, measured when this process loaded the model so; None where it has not."""
    engine = Engine(model, home, "int8")
    refusal, loss = engine.refusal(), engine.loss()
    if refusal is not None:
        return {"status": "REFUSED", "reason": refusal}
    if loss is None:
        return None
    return {
        "status": "WARNING" if loss.is_much else "OK",
        "mean_cosine_loss": loss.mean,
        "worst_cosine_loss": loss.worst,
        "nearest_ten_overlap": loss.overlap,
        "texts": loss.texts,
    }


def how_to_get(model: Model, home: ModelHome) -> str:
    """Tell anybody how a model's weights come to the server; the server's folders are its own affair."""
    if home.server is not None:
        return "Not needed: an embeddings server of the operator's embeds. It must serve this model."
    if model.family == "plugin" or model.package is not None:
        return "They come with the set-up."
    return f"Run `openpeek model pull {model.model_id}` on the server's host, or copy them into OPENPEEK_MODELS."


def _published(model: Model) -> dict[str, Any]:
    card = cards.find(model)
    if card is None:
        return {}
    return without_none(
        {
            "description": card.summary,
            "architecture": card.architecture,
            "parameters": card.parameters,
            "active_parameters": card.active_parameters,
            "is_matryoshka": card.is_matryoshka,
            "languages": card.languages,
            "paper": card.paper,
            "scores": [
                {"benchmark": score.benchmark, "value": score.value, "source": score.source} for score in card.scores
            ],
        }
    )
