"""BEIR's SciFact: reading it, and the score of a model on it. A folder with the data is the user's to bring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from domain.errors import Invalid
from extractors.contract import Vectors
from extractors.text_embedding import verification
from extractors.text_embedding.engine import Engine

HOW_TO_GET: Final = (
    "curl -LO https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/scifact.zip\nunzip scifact.zip"
)
_DEPTH: Final = 10
_TEXTS_AT_ONCE: Final = 32  # enough to batch, few enough for a bar that moves


@dataclass(frozen=True, slots=True)
class Scifact:
    """The data.

    Attributes:
        documents: id → title and abstract.
        queries: id → claim; those that are judged.
        judged: query id → document id → how relevant it is.
    """

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judged: Mapping[str, Mapping[str, int]]


def read(folder: Path) -> Scifact:
    """Read corpus.jsonl, queries.jsonl and qrels/test.tsv.

    Raises:
        Invalid: a file is missing, or a line is not of BEIR's form; it is named.
    """
    documents = {key: f"{one.get('title', '')} {one['text']}".strip() for key, one in _lines(folder / "corpus.jsonl")}
    queries = {key: str(one["text"]) for key, one in _lines(folder / "queries.jsonl")}
    judged = _judged(folder / "qrels" / "test.tsv")
    unknown = [key for key in judged if key not in queries]
    unknown += [key for found in judged.values() for key in found if key not in documents]
    if unknown or not judged:
        problem = f"names {unknown[0]!r}, which the other files lack" if unknown else "judges nothing"
        raise Invalid(f"{folder / 'qrels' / 'test.tsv'} {problem}. Get the data again:\n{HOW_TO_GET}")
    return Scifact(documents, {key: queries[key] for key in judged}, judged)


def score(engine: Engine, data: Scifact, progress: Callable[[int], None]) -> float:
    """Return the mean nDCG@10 of exact search by cosine; texts are cut where the model stops reading.

    Args:
        engine: the model.
        data: what `read` returned.
        progress: called with the number of texts that were embedded since the last call.
    """
    model = engine.model
    documents = _embed(engine, list(data.documents.values()), model.document_prefix, progress)
    queries = _embed(engine, list(data.queries.values()), model.query_prefix, progress)
    ids = np.array(list(data.documents))
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :_DEPTH]
    rankings = dict(zip(data.queries, ids[order].tolist(), strict=True))
    return sum(ndcg(rankings[query], found) for query, found in data.judged.items()) / len(data.judged)


def ndcg(ranking: list[str], relevance: Mapping[str, int]) -> float:
    """Return nDCG@10 of one query: relevance over log2(rank + 1), as a share of the best possible order."""
    there = _gain([relevance.get(key, 0) for key in ranking[:_DEPTH]])
    best = _gain(sorted(relevance.values(), reverse=True)[:_DEPTH])
    return there / best if best else 0.0


def _gain(relevances: list[int]) -> float:
    return sum(relevance / log2(rank + 1) for rank, relevance in enumerate(relevances, 1))


def _embed(engine: Engine, texts: list[str], prefix: str, progress: Callable[[int], None]) -> Vectors:
    pieces = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        fitting, _ = verification.cut(engine, texts[start : start + _TEXTS_AT_ONCE], prefix)
        pieces.append(engine.encode(fitting))
        progress(len(fitting))
    return np.concatenate(pieces)


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return id and content of each line. Raises Invalid."""
    found = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            parsed = orjson.loads(line)
            found.append((str(parsed["_id"]), {**parsed, "text": str(parsed["text"])}))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise Invalid(f'{path}, line {number} is not of the form {{"_id": "…", "text": "…"}}.') from error
    return found


def _judged(path: Path) -> dict[str, dict[str, int]]:
    """Return query id → document id → relevance; the first line is a heading. Raises Invalid."""
    judged: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_text(path).splitlines()[1:], 2):
        try:
            query, document, relevance = line.split("\t")
            judged.setdefault(query, {})[document] = int(relevance)
        except ValueError as error:
            raise Invalid(f"{path}, line {number} is not query, document and a number between tabs.") from error
    return judged


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read. SciFact in BEIR's form is had with:\n{HOW_TO_GET}") from error
