"""What is published about the known models: facts to read and values to check weights against, each with its source."""

from dataclasses import dataclass
from typing import Final

from domain.features import FeatureURI
from domain.json_types import Fields
from extractors.text_embedding import TextEmbedding
from extractors.text_embedding.models import MINILM, NOMIC, Model

SCIFACT: Final = "BEIR SciFact, nDCG@10"
_NOMIC_CARD: Final = "model card of nomic-ai/nomic-embed-text-v2-moe"
_SBERT: Final = "sbert.net, table of pretrained models"


@dataclass(frozen=True, slots=True)
class Score:
    """A published result, as large as its source prints it: some print 0.73, others 73."""

    benchmark: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Similarity:
    """The published similarity of two documents: the quickest sign that weights and arithmetic are the real ones."""

    one: str
    other: str
    value: float
    tolerance: float
    source: str


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model beyond what it takes to run it.

    Attributes:
        parameters: numbers in its weights.
        active_parameters: those that work on a token, where that is not all of them.
        tensors: in its checkpoint; None where it was not counted.
        paper: title and address.
        is_matryoshka: it was trained so that its vectors may be cut; others lose more by it.
        similarity: a value to check weights against.
    """

    summary: str
    architecture: str
    parameters: int
    languages: str
    paper: str
    scores: tuple[Score, ...]
    active_parameters: int | None = None
    tensors: int | None = None
    is_matryoshka: bool = False
    similarity: Similarity | None = None

    @property
    def scifact(self) -> Score | None:
        """The result on BEIR's SciFact, to check weights against."""
        return next((score for score in self.scores if score.benchmark == SCIFACT), None)


_E5_PAPER: Final = "Multilingual E5 Text Embeddings: A Technical Report, https://arxiv.org/abs/2402.05672"
_E5_LANGUAGES: Final = "the 100 of XLM-RoBERTa; weaker in those it has seen little of"


def _e5(layers: int, width: int, parameters: int, scores: tuple[Score, ...], summary: str) -> Card:
    architecture = f"XLM-RoBERTa: {layers} layers of width {width}, mean over the tokens"
    return Card(summary, architecture, parameters, _E5_LANGUAGES, _E5_PAPER, scores)


def _tydi(size: str, value: float) -> Score:
    return Score("Mr. TyDi, mean MRR@10 of 11 languages", value, f"model card of intfloat/multilingual-e5-{size}")


_CARDS: Final[dict[str, Card]] = {
    NOMIC.model_id: Card(
        summary="Multilingual search with a mixture of experts: large in memory, mid-sized in work.",
        architecture=(
            "12 layers of width 768, 12 heads, rotary positions; every second layer a mixture of 8 experts, "
            "2 of which work on a token; mean over the tokens"
        ),
        parameters=475_292_928,
        active_parameters=305_000_000,
        tensors=148,
        languages="about 100",
        paper="Training Sparse Mixture Of Experts Text Embedding Models, https://arxiv.org/abs/2502.07972",
        scores=(
            Score("BEIR, mean nDCG@10", 52.86, _NOMIC_CARD),
            Score("MIRACL, mean nDCG@10", 65.80, _NOMIC_CARD),
            Score(SCIFACT, 0.7288, "an independent run of the reference code (tt-metal, DATASET_ACCURACY)"),
        ),
        is_matryoshka=True,
        similarity=Similarity("Hello!", "¡Hola!", 0.9118, 5e-4, _NOMIC_CARD),
    ),
    MINILM.model_id: Card(
        summary="Small, fast and English: comes with the set-up, so everything can be tried at once.",
        architecture="MiniLM (BERT): 6 layers of width 384, 12 heads, mean over the tokens",
        parameters=22_713_216,
        tensors=104,
        languages="English",
        paper="MiniLM, https://arxiv.org/abs/2002.10957; trained further on 1,170,060,424 pairs (model card)",
        scores=(
            Score("14 data sets of sentence similarity, mean", 68.06, _SBERT),
            Score("6 data sets of semantic search, mean", 49.54, _SBERT),
        ),
    ),
    "intfloat/multilingual-e5-small": _e5(
        12, 384, 117_653_760, (_tydi("small", 64.4),), "The smallest multilingual one; four fifths of it is vocabulary."
    ),
    "intfloat/multilingual-e5-base": _e5(
        12,
        768,
        278_000_000,
        (
            Score("BEIR, mean nDCG@10", 48.88, _NOMIC_CARD),
            Score("MIRACL, mean nDCG@10", 62.30, _NOMIC_CARD),
            _tydi("base", 65.9),
        ),
        "Multilingual, of the width of nomic-embed-text-v2-moe and without experts.",
    ),
    "intfloat/multilingual-e5-large": _e5(
        24,
        1024,
        560_000_000,
        (
            Score("BEIR, mean nDCG@10", 51.40, _NOMIC_CARD),
            Score("MIRACL, mean nDCG@10", 66.50, _NOMIC_CARD),
            _tydi("large", 70.5),
        ),
        "Multilingual and large: 3.5 times the work of the base model.",
    ),
    "intfloat/multilingual-e5-large-instruct": _e5(
        24,
        1024,
        560_000_000,
        (),
        "Multilingual and large; queries carry an instruction, documents nothing.",
    ),
}


def find(model: Model) -> Card | None:
    """Return a model's card; None for one that a plugin brings."""
    return _CARDS.get(model.model_id)


def feature_uri(model: Model) -> FeatureURI:
    """Return by which name retrievers find the vectors of a model."""
    return FeatureURI(TextEmbedding.name, TextEmbedding.version, model.inference_name)


def dimensions(model: Model) -> str:
    """Tell how long a model's vectors are, and how short they may be cut."""
    if model.narrowest == model.width:
        return str(model.width)
    card = find(model)
    trained = "trained for it" if card is not None and card.is_matryoshka else "not trained for it: measure before"
    return f"{model.width}, may be cut to {model.narrowest} ({trained})"


def collection_body(model: Model, bucket: str = "texts", field: str = "body") -> Fields:
    """Return a body for ``POST /v1/collections`` that embeds one field of a bucket with a model."""
    return {
        "collection_name": model.model_id.rpartition("/")[2],
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": {
            "feature_extractor_name": TextEmbedding.name,
            "version": TextEmbedding.version,
            "input_mappings": {"text": field},
            "parameters": {"model_id": model.model_id},
        },
    }
