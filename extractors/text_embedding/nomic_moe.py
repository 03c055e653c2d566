"""NomicBert with a mixture of experts, in torch: exact float32 inference of nomic-embed-text-v2-moe.

Shapes: T tokens of all texts of a batch, without padding; B texts; L tokens of one; D width of the
model; H heads of D/H; F width of the feed-forward part; E experts, of which K work on a token.

Source: Nussbaum and Duderstadt 2025, arXiv:2502.07972, and the layout of the published checkpoint.
Checked against an independent float64 oracle in tests/model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from domain.errors import WeightsBroken
from extractors.text_embedding.weights import CONFIG, WEIGHTS, check_layout, read_config, read_header

# How many rows a matrix product takes at once: see `multiply`.
_FEWEST_ROWS: Final = 16
_MOST_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Config:
    """What config.json says of a checkpoint."""

    width: int
    heads: int
    inner: int
    layers: int
    vocabulary: int
    token_types: int
    experts: int
    experts_per_token: int
    moe_every: int
    rotary_base: float
    epsilon: float

    def has_experts(self, layer: int) -> bool:
        """Say whether a layer's feed-forward part is a mixture: every second one, beginning with the second."""
        return layer % self.moe_every == 1


# What config.json must say, key by key; the arithmetic below is that of these values and no others.
_DEMANDED: Final[dict[str, Any]] = {
    "model_type": "nomic_bert",
    "prenorm": False,
    "rotary_emb_interleaved": False,
    "rotary_emb_fraction": 1.0,
    "moe_normalize_expert_weights": False,
    "activation_function": "gelu",
    "qkv_proj_bias": True,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "moe_every_n_layers": 2,
}
# What it may leave unsaid, but not contradict.
_UNDISPUTED: Final[dict[str, Any]] = {
    "parallel_block": False,
    "causal": False,
    "add_pooling_layer": False,
    "use_rms_norm": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "num_shared_experts": 0,
    "expert_choice_router": False,
    "ffn_div": 1,
}


def read(model_id: str, folder: Path) -> Config:
    """Read config.json.

    Raises:
        WeightsBroken: a key is missing, or asks for something that this model never was; the key is named.
    """
    raw = read_config(model_id, folder)
    for key, value in (_DEMANDED | _UNDISPUTED).items():
        if raw.get(key, _UNDISPUTED.get(key)) != value:
            problem = f"{folder / CONFIG} says {key}: {raw.get(key)!r}; only {value!r} is understood."
            raise WeightsBroken(model_id, problem)
    config = Config(
        width=_whole(model_id, raw, "n_embd"),
        heads=_whole(model_id, raw, "n_head"),
        inner=_whole(model_id, raw, "n_inner"),
        layers=_whole(model_id, raw, "n_layer"),
        vocabulary=_whole(model_id, raw, "vocab_size"),
        token_types=_whole(model_id, raw, "type_vocab_size"),
        experts=_whole(model_id, raw, "num_experts"),
        experts_per_token=_whole(model_id, raw, "moe_top_k"),
        moe_every=_whole(model_id, raw, "moe_every_n_layers"),
        rotary_base=_number(model_id, raw, "rotary_emb_base"),
        epsilon=_number(model_id, raw, "layer_norm_epsilon"),
    )
    if config.width % (2 * config.heads):
        raise WeightsBroken(model_id, f"n_embd: {config.width} is not a multiple of twice n_head: {config.heads}.")
    if config.experts_per_token > config.experts:
        problem = f"moe_top_k: {config.experts_per_token} is more than num_experts: {config.experts}."
        raise WeightsBroken(model_id, problem)
    return config


