"""Which experts work on which language: `python -m benchmarks.expert_load FOLDER`, for any NomicBert checkpoint.

The texts (benchmarks/languages.json) say the same in every language, so that what differs is the language and not the
subject. Only the tokens of the texts are counted, not the prefix that stands before all of them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from domain.errors import OpenPeekError
from extractors.text_embedding.linear import Linear
from extractors.text_embedding.models import NOMIC
from extractors.text_embedding.nomic_moe import Mixture, NomicMoe, route
from extractors.text_embedding.tokens import TextTokenizer

TEXTS: Final = Path(__file__).with_name("languages.json")


@dataclass(frozen=True)
class Load:
    """What the routers of a model did with some texts.

    Attributes:
        tokens: how many were routed, N.
        shares: float64[layers with experts, E]: of all choices in a layer (two a token), those of each expert.
        weights: float64[layers with experts]: mean of what a token's chosen experts weigh together, below 1.
    """

    tokens: int
    shares: Tensor
    weights: Tensor


class Watched:
    """A router, and what it said last."""

    def __init__(self, router: Linear) -> None:
        self._router = router
        self.logits = torch.empty(0)

    def __call__(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """Return what the router says: float32[T, E]."""
        self.logits = self._router(rows, gelu=gelu)
        return self.logits


class Observatory:
    """A model whose routers are watched. Raises WeightsBroken when the folder holds none of this architecture."""

    def __init__(self, folder: Path) -> None:
        self._network = NomicMoe(str(folder), folder)
        self._tokenizer = TextTokenizer(folder, str(folder))
        self._routers: list[Watched] = []
        self.layers: list[int] = []
        for number, layer in enumerate(self._network.layers):
            if isinstance(layer.forward, Mixture):
                router = Watched(layer.forward.router)
                self._network.layers[number] = replace(layer, forward=replace(layer.forward, router=router))
                self._routers.append(router)
                self.layers.append(number)

    def load(self, texts: Sequence[str]) -> Load:
        """Send texts through the model together and return what its routers did with them."""
        prefix = NOMIC.document_prefix
        before = self._tokenizer.count([prefix.strip()])[0] - 1  # without the token that ends a text
        batch = sorted(self._tokenizer.encode([prefix + text for text in texts]), key=len)
        self._network.embed(batch)
        ends = [0, *torch.tensor([len(ids) for ids in batch]).cumsum(0).tolist()]
        counted = torch.cat([torch.arange(start + before, end - 1) for start, end in pairwise(ends)])
        shares, weights = zip(*(self._routed(router.logits[counted]) for router in self._routers), strict=True)
        return Load(len(counted), torch.stack(shares), torch.stack(weights))

    def _routed(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return float64[E], each expert's share of the choices, and the mean of the chosen weights' sums."""
        weights, chosen = route(logits, self._network.config.experts_per_token)
        counts = torch.bincount(chosen.flatten(), minlength=logits.shape[1]).double()
        return counts / counts.sum(), weights.double().sum(dim=1).mean()


def evenness(shares: Tensor) -> float:
    """Return the entropy of float64[E] as a share of the highest: 1 where all experts have the same load."""
    return float(torch.special.entr(shares).sum() / torch.tensor(float(len(shares))).log())


def distance(one: Tensor, other: Tensor) -> float:
    """Return which share of the choices would have to be others to make two loads, float64[E], alike: 0 to 1."""
    return float((one - other).abs().sum() / 2)


def report(layers: Sequence[int], loads: Mapping[str, Load]) -> list[str]:
    """Return the tables as lines of at most 80 characters."""
    experts = next(iter(loads.values())).shares.shape[1]
    lines = [f"Share of an expert in the choices of a layer, in per cent; {100 / experts:g} would be even."]
    for index, layer in enumerate(layers):
        heads = "".join(f"{expert:>6}" for expert in range(experts))
        lines += ["", f"{f'layer {layer}':<10}{'tokens':>7}{heads}{'weight':>8}"]
        for language, load in loads.items():
            shares = "".join(f"{100 * float(share):>6.1f}" for share in load.shares[index])
            lines.append(f"{language[:10]:<10}{load.tokens:>7,}{shares}{float(load.weights[index]):>8.2f}")
        mean = torch.stack([load.shares[index] for load in loads.values()]).mean(dim=0)
        apart = sum(distance(load.shares[index], mean) for load in loads.values()) / len(loads)
        lines.append(f"evenness of the mean {evenness(mean):.3f}; languages differ from it by {100 * apart:.1f} %")
    return lines


def main() -> None:
    """Measure the checkpoint that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.expert_load FOLDER")
    try:
        observatory = Observatory(Path(sys.argv[1]))
        loads = {language: observatory.load(texts) for language, texts in json.loads(TEXTS.read_text()).items()}
    except OpenPeekError as error:
        sys.exit(str(error))
    print("\n".join(report(observatory.layers, loads)))


if __name__ == "__main__":
    main()
