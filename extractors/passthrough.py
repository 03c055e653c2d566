"""The smallest extractor: one document per source, its fields copied, no vector. The one to read first."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from domain.errors import Invalid
from extractors.contract import (
    Catalogue,
    Extraction,
    ModelHome,
    ModelIdentity,
    Output,
    Parameters,
    Part,
    Source,
    Vectors,
)
from extractors.registry import register


class PassthroughParameters(Parameters):
    """It has none."""

    extractor_type: str | None = None


@register("passthrough_extractor", "passthrough")
class Passthrough:
    """Copies fields of the source into a document; which ones is the collection's ``field_passthrough``."""

    name: ClassVar[str] = "passthrough_extractor"
    version: ClassVar[str] = "v1"
    Parameters: ClassVar[type[Parameters]] = PassthroughParameters
    catalogue: ClassVar[Catalogue] = Catalogue(
        description="Copies fields of objects into documents, without computing anything.",
        icon="copy",
        inputs={},
        output_schema={},
        supported_input_types=("text", "string", "number", "boolean", "object", "array", "date", "datetime"),
        has_vectors=False,
    )

    def __init__(self, parameters: Any, models: ModelHome) -> None:  # noqa: ARG002 - no model here
        self._parameters: PassthroughParameters = parameters

    def resolved(self) -> PassthroughParameters:
        """Return the parameters as they are."""
        return self._parameters

    def output(self) -> Output | None:
        """Return None: there are no vectors."""
        return None

    def identity(self) -> ModelIdentity | None:
        """Return None: there is no model."""
        return None

    def parts(self, source: Source) -> Extraction:  # noqa: ARG002 - the worker copies the fields
        """Return one part without fields of its own."""
        return Extraction([Part(fields={})])

    def document_prefix(self) -> str:
        """Return nothing: no text is embedded."""
        return ""

    def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> Vectors:  # noqa: ARG002
        """Return no vectors."""
        return np.zeros((len(texts), 0), dtype=np.float32)

    def embed_query(self, text: str) -> Vectors:
        """Raise Invalid: nothing here can be searched by meaning."""
        raise Invalid(f"{self.name} makes no vectors, so {text[:40]!r} cannot be searched for.", code="no_vectors")

    def fit(self, vectors: Vectors) -> Vectors:
        """Return the vectors as they are."""
        return vectors
