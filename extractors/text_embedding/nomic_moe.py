"""NomicBert with a mixture of experts, in torch: inference of nomic-embed-text-v2-moe.

Shapes: T tokens of all texts of a batch, packed without padding; B texts; L tokens of one; D width of the
model; H heads of D/H; F width of the feed-forward part; E experts, of which K work on a token.

Source: Nussbaum and Duderstadt 2025, arXiv:2502.07972, and the layout of the published checkpoint.
Checked against an independent float64 oracle in tests/model. How it became fast: docs/adr/0008.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from domain.errors import WeightsBroken
from extractors.text_embedding.checkpoint import Checkpoint
from extractors.text_embedding.linear import TILE, Linear, feed_forward, prepare
from extractors.text_embedding.models import Precision
from extractors.text_embedding.nomic_config import Config, layout, read
from extractors.text_embedding.weights import WEIGHTS, check_layout, read_header


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm with weight and bias, float32[D]."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return float32[T, D], each row normalised."""
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Two products with the exact GELU between them."""

    first: Linear
    second: Linear

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return float32[T, D] for float32[T, D]."""
        return feed_forward(self.first, self.second, hidden)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Experts of which the router chooses K for every token, and one bias [D] that all of them share."""

    router: Linear
    experts: Sequence[FeedForward]
    bias: Tensor
    top_k: int

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return float32[T, D]: each token's experts, weighted, plus the bias.

        Tokens are brought together by expert, so that an expert's weights are read once.
        """
        weights, chosen = route(self.router(hidden), self.top_k)
        tokens, counts, places = by_expert(chosen, len(self.experts))
        gathered = torch.split(hidden.index_select(0, tokens), counts)
        outputs = torch.cat([expert(rows) for expert, rows in zip(self.experts, gathered, strict=True) if len(rows)])
        slots = outputs.index_select(0, places).view(len(hidden), self.top_k, -1)
        mixed = self.bias + slots[:, 0] * weights[:, :1]
        for rank in range(1, self.top_k):
            mixed.addcmul_(slots[:, rank], weights[:, rank, None])
        return mixed


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention, then the feed-forward part, each normalised *after* its residual."""

    heads: int
    attention: Linear  # D → 3 D: queries and keys with the two halves of each plane side by side, then values
    output: Linear
    norm1: Norm
    forward: FeedForward | Mixture
    norm2: Norm

    def __call__(self, hidden: Tensor, spans: "Spans", turns: Tensor) -> Tensor:
        """Return float32[T, D].

        Args:
            hidden: float32[T, D].
            spans: which token belongs to which text.
            turns: complex64[T, 1, D/H/2], see `rotation`.
        """
        hidden = self.norm1(self._attend(hidden, spans, turns).add_(hidden))
        return self.norm2(self.forward(hidden).add_(hidden))

    def _attend(self, hidden: Tensor, spans: "Spans", turns: Tensor) -> Tensor:
        """Return float32[T, D]: every token looks at all tokens of its own text, in both directions."""
        tokens, width = hidden.shape
        fused = self.attention(hidden)
        # Rotating a pair of numbers is multiplying one complex number.
        planes = torch.view_as_complex(fused[:, : 2 * width].view(tokens, 2 * self.heads, -1, 2))
        planes.mul_(turns)
        query, key, value = fused.view(tokens, 3, self.heads, -1).unbind(1)
        seen = torch.empty_like(hidden).view(tokens, self.heads, -1)
        seen[tokens - spans.filling :] = 0
        for rows, texts in spans.of_one_length:
            # [texts · L, H, D/H] → [texts, H, L, D/H]: texts of one length need no padding and no mask.
            q, k, v = (part[rows].view(texts, -1, *part.shape[1:]).transpose(1, 2) for part in (query, key, value))
            seen[rows] = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
        return self.output(seen.view(tokens, width))


class NomicMoe:
    """The model: token ids in, unit vectors out.

    Args:
        model_id: for messages.
        folder: with config.json and model.safetensors.
        device: ``cpu``, or another that torch knows; there, plain products in float32.
        precision: ``fp32``, or ``int8`` for all products but the router's and those inside the attention.
        passing: build each layer when it is its turn, and let go of it: for a single batch, in a tenth of the memory.

    Raises:
        WeightsBroken: config or checkpoint are not those of this architecture; tensors are named.
    """

    def __init__(
        self,
        model_id: str,
        folder: Path,
        device: str = "cpu",
        precision: Precision = "fp32",
        *,
        passing: bool = False,
    ) -> None:
        self.config = read(model_id, folder)
        header = read_header(model_id, folder / WEIGHTS)
        check_layout(model_id, header, layout(self.config))
        build = _Builder(self.config, Checkpoint(folder / WEIGHTS, device), precision)
        self._words = build.tensors.mapped("embeddings.word_embeddings.weight")
        self._kind = build.tensors["embeddings.token_type_embeddings.weight"][0]
        self._norm = build.norm("emb_ln")
        self._build = build
        self._layers = None if passing else [build.layer(number) for number in range(self.config.layers)]
        self._model_id = model_id
        self._device = device
        self.is_padding = False
        self.tokens_at_once = 2_048 if precision == "int8" else 1_024

    @property
    def layers(self) -> Iterable[Layer]:
        """The layers, in their order."""
        if self._layers is not None:
            return self._layers
        return (self._build.layer(number) for number in range(self.config.layers))

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]], pause: Callable[[], None] = lambda: None) -> Tensor:
        """Return float32[B, D], unit length: the mean over each text's tokens, prefix and specials included.

        Args:
            batch: token ids of each of B texts, without padding; those of one length side by side are faster.
            pause: called after every layer; whoever computes something long lets others have their turn there.

        Raises:
            WeightsBroken: a token is not in the table of words.
        """
        spans = Spans([len(ids) for ids in batch], self._device)
        hidden = self.look_up([token for ids in batch for token in ids] + [0] * spans.filling)
        turns = rotation(spans.positions, self.config.width // self.config.heads, self.config.rotary_base)
        for layer in self.layers:
            hidden = layer(hidden, spans, turns)
            pause()
        return F.normalize(spans.means(hidden), dim=-1)

    def look_up(self, tokens: Sequence[int]) -> Tensor:
        """Return float32[T, D]: words plus the first token type, normalised. No positions.

        Raises:
            WeightsBroken: a token is not in the table of words.
        """
        highest = max(tokens)
        if highest >= self.config.vocabulary:
            problem = f"its tokenizer says token {highest}; the table of words has {self.config.vocabulary} rows."
            raise WeightsBroken(self._model_id, problem)
        words = F.embedding(torch.tensor(tokens, device=self._device), self._words).float()
        return self._norm(words + self._kind)


def route(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Choose experts for each token.

    Args:
        logits: float32[T, E], what the router says.
        top_k: how many experts work on a token, K.

    Returns:
        weights, float32[T, K]: softmax over *all* experts, not renormalised over the chosen ones, so a row
        sums to less than 1; experts, int64[T, K].
    """
    weights, chosen = logits.softmax(dim=-1).topk(top_k, dim=-1)
    return weights, chosen