def _whole(model_id: str, raw: dict[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsBroken(model_id, f"{CONFIG} says {key}: {value!r}, where a positive whole number belongs.")
    return value


def _number(model_id: str, raw: dict[str, Any], key: str) -> float:
    value = raw.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise WeightsBroken(model_id, f"{CONFIG} says {key}: {value!r}, where a positive number belongs.")
    return float(value)


def layout(config: Config) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a checkpoint with its shape; 148 of them for nomic-embed-text-v2-moe."""
    d, inner, experts = config.width, config.inner, config.experts
    tensors: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, d),
        "embeddings.token_type_embeddings.weight": (config.token_types, d),
        "emb_ln.weight": (d,),
        "emb_ln.bias": (d,),
    }
    for i in range(config.layers):
        layer = f"encoder.layers.{i}"
        tensors |= {
            f"{layer}.attn.Wqkv.weight": (3 * d, d),
            f"{layer}.attn.Wqkv.bias": (3 * d,),
            f"{layer}.attn.out_proj.weight": (d, d),
            f"{layer}.attn.out_proj.bias": (d,),
        }
        tensors |= {f"{layer}.{norm}.{kind}": (d,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
        if config.has_experts(i):
            tensors |= {
                f"{layer}.mlp.router.layer.weight": (experts, d),
                f"{layer}.mlp.experts.mlp.w1": (experts * inner, d),
                f"{layer}.mlp.experts.mlp.w2": (experts * inner, d),
                f"{layer}.mlp.experts.bias": (d,),
            }
        else:
            tensors |= {
                f"{layer}.mlp.fc1.weight": (inner, d),
                f"{layer}.mlp.fc1.bias": (inner,),
                f"{layer}.mlp.fc2.weight": (d, inner),
                f"{layer}.mlp.fc2.bias": (d,),
            }
    return tensors


class NomicMoe:
    """The model: token ids in, unit vectors out.

    Raises:
        WeightsBroken: config or checkpoint are not those of this architecture; tensors are named.
    """

    def __init__(self, model_id: str, folder: Path, device: str = "cpu") -> None:
        self.config = read(model_id, folder)
        check_layout(model_id, read_header(model_id, folder / WEIGHTS), layout(self.config))
        tensors = load_file(folder / WEIGHTS, device=device)
        # F16 and BF16 checkpoints are widened once; float32 ones stay mapped from the file, without a copy.
        self._tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self._model_id = model_id
        self._device = device

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Return float32[B, D], unit length: the mean over each text's tokens, prefix and specials included.

        Args:
            batch: token ids of each of B texts, without padding.

        Raises:
            WeightsBroken: a token is not in the table of words.
        """
        spans = _Spans([len(ids) for ids in batch], self._device)
        flat = torch.tensor([token for ids in batch for token in ids], device=self._device)
        if (highest := int(flat.max())) >= self.config.vocabulary:
            problem = f"its tokenizer says token {highest}; the table of words has {self.config.vocabulary} rows."
            raise WeightsBroken(self._model_id, problem)
        hidden = self._embeddings(flat)
        turn = _rotation(spans.positions, self.config.width // self.config.heads, self.config.rotary_base)
        for layer in range(self.config.layers):
            hidden = self._layer(layer, hidden, spans, turn)
        pooled = torch.zeros(len(batch), self.config.width, device=self._device)
        pooled.index_add_(0, spans.text_of_token, hidden)
        pooled /= spans.lengths[:, None]
        return F.normalize(pooled, dim=-1)

    def _embeddings(self, tokens: Tensor) -> Tensor:
        """Return float32[T, D] for int64[T]: words plus the first token type, normalised. No positions."""
        words = F.embedding(tokens, self._tensors["embeddings.word_embeddings.weight"])
        return self._norm("emb_ln", words + self._tensors["embeddings.token_type_embeddings.weight"][0])

    def _layer(self, layer: int, hidden: Tensor, spans: "_Spans", turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return float32[T, D]: attention, then feed-forward, each normalised *after* its residual."""
        name = f"encoder.layers.{layer}"
        hidden = self._norm(f"{name}.norm1", self._attend(f"{name}.attn", hidden, spans, turn) + hidden)
        forward = self._mix if self.config.has_experts(layer) else self._feed_forward
        return self._norm(f"{name}.norm2", forward(f"{name}.mlp", hidden) + hidden)

    def _attend(self, name: str, hidden: Tensor, spans: "_Spans", turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return float32[T, D]: every token looks at all tokens of its own text, in both directions."""
        heads, size = self.config.heads, self.config.width // self.config.heads
        fused = self._linear(f"{name}.Wqkv", hidden).view(-1, 3, heads, size)
        query, key, value = _rotate(fused[:, 0], turn), _rotate(fused[:, 1], turn), fused[:, 2]
        seen = torch.empty_like(query)
        for rows, texts in spans.of_one_length:
            # [texts, L, H, D/H] → [texts, H, L, D/H]: texts of one length need no padding and no mask.
            q, k, v = (part[rows].reshape(texts, -1, heads, size).transpose(1, 2) for part in (query, key, value))
            seen[rows] = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
        return self._linear(f"{name}.out_proj", seen.reshape(-1, self.config.width))

    def _feed_forward(self, name: str, hidden: Tensor) -> Tensor:
        """Return float32[T, D] with the exact GELU (erf, not tanh)."""
        return self._linear(f"{name}.fc2", F.gelu(self._linear(f"{name}.fc1", hidden)))

    def _mix(self, name: str, hidden: Tensor) -> Tensor:
        """Return float32[T, D]: each token's experts, weighted, plus one bias that all experts share.

        ``w1`` and ``w2`` are both [E*F, D]: an expert computes gelu(x @ w1.T) @ w2, w2 not transposed.
        """
        weights, chosen = route(hidden, self._tensors[f"{name}.router.layer.weight"], self.config.experts_per_token)
        first = self._tensors[f"{name}.experts.mlp.w1"].view(self.config.experts, -1, self.config.width)
        second = self._tensors[f"{name}.experts.mlp.w2"].view(self.config.experts, -1, self.config.width)
        mixed = torch.zeros_like(hidden)
        for expert in range(self.config.experts):
            tokens, rank = torch.where(chosen == expert)
            if len(tokens):
                out = multiply(F.gelu(multiply(hidden[tokens], first[expert])), second[expert].T)
                mixed.index_add_(0, tokens, out * weights[tokens, rank, None])
        return mixed + self._tensors[f"{name}.experts.bias"]

    def _linear(self, name: str, hidden: Tensor) -> Tensor:
        return multiply(hidden, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return F.layer_norm(hidden, (self.config.width,), weight, bias, self.config.epsilon)


def route(hidden: Tensor, router: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Choose experts for each token.

    Args:
        hidden: float32[T, D].
        router: float32[E, D].
        top_k: how many experts work on a token, K.

    Returns:
        weights, float32[T, K]: softmax over *all* experts, not renormalised over the chosen ones, so a row
        sums to less than 1; experts, int64[T, K].
    """
    weights, chosen = multiply(hidden, router).softmax(dim=-1).topk(top_k, dim=-1)
    return weights, chosen


def multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return float32[T, N], ``hidden @ weight.T + bias``, each row the same whatever the other rows are.

    Libraries choose a kernel by the number of rows, and another kernel adds up in another order: twelve layers
    make 1e-5 of that. Between 16 and 256 rows, measured on MKL, it is always the same one. So more rows are taken
    in turns, and fewer are filled up.

    Args:
        hidden: float32[T, M].
        weight: float32[N, M].
        bias: float32[N].
    """
    if hidden.device.type != "cpu":
        return F.linear(hidden, weight, bias)
    out = hidden.new_empty(len(hidden), len(weight))
    for start in range(0, len(hidden), _MOST_ROWS):
        rows = hidden[start : start + _MOST_ROWS]
        filled = F.pad(rows, (0, 0, 0, _FEWEST_ROWS - len(rows))) if len(rows) < _FEWEST_ROWS else rows
        out[start : start + _MOST_ROWS] = F.linear(filled, weight, bias)[: len(rows)]
    return out


class _Spans:
    """Which tokens of the packed batch belong to which text.

    Attributes:
        lengths: float32[B], tokens of each text.
        text_of_token: int64[T].
        positions: int64[T], the place of each token in its text, from 0.
        of_one_length: runs of texts of the same length, as (their tokens, how many texts).
    """

    def __init__(self, lengths: Sequence[int], device: str) -> None:
        self.lengths = torch.tensor(lengths, dtype=torch.float32, device=device)
        counts = torch.tensor(lengths, device=device)
        self.text_of_token = torch.repeat_interleave(torch.arange(len(lengths), device=device), counts)
        self.positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        self.of_one_length: list[tuple[slice, int]] = []
        start = 0
        for length, run in groupby(lengths):
            texts = len(list(run))
            self.of_one_length.append((slice(start, start + texts * length), texts))
            start += texts * length


def _rotation(positions: Tensor, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, float32[T, 1, size/2], of each token's angle in each plane."""
    frequency = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size)
    angle = positions[:, None].float() * frequency[None, :]
    return angle.cos()[:, None, :], angle.sin()[:, None, :]


def _rotate(vectors: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate [T, H, size] by position: the first half pairs with the second (NeoX), not neighbours."""
    cosine, sine = turn
    left, right = vectors.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)
