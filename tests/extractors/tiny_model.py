"""What the tests of the text extractor hold in hand: an extractor of the tiny model, and the parts it makes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.contract import Extraction, ModelHome, Source
from extractors.registry import configure
from extractors.text_embedding import TextEmbedding
from extractors.text_embedding.models import Model

LIMIT = 40


@dataclass(frozen=True)
class Tiny:
    """The tiny model, and where it lies."""

    model: Model
    home: ModelHome

    @property
    def home_folder(self) -> Path:
        return Path(self.home.folder, *self.model.model_id.split("/"))

    def extractor(self, **parameters: Any) -> TextEmbedding:
        extractor = configure("text_extractor", {"model_id": self.model.model_id, **parameters}, self.home)
        assert isinstance(extractor, TextEmbedding)
        return extractor

    def parts(self, text: object, **parameters: Any) -> Extraction:
        return self.extractor(**parameters).parts(Source("obj_1", {}, {"text": text}))
