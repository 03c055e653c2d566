"""A second implementation of NomicBert with experts, to check the first against: NumPy, float64, one text at a time.

Written from the paper (arXiv:2502.07972) and the names of the tensors, and slow on purpose: every head and every
token has its own turn, rotation is multiplication of complex numbers, and nothing is shared with the torch code.
A set of `mistakes` makes it wrong in known ways, so that a test can show that it would notice.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

MISTAKES = (
    "renormalised",
    "softmax after the choice",
    "bias dropped",
    "bias doubled",
    "bias per expert",
    "one expert",
    "w2 transposed",
    "tanh gelu",
    "first token",
    "padding in the mean",
    "padding looked at",
    "no rotation",
    "interleaved rotation",
    "norm before",
    "no embedding norm",
    "no token type",
    "experts in even layers",
)

_PADDING = 5  # tokens that a batch with a longer text would put behind this one


class Oracle:
    """Token ids in, a unit vector out.

    ``closest`` is how near, since it was last set to infinity, a token's first expert that was not chosen came to
    the last that was, in logits: nearer than a rounding error and either may rightly be chosen.
    """

    def __init__(self, folder: Path) -> None:
        self.closest = math.inf
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {
            name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()
        }

    def embed(self, tokens: Sequence[int], mistake: str = "") -> np.ndarray:
        """Return float64[D] of unit length; ``mistake`` is one of MISTAKES, or nothing."""
        pooled = self.pooled(tokens, mistake)
        return pooled / math.sqrt(float(pooled @ pooled))

    def pooled(self, tokens: Sequence[int], mistake: str = "") -> np.ndarray:
        """Return float64[D], the mean over the tokens, of whatever length it is."""
        assert not mistake or mistake in MISTAKES
        padding = [self.config["pad_token_id"]] * (_PADDING if mistake.startswith("padding") else 0)
        hidden = self.tensors["embeddings.word_embeddings.weight"][[*tokens, *padding]]
        if mistake != "no token type":
            hidden = hidden + self.tensors["embeddings.token_type_embeddings.weight"][0]
        if mistake != "no embedding norm":
            hidden = self._norm("emb_ln", hidden)
        for layer in range(self.config["n_layer"]):
            hidden = self._layer(layer, hidden, mistake)
        if mistake == "padding looked at":
            hidden = hidden[: len(tokens)]
        mean: np.ndarray = hidden[0] if mistake == "first token" else hidden.mean(axis=0)
        return mean

    def _layer(self, layer: int, hidden: np.ndarray, mistake: str) -> np.ndarray:
        name = f"encoder.layers.{layer}"
        forward = self._experts if f"{name}.mlp.experts.bias" in self.tensors else self._dense
        if mistake == "experts in even layers":  # an offset by one: each layer computes with its neighbour's weights
            name = f"encoder.layers.{layer ^ 1}"
            forward = self._experts if f"{name}.mlp.experts.bias" in self.tensors else self._dense
        if mistake == "norm before":
            hidden = hidden + self._attention(name, self._norm(f"{name}.norm1", hidden), mistake)
            return hidden + forward(name, self._norm(f"{name}.norm2", hidden), mistake)
        hidden = self._norm(f"{name}.norm1", hidden + self._attention(name, hidden, mistake))
        return self._norm(f"{name}.norm2", hidden + forward(name, hidden, mistake))

    def _attention(self, name: str, hidden: np.ndarray, mistake: str) -> np.ndarray:
        length, width = hidden.shape
        heads = self.config["n_head"]
        size = width // heads
        weight, bias = self.tensors[f"{name}.attn.Wqkv.weight"], self.tensors[f"{name}.attn.Wqkv.bias"]
        queries, keys, values = (
            hidden @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width] for i in range(3)
        )
        seen = length - _PADDING if mistake == "padding in the mean" else length
        outputs = np.zeros((length, width))
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            query, key = self._rotated(queries[:, part], mistake), self._rotated(keys[:, part], mistake)
            for position in range(length):
                scores = key[:seen] @ query[position] / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                outputs[position, part] = weights @ values[:seen, part] / weights.sum()
        return outputs @ self.tensors[f"{name}.attn.out_proj.weight"].T + self.tensors[f"{name}.attn.out_proj.bias"]

    def _rotated(self, vectors: np.ndarray, mistake: str) -> np.ndarray:
        """Turn the plane (x[j], x[j + size/2]) of the vector at position p by the angle p · base^(-2j/size)."""
        length, size = vectors.shape
        if mistake == "no rotation":
            return vectors
        first, second = np.arange(size // 2), np.arange(size // 2) + size // 2
        if mistake == "interleaved rotation":
            first, second = np.arange(0, size, 2), np.arange(1, size, 2)
        turned = np.empty_like(vectors)
        for position in range(length):
            for j, (one, other) in enumerate(zip(first, second, strict=True)):
                angle = position * self.config["rotary_emb_base"] ** (-2.0 * j / size)
                point = complex(vectors[position, one], vectors[position, other]) * complex(
                    math.cos(angle), math.sin(angle)
                )
                turned[position, one], turned[position, other] = point.real, point.imag
        return turned

    def _dense(self, name: str, hidden: np.ndarray, mistake: str) -> np.ndarray:
        inner = hidden @ self.tensors[f"{name}.mlp.fc1.weight"].T + self.tensors[f"{name}.mlp.fc1.bias"]
        return _gelu(inner, mistake) @ self.tensors[f"{name}.mlp.fc2.weight"].T + self.tensors[f"{name}.mlp.fc2.bias"]

    def _experts(self, name: str, hidden: np.ndarray, mistake: str) -> np.ndarray:
        experts, width = self.config["num_experts"], hidden.shape[1]
        router = self.tensors[f"{name}.mlp.router.layer.weight"]
        first = self.tensors[f"{name}.mlp.experts.mlp.w1"].reshape(experts, -1, width)
        second = self.tensors[f"{name}.mlp.experts.mlp.w2"].reshape(experts, -1, width)
        bias = self.tensors[f"{name}.mlp.experts.bias"]
        outputs = np.zeros_like(hidden)
        for position, vector in enumerate(hidden):
            logits = router @ vector
            ranked = np.sort(logits)[::-1]
            if len(ranked) > self.config["moe_top_k"]:
                self.closest = min(
                    self.closest, ranked[self.config["moe_top_k"] - 1] - ranked[self.config["moe_top_k"]]
                )
            chosen = np.argsort(-logits)[: 1 if mistake == "one expert" else self.config["moe_top_k"]]
            shares = np.exp(logits[chosen] - logits.max()) / np.exp(logits - logits.max()).sum()
            if mistake == "renormalised":
                shares = shares / shares.sum()
            if mistake == "softmax after the choice":  # in exact arithmetic the same mistake
                shares = np.exp(logits[chosen]) / np.exp(logits[chosen]).sum()
            for expert, share in zip(chosen, shares, strict=True):
                w2 = second[expert]
                if mistake == "w2 transposed":
                    w2 = w2.reshape(width, -1).T
                out = _gelu(first[expert] @ vector, mistake) @ w2
                outputs[position] += share * (out + bias if mistake == "bias per expert" else out)
            if mistake not in {"bias dropped", "bias per expert"}:
                outputs[position] += 2 * bias if mistake == "bias doubled" else bias
        return outputs

    def _norm(self, name: str, hidden: np.ndarray) -> np.ndarray:
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.config["layer_norm_epsilon"])
        return centred / spread * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def _gelu(values: np.ndarray, mistake: str) -> np.ndarray:
    if mistake == "tanh gelu":
        return 0.5 * values * (1 + np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))
    return 0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))