def by_expert(chosen: Tensor, experts: int) -> tuple[Tensor, list[int], Tensor]:
    """Bring tokens together by the expert that works on them, each expert's share filled up to whole tiles of rows.

    Args:
        chosen: int64[T, K], the experts of each token.
        experts: how many there are, E.

    Returns:
        tokens, int64[P]: which token lies at each place, any token where a tile is filled up; counts: how many
        places each expert has; places, int64[T·K]: where each token's K experts have it.
    """
    slots = chosen.flatten()
    order = slots.argsort(stable=True)
    counts = slots.bincount(minlength=experts)
    room = (counts + TILE - 1) // TILE * TILE
    filled_before = (room - counts).cumsum(0) - (room - counts)
    in_order = torch.arange(len(slots), device=chosen.device) + filled_before.repeat_interleave(counts)
    places = torch.empty_like(order).index_copy_(0, order, in_order)
    tokens = order.new_zeros(int(room.sum())).index_copy_(0, in_order, order // chosen.shape[1])
    return tokens, room.tolist(), places


def rotation(positions: Tensor, size: int, base: float) -> Tensor:
    """Return complex64[T, 1, size/2]: by what each plane of a token's queries and keys is multiplied."""
    frequency = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size)
    angle = positions[:, None].float() * frequency[None, :]
    return torch.polar(torch.ones_like(angle), angle)[:, None, :]


