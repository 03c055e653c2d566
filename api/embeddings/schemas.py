"""What the embedding routes are asked."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from api.bodies import Body
from domain.json_types import Json

MAX_TEXTS = 2_048
MAX_CHARACTERS = 1_000_000  # far beyond what the tokens of one request can hold; counting more would only take long

InputType = Literal["document", "query"]


def _positive(value: int | None) -> int | None:
    if value is not None and value < 1:
        raise PydanticCustomError("dimensions_out_of_range", "the least is 1")
    return value


Dimensions = Annotated[int | None, AfterValidator(_positive)]


def checked_texts(value: Any) -> list[str]:
    """Return the texts of a string or of a list of strings.

    Raises:
        PydanticCustomError: it is neither, or holds token numbers, or there is nothing to embed.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise PydanticCustomError("input_not_text", "must be a string or a list of strings")
    if not value:
        raise PydanticCustomError("input_empty", "holds no text")
    if any(isinstance(one, int | list) for one in value):
        message = "token arrays are not taken, because tokens of another model mean nothing to this one: send text"
        raise PydanticCustomError("token_arrays", message)
    if len(value) > MAX_TEXTS:
        message = "holds {there} texts; {most} are taken at once"
        raise PydanticCustomError("too_many_texts", message, {"there": len(value), "most": MAX_TEXTS})
    for index, one in enumerate(value):
        if not isinstance(one, str):
            raise PydanticCustomError("input_not_text", "text {index} is not a string", {"index": index})
        if not one.strip():
            raise PydanticCustomError("input_blank", "text {index} is empty or white space", {"index": index})
    characters = sum(map(len, value))
    if characters > MAX_CHARACTERS:
        message = "holds {there} characters; {most} are taken at once"
        raise PydanticCustomError("too_many_characters", message, {"there": characters, "most": MAX_CHARACTERS})
    return value


class EmbeddingsRequest(Body):
    """The body of OpenAI's embeddings route, with `input_type` added."""

    quiet = frozenset({"user", "namespace_id"})

    input: list[str] = Field(description="A text, or a list of texts.")
    model: str | None = Field(None, max_length=200, description="Repository or inference name; null: the default.")
    dimensions: Dimensions = Field(None, description="Length of the vectors, from 1; null: all that the model has.")
    encoding_format: Literal["float", "base64"] | None = Field("float", description="How vectors are written.")
    input_type: InputType | None = Field("document", description="Which of the model's prefixes stands before a text.")

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> list[str]:
        return checked_texts(value)


class InferenceParameters(Body):
    """What `POST /v1/inference` can be told about an embedding."""

    dimensions: Dimensions = None
    input_type: InputType | None = "document"


class InferenceRequest(Body):
    """The contract's request for raw inference, of which this server does the embeddings."""

    quiet = frozenset({"namespace_id", "enable_semantic_cache", "cache_delta"})

    provider: str | None = Field(None, max_length=200)
    model: str | None = Field(None, max_length=200)
    inference_name: str | None = Field(None, max_length=200)
    feature_uri: str | None = Field(None, max_length=400)
    inputs: dict[str, Json] = Field(description="`text`, or a list of `texts`.")
    parameters: InferenceParameters | None = None
