"""Who embeds: the network in this process, or the operator's embeddings server. Asked here and nowhere else."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.errors import WeightsBroken
from extractors.contract import ModelHome, ModelIdentity, Vectors
from extractors.text_embedding import canary, models, weights
from extractors.text_embedding.models import Model, Precision
from extractors.text_embedding.remote import RemoteEncoder
from extractors.text_embedding.tokens import TextTokenizer

if TYPE_CHECKING:
    from extractors.text_embedding.calibration import Loss
    from extractors.text_embedding.encoder import Encoder

# What could not be loaded is not tried again until its file is another one: each try costs seconds.
_encoders: Final[dict["_Key", "Encoder | WeightsBroken"]] = {}
_loading: Final = threading.Lock()


class _Key(NamedTuple):
    folder: str
    modified_ns: int
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class Engine:
    """A model as this machine can use it. Cheap to make: weights come in with the first text.

    Attributes:
        precision: of the arithmetic, where it is done here.
    """

    model: Model
    home: ModelHome
    precision: Precision = "fp32"

    def identity(self) -> ModelIdentity:
        """Return which weights embed; the hash of weights that a server has is not known.

        Raises:
            WeightsMissing, WeightsBroken: there are none; or the server is away, or has another model.
        """
        if self.home.server is None:
            return weights.identify(self.model, weights.locate(self.model, self.home), self.home)
        return self._theirs(self.home.server.revision(self.model.model_id))

    def identity_at_hand(self) -> ModelIdentity | None:
        """Return the same as far as it is known without asking a server; None where nothing is."""
        if self.home.server is None:
            return self.identity()
        revision = self.home.server.revision_at_hand()
        return None if revision is None else self._theirs(revision)

    def tokenizer(self) -> TextTokenizer:
        """Return the model's own tokenizer, which counts here even where a server embeds.

        Raises:
            WeightsMissing, WeightsBroken: it is not here, or is none.
        """
        server = self.home.server
        where = weights.locate(self.model, self.home).folder if server is None else self._tokenizer_folder()
        return TextTokenizer(where, self.model.model_id)

    def load(self) -> None:
        """Have the weights in memory. Raises WeightsMissing, WeightsBroken."""
        self._encoder()

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None, *, urgent: bool = False
    ) -> Vectors:
        """Return float32[n, width], unit length, in order.

        Args:
            texts: with the model's prefix; none longer than the model reads.
            progress: called with the number of texts finished so far.
            urgent: somebody waits for it, so it goes before documents.

        Raises:
            WeightsMissing, WeightsBroken: the model cannot be used; or the server cannot.
        """
        return self._encoder().encode(texts, progress, urgent=urgent)

    def loss(self) -> "Loss | None":
        """Return what int8 costs this model, as measured when it was loaded; None in fp32, or if it is not loaded."""
        found = self._loaded()
        return None if found is None or isinstance(found, WeightsBroken) else found.loss

    def refusal(self) -> str | None:
        """Return why this process refused to load it; None if it did not, or was not asked to."""
        found = self._loaded()
        return str(found.details["problem"]) if isinstance(found, WeightsBroken) else None

    def _loaded(self) -> "Encoder | WeightsBroken | None":
        if self.home.server is not None or not weights.is_here(self.model, self.home):
            return None
        return _encoders.get(self._key())

    def _theirs(self, revision: str) -> ModelIdentity:
        tokenizer = weights.sha256(self._tokenizer_folder() / weights.TOKENIZER)
        return ModelIdentity(self.model.model_id, revision, "", tokenizer)

    def _tokenizer_folder(self) -> Path:
        return weights.locate_tokenizer(self.model, self.home)

    def _encoder(self) -> "Encoder | RemoteEncoder":
        """Return this process' encoder of the model, loaded once however many threads ask."""
        if self.home.server is not None:
            return RemoteEncoder(self.model, self.home.server, self.tokenizer())
        key = self._key()
        if key not in _encoders:  # without waiting for another model that is being loaded
            with _loading:
                if key not in _encoders:
                    for former in [one for one in _encoders if one._replace(modified_ns=key.modified_ns) == key]:
                        del _encoders[former]
                    _encoders[key] = self._load()
        found = _encoders[key]
        if isinstance(found, WeightsBroken):
            raise found
        return found

    def _load(self) -> "Encoder | WeightsBroken":
        """Return the encoder, or why there is none."""
        from extractors.text_embedding.encoder import Encoder  # noqa: PLC0415 - torch loads here, and only here

        folder = weights.locate(self.model, self.home).folder
        try:
            encoder = Encoder(self.model, folder, self.home.device, self.precision)
            if self.home.canaries is not None:
                prefix = self.model.document_prefix
                canary.check(encoder, self.identity(), prefix, self.precision, self.home.canaries)
        except WeightsBroken as error:
            return error
        return encoder

    def _key(self) -> _Key:
        file = weights.locate(self.model, self.home).folder / weights.WEIGHTS
        return _Key(str(file.parent), file.stat().st_mtime_ns, self.home.device, self.precision)


def choose(name: str | None, home: ModelHome) -> Model:
    """Return a model: the named one, the operator's default, or the best that can be had here.

    Raises:
        Invalid: no model of that name is known.
    """
    wanted = name or home.default_model
    if wanted is not None:
        return models.require(wanted)
    if home.server is not None:
        return models.NOMIC
    return next((model for model in models.PREFERRED if weights.is_here(model, home)), models.NOMIC)
