"""A model in any folder: which architecture it has, how much it reads and what it wants before a text.

Said by the files themselves, where they say it, and otherwise by the family that the folder's name tells.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from domain.errors import WeightsBroken
from extractors.text_embedding import models, weights
from extractors.text_embedding.models import NOMIC, Model

_UNBOUNDED: Final = 1_000_000  # tokenizers without a limit name a number beyond this
_PLAIN_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
_E5: Final = re.compile(r"(^|[-_/])e5([-_/]|$)")
# RoBERTa's positions begin behind the padding's, so that many of them are never used.
_ROBERTA: Final = frozenset({"roberta", "xlm-roberta", "mpnet"})


def describe(folder: Path) -> Model:
    """Return the model that lies in a folder.

    Raises:
        WeightsBroken: files are missing; or it is of a kind that would be embedded wrongly here, such as one whose
            vector is not the mean over its tokens.
    """
    name = folder.resolve().name
    absent = [file for file in (weights.CONFIG, weights.WEIGHTS, weights.TOKENIZER) if not (folder / file).is_file()]
    if absent:
        raise WeightsBroken(name, f"{', '.join(absent)} missing in {folder}.")
    config = weights.read_config(name, folder)
    if config.get("model_type") == "nomic_bert":
        return _nomic(name, folder, config)
    return _sentence_transformer(name, folder, config)


def _nomic(name: str, folder: Path, config: Mapping[str, Any]) -> Model:
    if not config.get("num_experts"):
        problem = f"{folder} is a nomic_bert without experts; of that architecture the mixtures of experts run here."
        raise WeightsBroken(name, problem)
    return Model(
        model_id=name,
        inference_name=name,
        family="nomic_moe",
        revision="",
        width=_number(name, config, "n_embd"),
        narrowest=1,
        # The config speaks of more positions than the model was ever trained on.
        max_tokens=_stated_length(folder) or NOMIC.max_tokens,
        document_prefix=NOMIC.document_prefix,
        query_prefix=NOMIC.query_prefix,
        folder=folder,
    )


def _sentence_transformer(name: str, folder: Path, config: Mapping[str, Any]) -> Model:
    _check_pooling(name, folder)
    document_prefix, query_prefix = _prefixes(name, folder, config)
    positions = _number(name, config, "max_position_embeddings")
    if config.get("model_type") in _ROBERTA:
        positions -= int(config.get("pad_token_id") or 1) + 1
    return Model(
        model_id=name,
        inference_name=name,
        family="transformers",
        revision="",
        width=_number(name, config, "hidden_size"),
        narrowest=1,
        max_tokens=min(positions, _stated_length(folder) or positions),
        document_prefix=document_prefix,
        query_prefix=query_prefix,
        folder=folder,
    )


def _check_pooling(name: str, folder: Path) -> None:
    """Raise WeightsBroken where the vector is something else than the mean over the tokens."""
    pooling = _read(folder / "1_Pooling" / "config.json")
    others = [
        mode
        for mode, on in pooling.items()
        if on is True and mode.startswith("pooling_mode_") and "_mean_tokens" not in mode
    ]
    if others or pooling.get("pooling_mode_mean_tokens") is False:
        problem = (
            f"its pooling is {', '.join(others) or 'none'}; models whose vector is the mean over the tokens run here."
        )
        raise WeightsBroken(name, problem)
    modules = _read(folder / "modules.json", list)
    kinds = {str(one.get("type", "")).rsplit(".", 1)[-1] for one in modules if isinstance(one, dict)}
    if kinds - _PLAIN_MODULES:
        raise WeightsBroken(name, f"it has further layers ({', '.join(sorted(kinds - _PLAIN_MODULES))}).")


def _prefixes(name: str, folder: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    """Return what stands before documents and before queries."""
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts")
    if isinstance(prompts, dict) and prompts:
        document = next((prompts[key] for key in ("document", "passage") if isinstance(prompts.get(key), str)), "")
        query = prompts.get("query")
        return document, query if isinstance(query, str) else ""
    called = f"{config.get('_name_or_path') or ''}/{name}".casefold()
    known = [model for model in models.all_known() if model.model_id.rpartition("/")[2].casefold() in called]
    if known:
        best = max(known, key=lambda model: len(model.model_id))  # multilingual-e5-large-instruct, not …-e5-large
        return best.document_prefix, best.query_prefix
    if _E5.search(called) and "instruct" not in called:
        return "passage: ", "query: "
    return "", ""


def _stated_length(folder: Path) -> int | None:
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        length = _read(folder / file).get(key)
        if isinstance(length, int) and 0 < length < _UNBOUNDED:
            return length
    return None


def _number(name: str, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsBroken(name, f"its config.json says {key}: {value!r}, and a positive number is needed.")
    return value


def _read(path: Path, kind: type = dict) -> Any:
    """Return what a file holds, or something empty: these files may be absent."""
    with suppress(OSError, ValueError):
        parsed = json.loads(path.read_text())
        if isinstance(parsed, kind):
            return parsed
    return kind()
