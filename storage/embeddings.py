"""The operator's embeddings server: any that speaks OpenAI's `/v1/embeddings`, text-embeddings-inference among them.

What goes wrong is told without the server's address, which callers of the API need not know, and without the key.
"""

import base64
import binascii
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from domain.errors import EmbeddingsServerAway, EmbeddingsServerWrong, ObjectFailed
from storage.fetch import Answer, Fetcher, SourceUnavailable

Vectors: TypeAlias = npt.NDArray[np.float32]

UNKNOWN_REVISION: Final = "remote"  # of a server that does not tell
DOCUMENT_SECONDS: Final = 50.0  # less than the minute after which a worker's lease counts as stuck
QUERY_SECONDS: Final = 10.0

_ONE_TRY: Final = 30.0
_INFO_SECONDS: Final = 3.0
_TRIES: Final = 3
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_ASK_AGAIN_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 1.0  # less than the pause after which a worker looks again
_MAX_REPLY: Final = 64 * 1024 * 1024
_MAX_INFO: Final = 1024 * 1024
_SHOWN: Final = 200
_COME_AGAIN: Final = frozenset({408, 424, 425, 429})  # 424: how text-embeddings-inference says that inference failed
_REFUSED: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class _Info:
    """What a server told of itself, and when."""

    asked_at: float
    model_id: str | None
    revision: str


