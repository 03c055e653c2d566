"""`openpeek serve --preload`: the models are in memory, and have computed once, before readiness says yes."""

import threading
from typing import Final

import structlog

from domain.errors import OpenPeekError
from extractors import registry
from extractors.contract import Extractor, ModelHome
from storage.database import Database
from storage.tables import collections

RETRY_SECONDS: Final = 5.0  # weights may be copied in while the server waits for them
_QUERY: Final = "Which words does a model see first?"

log = structlog.get_logger(__name__)


class Preload:
    """Loads on a thread of its own what living collections use, or the default model where there are none."""

    def __init__(self, database: Database, models: ModelHome) -> None:
        self._database = database
        self._models = models
        self._stopping = threading.Event()
        self._state: str | None = "Models are being loaded."

    def start(self) -> None:
        """Begin to load."""
        threading.Thread(target=self._run, name="preload", daemon=True).start()

    def stop(self) -> None:
        """Try no further."""
        self._stopping.set()

    def state(self) -> str | None:
        """Return why requests must wait, None when all is loaded."""
        return self._state

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for extractor in self._extractors():
                    if extractor.output() is not None:
                        extractor.embed_query(_QUERY)
                self._state = None
            except OpenPeekError as error:
                if self._state != error.message:
                    log.warning("preload_waits", code=error.code, reason=error.message)
                self._state = error.message
                self._stopping.wait(RETRY_SECONDS)
            else:
                log.info("preloaded")
                return

    def _extractors(self) -> list[Extractor]:
        with self._database.reading() as session:
            used = [(row.extractor_name, row.parameters) for row in collections.models_in_use(session)]
        named = used or [("text_extractor", {})]
        return [registry.configure(name, parameters, self._models) for name, parameters in named]