class Spans:
    """Which tokens of the packed batch belong to which text.

    Attributes:
        filling: how many tokens that belong to no text stand at the end, so that T makes whole tiles.
        positions: int64[T], the place of each token in its text, from 0.
        of_one_length: runs of texts of the same length, as (their tokens, how many texts).
    """

    def __init__(self, lengths: Sequence[int], device: str) -> None:
        self._lengths = torch.tensor(lengths, device=device)
        self._text_of_token = torch.repeat_interleave(torch.arange(len(lengths), device=device), self._lengths)
        self.filling = -sum(lengths) % TILE
        self.positions = torch.cat([torch.arange(length, device=device) for length in (*lengths, self.filling)])
        self.of_one_length: list[tuple[slice, int]] = []
        start = 0
        for length, run in groupby(lengths):
            texts = len(list(run))
            self.of_one_length.append((slice(start, start + texts * length), texts))
            start += texts * length

    def means(self, hidden: Tensor) -> Tensor:
        """Return float32[B, D], the mean of each text's rows of float32[T, D]."""
        sums = torch.zeros(len(self._lengths), hidden.shape[1], device=hidden.device)
        return sums.index_add_(0, self._text_of_token, hidden[: len(self._text_of_token)]) / self._lengths[:, None]


@dataclass(frozen=True, slots=True)
class _Builder:
    """Makes layers of a checkpoint's tensors, and lets go of each as soon as its product is prepared."""

    config: Config
    tensors: Checkpoint
    precision: Precision

    def layer(self, number: int) -> Layer:
        name = f"encoder.layers.{number}"
        side_by_side = self._side_by_side()
        weight, bias = (self.tensors[f"{name}.attn.Wqkv.{kind}"][side_by_side] for kind in ("weight", "bias"))
        return Layer(
            heads=self.config.heads,
            attention=self._prepare(weight, bias),
            output=self._linear(f"{name}.attn.out_proj"),
            norm1=self.norm(f"{name}.norm1"),
            forward=self._mixture(f"{name}.mlp") if self.config.has_experts(number) else self._dense(f"{name}.mlp"),
            norm2=self.norm(f"{name}.norm2"),
        )

    def norm(self, name: str) -> Norm:
        return Norm(self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], self.config.epsilon)

    def _dense(self, name: str) -> FeedForward:
        return FeedForward(self._linear(f"{name}.fc1"), self._linear(f"{name}.fc2"))

    def _mixture(self, name: str) -> Mixture:
        """``w1`` and ``w2`` are both [E·F, D]: an expert computes gelu(x @ w1.T) @ w2, w2 not transposed."""
        count = self.config.experts
        first, second = (self.tensors[f"{name}.experts.mlp.{part}"].chunk(count) for part in ("w1", "w2"))
        return Mixture(
            router=prepare(self.tensors[f"{name}.router.layer.weight"], None, "fp32"),
            experts=[
                FeedForward(self._prepare(w1, None), self._prepare(w2.T, None))
                for w1, w2 in zip(first, second, strict=True)
            ],
            bias=self.tensors[f"{name}.experts.bias"],
            top_k=self.config.experts_per_token,
        )

    def _linear(self, name: str) -> Linear:
        return self._prepare(self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def _prepare(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return prepare(weight, bias, self.precision)

    def _side_by_side(self) -> Tensor:
        """Return the order of rows of Wqkv that puts the halves of each plane of queries and keys side by side.

        The checkpoint pairs dimension j of a head with j + size/2 (NeoX). Queries and keys may be reordered alike:
        their products stay the same.
        """
        width, size = self.config.width, self.config.width // self.config.heads
        rows = torch.arange(3 * width)
        rows[: 2 * width] = rows[: 2 * width].view(-1, 2, size // 2).transpose(1, 2).flatten()
        return rows