class HttpEmbeddings:
    """A server that embeds, as `extractors.contract.EmbeddingsServer`. Threads may share one.

    Args:
        url: its address, with or without ``/v1`` and ``/v1/embeddings``.
        key: sent as ``Authorization: Bearer``.
        revision: which revision its model is; else what ``/info`` says, else `UNKNOWN_REVISION`.
        name: what the server calls the model; else the model's own id is sent.
        pause: waits so many seconds between tries.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        revision: str | None = None,
        name: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        root = url.rstrip("/").removesuffix("/embeddings").removesuffix("/v1")
        self._url = f"{root}/v1/embeddings"
        self._info_url = f"{root}/info"
        self._key = key
        self._stated = revision
        self._name = name
        self._pause = pause
        # The operator's own setting may lie on a private network, and may be reached without encryption.
        self._fetcher = Fetcher(allow_http=True, allow=("0.0.0.0/0", "::/0"))
        self._asking = threading.Lock()
        self._seen: _Info | None = None
        self._away: tuple[float, str] | None = None  # until when nobody need ask again, and why

    def revision(self, model_id: str) -> str:
        """Return which revision of the model it serves: as stated, as ``/info`` says, or `UNKNOWN_REVISION`.

        Raises:
            EmbeddingsServerAway: it does not answer.
            EmbeddingsServerWrong: ``/info`` names another model, or the key is refused.
        """
        if self._stated is not None:
            return self._stated
        with self._asking:
            now = time.monotonic()
            if self._away is not None and now < self._away[0]:
                raise EmbeddingsServerAway(model_id, self._away[1])  # those who queued here need not all wait for it
            if self._seen is None or now - self._seen.asked_at > _ASK_AGAIN_SECONDS:
                self._seen = self._away = None
                try:
                    self._seen = self._ask_info(model_id)
                except EmbeddingsServerAway as error:
                    self._away = (time.monotonic() + _AWAY_SECONDS, error.reason)
                    raise
            seen = self._seen
        # A path or a name of the operator's own says nothing; a repository's name says which model it is.
        if self._name is None and seen.model_id is not None and _is_other(seen.model_id, model_id):
            raise EmbeddingsServerWrong(model_id, f"it serves {seen.model_id[:_SHOWN]!r}.")
        return seen.revision

    def revision_at_hand(self) -> str | None:
        """Return the revision as far as it is known without asking."""
        seen = self._seen
        return self._stated or (seen.revision if seen else None)

    def embed(self, model_id: str, texts: Sequence[str], *, urgent: bool) -> Vectors:
        """Return float32[n, ?] as answered, in the order of the texts.

        Raises:
            EmbeddingsServerAway: it does not answer, after three tries.
            EmbeddingsServerWrong: it refuses, or its answer is not one vector per text.
        """
        body = orjson.dumps({"model": self._name or model_id, "input": list(texts), "encoding_format": "float"})
        deadline = time.monotonic() + (QUERY_SECONDS if urgent else DOCUMENT_SECONDS)
        answer = self._answer(model_id, body, deadline)
        return _vectors(model_id, answer.body, len(texts))

    def check(self, model_id: str) -> None:
        """Embed one word. Raises as `embed`."""
        self.embed(model_id, ["word"], urgent=True)

    def close(self) -> None:
        """Close the connections that were kept."""
        self._fetcher.close()

    def _answer(self, model_id: str, body: bytes, deadline: float) -> Answer:
        """Return the first good answer before the deadline."""
        away = "it took too long"
        for number in range(_TRIES):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                answer = self._send(model_id, "POST", self._url, body, _MAX_REPLY, min(left, _ONE_TRY))
            except EmbeddingsServerAway as error:
                away, wanted = error.reason, 0.0
            else:
                if answer.status < 500 and answer.status not in _COME_AGAIN:  # noqa: PLR2004
                    self._check(model_id, answer)
                    return answer
                away, wanted = f"it answered {answer.status}", _retry_after(answer)
            pause = max(wanted, _FIRST_PAUSE * 2**number * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            if number == _TRIES - 1 or time.monotonic() + pause >= deadline:
                break
            self._pause(min(pause, _LONGEST_PAUSE))
        self._seen = None  # whoever comes back may be another
        raise EmbeddingsServerAway(model_id, away)

    def _ask_info(self, model_id: str) -> "_Info":
        answer = self._send(model_id, "GET", self._info_url, b"", _MAX_INFO, _INFO_SECONDS)
        if answer.status >= 500 or answer.status in _COME_AGAIN:  # noqa: PLR2004
            raise EmbeddingsServerAway(model_id, f"it answered {answer.status} when asked for its revision")
        if answer.status in _REFUSED:
            self._check(model_id, answer)
        parsed = _json(answer.body) if answer.status == 200 else None  # noqa: PLR2004
        told = parsed if isinstance(parsed, dict) else {}
        theirs, revision = told.get("model_id"), told.get("model_sha")
        return _Info(
            time.monotonic(),
            theirs if isinstance(theirs, str) else None,
            revision if isinstance(revision, str) and revision else UNKNOWN_REVISION,
        )

    def _send(self, model_id: str, method: str, url: str, body: bytes, max_bytes: int, seconds: float) -> Answer:
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            return self._fetcher.exchange(
                method, url, headers=headers, body=body, max_bytes=max_bytes, timeout_seconds=seconds
            )
        except SourceUnavailable as error:
            raise _away(model_id, error) from None  # not chained: its message names the address
        except ObjectFailed as error:
            problem = "it sends more than any vectors need." if error.code == "SOURCE_TOO_LARGE" else "it is no server."
            raise EmbeddingsServerWrong(model_id, problem) from None

    def _check(self, model_id: str, answer: Answer) -> None:
        """Raise EmbeddingsServerWrong unless the status is a good one."""
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004 - the range says it
            return
        if status in _REFUSED:
            # Nothing of the body: servers repeat keys in this very answer, in part or in full.
            problem = f"it answered {status}. Is OPENPEEK_EMBEDDINGS_KEY right?"
        elif 300 <= status < 400:  # noqa: PLR2004
            problem = f"it answered {status}, a redirect. Set OPENPEEK_EMBEDDINGS_URL to where it leads."
        elif status == 404:  # noqa: PLR2004
            problem = f"it answered 404. Has it the model {self._name or model_id!r}, and a route /v1/embeddings?"
        else:
            problem = f"it answered {status}{self._words(answer.body)}."
        raise EmbeddingsServerWrong(model_id, problem)

    def _words(self, body: bytes) -> str:
        """Return what a server says for itself, cut short and without the key."""
        parsed = _json(body)
        error = parsed.get("error", parsed.get("message")) if isinstance(parsed, dict) else None
        text = error.get("message") if isinstance(error, dict) else error
        if not isinstance(text, str):
            return ""
        if self._key:
            text = text.replace(self._key, "…")
        shown = "".join(character if character.isprintable() else " " for character in text)[:_SHOWN]
        return f": {shown}".rstrip(". ")


def _vectors(model_id: str, body: bytes, wanted: int) -> Vectors:
    """Return float32[n, ?] from an answer, or raise EmbeddingsServerWrong."""
    parsed = _json(body)
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        raise EmbeddingsServerWrong(model_id, "its answer is not a list of embeddings.")
    if len(data) != wanted:
        raise EmbeddingsServerWrong(model_id, f"it answered {len(data)} vectors for {wanted} texts.")
    rows: list[Vectors | None] = [None] * wanted
    for place, one in enumerate(data):
        index = one.get("index", place) if isinstance(one, dict) else -1
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < wanted or rows[index] is not None:
            raise EmbeddingsServerWrong(model_id, "its answer does not say which vector belongs to which text.")
        rows[index] = _row(model_id, one.get("embedding"))
    widths = {len(row) for row in rows if row is not None}
    if len(widths) > 1:
        raise EmbeddingsServerWrong(model_id, f"it answered vectors of different widths: {sorted(widths)[:10]}.")
    return np.stack([row for row in rows if row is not None]) if rows else np.empty((0, 0), np.float32)


def _row(model_id: str, embedding: Any) -> Vectors:
    """Return one vector, which some servers pack as base64 although they were asked for numbers."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
        row = np.asarray(embedding)
        if row.ndim == 1 and row.dtype.kind in "fi" and len(row):
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
                return row.astype(np.float32)
    except (binascii.Error, ValueError, OverflowError):
        pass
    raise EmbeddingsServerWrong(model_id, "its answer holds an embedding that is not a list of numbers.")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _is_other(theirs: str, model_id: str) -> bool:
    is_repository = theirs.count("/") == 1 and not theirs.startswith(("/", ".", "~"))
    return is_repository and theirs.casefold() != model_id.casefold()


def _retry_after(answer: Answer) -> float:
    value = answer.headers.get("retry-after", "")
    return min(float(value), _LONGEST_PAUSE) if value.isascii() and value.isdigit() else 0.0


def _away(model_id: str, error: SourceUnavailable) -> EmbeddingsServerAway:
    return EmbeddingsServerAway(model_id, error.reason)
