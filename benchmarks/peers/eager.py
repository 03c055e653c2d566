"""Peer A: the model as one writes it down in torch, in the manner of the published code.

Texts padded to the longest of their batch, a mask, every expert in turn over the tokens that chose it, float32.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from extractors.text_embedding.nomic_config import read

PAD = 1


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, base: float) -> None:
        super().__init__()
        self.heads = heads
        self.base = base
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        texts, length, width = hidden.shape
        q, k, v = self.Wqkv(hidden).view(texts, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        size = q.shape[-1]
        angle = torch.arange(length)[:, None] * self.base ** (-torch.arange(0, size, 2) / size)
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        q, k = (part * cos + torch.cat([-part[..., size // 2 :], part[..., : size // 2]], -1) * sin for part in (q, k))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out_proj(seen.transpose(1, 2).reshape(texts, length, width))


class Dense(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden)))


class Router(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, experts, bias=False)


class ExpertWeights(nn.Module):
    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(experts * inner, width))
        self.w2 = nn.Parameter(torch.empty(experts * inner, width))


class Experts(nn.Module):
    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.mlp = ExpertWeights(width, inner, experts)
        self.bias = nn.Parameter(torch.empty(width))


class Mixture(nn.Module):
    def __init__(self, width: int, inner: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.count = experts
        self.top_k = top_k
        self.router = Router(width, experts)
        self.experts = Experts(width, inner, experts)

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, 1)
        weights, chosen = self.router.layer(flat).softmax(-1).topk(self.top_k, -1)
        out = torch.zeros_like(flat)
        first = self.experts.mlp.w1.view(self.count, -1, flat.shape[1])
        second = self.experts.mlp.w2.view(self.count, -1, flat.shape[1])
        for expert in range(self.count):
            token, rank = torch.where(chosen == expert)
            if len(token):
                made = F.gelu(flat[token] @ first[expert].T) @ second[expert]
                out.index_add_(0, token, made * weights[token, rank, None])
        return (out + self.experts.bias).view_as(hidden)


class Block(nn.Module):
    def __init__(self, attn: Attention, mlp: nn.Module, width: int, epsilon: float) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.norm2 = nn.LayerNorm(width, epsilon)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self.norm1(self.attn(hidden, mask) + hidden)
        return self.norm2(self.mlp(hidden) + hidden)


class Embeddings(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, width)
        self.token_type_embeddings = nn.Embedding(1, width)


class Encoder(nn.Module):
    def __init__(self, layers: Sequence[Block]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Eager(nn.Module):
    """The peer; its tensors have the checkpoint's own names."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = read("eager", folder)
        width, inner = config.width, config.inner
        with torch.device("meta"):
            self.embeddings = Embeddings(config.vocabulary, width)
            self.emb_ln = nn.LayerNorm(width, config.epsilon)
            self.encoder = Encoder(
                [
                    Block(
                        Attention(width, config.heads, config.rotary_base),
                        Mixture(width, inner, config.experts, config.experts_per_token)
                        if config.has_experts(number)
                        else Dense(width, inner),
                        width,
                        config.epsilon,
                    )
                    for number in range(config.layers)
                ]
            )
        self.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        self.eval()

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Return float32[B, D], unit length."""
        longest = max(map(len, batch))
        tokens = torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in batch])
        mask = torch.tensor([[True] * len(ids) + [False] * (longest - len(ids)) for ids in batch])
        hidden = self.embeddings.word_embeddings(tokens) + self.embeddings.token_type_embeddings.weight[0]
        hidden = self.emb_ln(hidden)
        for layer in self.encoder.layers:
            hidden = layer(hidden, mask)
        kept = mask[..., None]
        return F.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)
