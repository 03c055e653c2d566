"""Feature URIs, and what kind of vectors stand behind one."""

import re
from dataclasses import dataclass
from typing import Final, Self

from domain.errors import Invalid

_URI: Final = re.compile(
    r"mixpeek://(?P<extractor>[A-Za-z0-9_-]{1,100})@(?P<version>v\d{1,4})(?:/(?P<output>[A-Za-z0-9_.-]{1,100}))?"
)


@dataclass(frozen=True, slots=True)
class FeatureURI:
    """``mixpeek://extractor@version/output``; the output is the inference name of the model behind it."""

    extractor: str
    version: str
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; the short form without output is legal.

        Raises:
            Invalid: it is not of the form.
        """
        match = _URI.fullmatch(text)
        if match is None:
            message = f"{text[:200]!r} is not a feature URI. The form is mixpeek://extractor@v1/output."
            raise Invalid(message, code="feature_uri_malformed")
        return cls(match["extractor"], match["version"], match["output"])

    def __str__(self) -> str:
        short = f"mixpeek://{self.extractor}@{self.version}"
        return f"{short}/{self.output}" if self.output else short


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """What makes two vectors comparable: the model, its revision, the width, and how they are stored.

    ``precision`` (fp32 or int8 arithmetic while embedding) is kept for the record and the cache only:
    vectors of both precisions live in one index and answer each other's queries.
    """

    model_id: str
    inference_name: str
    revision: str
    dimensions: int
    precision: str = "fp32"
    quantisation: str | None = None

    @property
    def name(self) -> str:
        """The name of the vector in the index, for instance ``all_minilm_l6_v2_v1_1110a243_384``."""
        name = f"{self.inference_name}_{self.revision[:8]}_{self.dimensions}"
        return f"{name}_{self.quantisation}" if self.quantisation else name
