"""The pages of docs/models, written from the cards of the models and from benchmarks/models.json.

`python -m benchmarks.model_pages` writes them; with `--check` it writes nothing and exits with 1 if one is stale.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from api.model_cards import how_to_get
from extractors.contract import ModelHome
from extractors.text_embedding import TextEmbedding, cards, models
from extractors.text_embedding.cards import Card
from extractors.text_embedding.models import Model
from retrieval.companions import stages_of_vectors

ROOT: Final = Path(__file__).parent.parent
FIGURES: Final = ROOT / "benchmarks" / "models.json"
PAGES: Final = ROOT / "docs" / "models"
WORDS: Final = {
    "tokens_per_second_fp32": ("Speed, fp32", "tokens/s"),
    "tokens_per_second_int8": ("Speed, int8", "tokens/s"),
    "memory_mb_fp32": ("Memory of the process, fp32", "MB"),
    "memory_mb_int8": ("Memory of the process, int8", "MB"),
    "int8_loss": ("Loss by int8", "points of nDCG@10"),
    "dimensions_256_loss": ("Loss by 256 dimensions", "points of nDCG@10"),
}
GENERATED: Final = (
    "<!-- Written by `make docs` (benchmarks/model_pages.py): edit the cards or benchmarks/models.json. -->"
)


def pages() -> dict[Path, str]:
    """Return what should be in docs/models: path → text."""
    figures = json.loads(FIGURES.read_text())
    known = [model for model in models.all_known() if cards.find(model) is not None]  # others are a plugin's
    made = {PAGES / "README.md": _index(known)}
    for model in known:
        card = cards.find(model)
        assert card is not None, f"{model.model_id} has no card"
        made[PAGES / f"{_short(model)}.md"] = _page(model, card, figures)
    return made


def stale() -> list[Path]:
    """Return the pages that are not as they should be, or should not be there."""
    wanted = pages()
    there = {path: path.read_text() for path in PAGES.glob("*.md")}
    return sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def _index(known: list[Model]) -> str:
    rows = []
    for model in known:
        card = cards.find(model)
        assert card is not None
        size = f"{card.parameters / 1e6:,.0f} M"
        rows.append(f"| [{model.model_id}]({_short(model)}.md) | {size} | {model.width} | {card.summary} |")
    return "\n".join(
        [
            "# Models",
            "",
            GENERATED,
            "",
            "A collection names one as `model_id`; `openpeek model list` says which weights are on a machine, and",
            "`GET /v1/discovery/models` what a server knows. [How the mixture of experts works](../how-moe-works.md).",
            "",
            "| Model | Parameters | Dimensions | |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _page(model: Model, card: Card, figures: Mapping[str, Any]) -> str:
    body = json.dumps(cards.collection_body(model), indent=2)
    return "\n".join(
        [
            f"# {model.model_id}",
            "",
            GENERATED,
            "",
            card.summary,
            "",
            *_facts(model, card),
            "",
            "## Published results",
            "",
            *_published(card),
            "",
            "## Measured here",
            "",
            *_measured(figures, model),
            "",
            "## Weights",
            "",
            f"{how_to_get(model, ModelHome('.'))} {_files(model)}",
            f"`openpeek model verify --model {_short(model)}` checks what can be checked of them without the network.",
            "",
            "## Used with",
            "",
            f"Extractor `{TextEmbedding.name}` {TextEmbedding.version}; retriever stages "
            + ", ".join(f"`{stage}`" for stage in stages_of_vectors())
            + "; `POST /v1/embeddings`.",
            "",
            "## A collection of it",
            "",
            "`POST /v1/collections`, over a bucket `texts` whose objects have a text `body`:",
            "",
            "```json",
            body,
            "```",
            "",
        ]
    )


def _facts(model: Model, card: Card) -> list[str]:
    active = f"; {card.active_parameters / 1e6:,.0f} M of them work on a token" if card.active_parameters else ""
    title, _, address = card.paper.partition(", https://")
    address, _, more = address.partition(";")
    rows = {
        "Feature URI": f"`{cards.feature_uri(model)}`",
        "Architecture": card.architecture,
        "Parameters": f"{_count(card.parameters)}{active}",
        "Dimensions": cards.dimensions(model),
        "Languages": card.languages,
        "Reads": f"{model.max_tokens} tokens, prefix and special tokens included",
        "Prefix of documents": _code(model.document_prefix),
        "Prefix of queries": _code(model.query_prefix),
        "Licence": model.licence,
        "Paper": f"[{title}](https://{address})" + (f";{more}" if more else ""),
        "Pinned revision": f"`{model.revision}`",
    }
    return ["| | |", "|---|---|", *(f"| {label} | {text} |" for label, text in rows.items())]


def _published(card: Card) -> list[str]:
    if not card.scores:
        return ["None that we could trace to its source."]
    rows = [f"| {score.benchmark} | {score.value:g} | {score.source} |" for score in card.scores]
    return ["| Benchmark | Result | Source |", "|---|---|---|", *rows]


def _measured(figures: Mapping[str, Any], model: Model) -> list[str]:
    rows = []
    for key, figure in figures["models"][model.model_id].items():
        label, unit = WORDS[key]
        if figure is None:
            rows.append(f"| {label} | not measured yet | |")
        else:
            how = [figure["date"], f"`{figure['command']}`", figure.get("note", "")]
            rows.append(f"| {label} | {figure['value']:,} {unit} | {'; '.join(part for part in how if part)} |")
    return [f"On {figures['machine']}.", "", "| | | |", "|---|---|---|", *rows]


def _files(model: Model) -> str:
    size = f"The download is {model.size_bytes / 1e6:,.0f} MB. " if model.size_bytes and not model.package else ""
    if not model.sha256:
        return f"{size}No hashes of the files are known here."
    return f"{size}SHA-256 is checked of " + ", ".join(f"`{name}`" for name in model.sha256) + "."


def _code(prefix: str) -> str:
    return f"`{json.dumps(prefix)}`" if prefix else "none"


def _count(parameters: int) -> str:
    return f"{parameters:,}" if parameters % 1_000_000 else f"{parameters / 1e6:,.0f} M"


def _short(model: Model) -> str:
    return model.model_id.rpartition("/")[2]


def main() -> None:
    """Write the pages, or check them."""
    found = stale()
    if "--check" in sys.argv[1:]:
        if found:
            names = ", ".join(str(path.relative_to(ROOT)) for path in found)
            sys.exit(f"Stale: {names}. Run `make docs`.")
        return
    wanted = pages()
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in found:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
