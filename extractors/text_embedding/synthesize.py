"""Making a seeded checkpoint in the real layout, for tests and benchmarks: same names, same keys, no meaning."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import Unigram

from domain.errors import Invalid, WeightsBroken
from extractors.text_embedding import nomic_config, xlm_roberta
from extractors.text_embedding.weights import CONFIG, TOKENIZER, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

_PIECES: Final = (
    "▁", "▁the", "▁a", "▁of", "▁and", "▁to", "▁search", "▁document", "▁query", "_", ":", "ing", "er", "es", "en",
    "the", "an", "in", "on", "th", "re", "ed", "nd", "ha", "at", "or", "st", "ion", "▁s", "▁t", "▁w", "▁b",
)  # fmt: skip


def synthesize(
    folder: Path,
    *,
    seed: int,
    layers: int = 4,
    width: int = 64,
    heads: int = 4,
    inner: int = 96,
    experts: int = 8,
    vocabulary: int | None = None,
    words: Path | None = None,
    deviation: float | None = None,
) -> Path:
    """Write config.json, model.safetensors and tokenizer.json into a folder; return it.

    The same seed and sizes give the same bytes. The weights before the activation and of the router
    are drawn wide, so that a mistake in either is seen. The real model has layers=12, width=768, heads=12, inner=3072,
    experts=8, vocabulary=250048.

    Args:
        folder: is made if it is not there.
        seed: of the random weights.
        layers: every second one, from the second on, has experts.
        width: of the vectors.
        heads: of the attention; ``width`` is a multiple of twice this.
        inner: width of the feed-forward part.
        experts: of each mixture; two of them work on a token.
        vocabulary: rows of the table of words, at least as many as the tokenizer has (the default).
        words: a file with the real vocabulary, see `xlm_roberta`; None makes do with a small one.
        deviation: of all weights, such as the 0.02 that training starts from; None draws them so large that every part
            of the network shows in the vectors, which also makes them sensitive to the last bit of a number.

    Raises:
        Invalid: the sizes do not go together, or there is no room for the weights.
    """
    import torch  # noqa: PLC0415 - `save_tokenizer` does not need it
    from safetensors.torch import save_file  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, words)
    if vocabulary is not None and vocabulary < tokenizer.get_vocab_size():
        raise Invalid(f"The tokenizer has {tokenizer.get_vocab_size()} words; the vocabulary must hold as many.")
    sizes = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_inner": inner, "num_experts": experts}
    config = {**_config(), **sizes, "vocab_size": vocabulary or tokenizer.get_vocab_size()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    shapes = _layout(folder)
    needed, free = 4 * sum(math.prod(shape) for shape in shapes.values()), shutil.disk_usage(folder).free
    if needed > free:
        place = folder.resolve().parent
        raise Invalid(f"The weights take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in {place}.")
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _scaled(name, torch.randn(shape, generator=generator), deviation) for name, shape in shapes.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def _scaled(name: str, drawn: "Tensor", deviation: float | None) -> "Tensor":
    """Return a tensor of the checkpoint, made in place of one that was drawn with deviation 1."""
    if "norm" in name or name.startswith("emb_ln"):
        return drawn.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
    if deviation is not None:
        return drawn.mul_(deviation)
    if "router" in name:
        return drawn.mul_(0.5)
    if name.endswith(("fc1.weight", ".w1")):
        return drawn.mul_(2 * drawn.shape[-1] ** -0.5)
    return drawn.mul_(0.2 if name.endswith("bias") else drawn.shape[-1] ** -0.5)


def _layout(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor that the config in a folder asks for."""
    try:
        return nomic_config.layout(nomic_config.read("synthesized", folder))
    except WeightsBroken as error:
        raise Invalid(f"These sizes do not go together: {error.details['problem']}") from error


def save_tokenizer(folder: Path, words: Path | None = None) -> Tokenizer:
    """Write XLM-R's tokenizer, or one like it over ASCII, with bytes for all other characters; return it."""
    tokenizer = _small_tokenizer() if words is None else xlm_roberta.tokenizer(words)
    tokenizer.save(str(folder / TOKENIZER))
    return tokenizer


def _small_tokenizer() -> Tokenizer:
    pieces = [(piece, 0.0) for piece in xlm_roberta.SPECIALS]
    pieces += [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    pieces += [(chr(code), -8.0) for code in range(33, 127)]
    known = {piece for piece, _ in pieces}
    pieces += [(piece, -5.0) for piece in _PIECES if piece not in known]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3, byte_fallback=True))
    # As in XLM-R white space of every kind is one space, and a run of it is not longer than one.
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    xlm_roberta.frame(tokenizer)
    tokenizer.add_special_tokens(list(xlm_roberta.SPECIALS))
    return tokenizer


def _config() -> dict[str, Any]:
    """Return the keys of the published config.json that say how the model computes, with their values."""
    return {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "activation_function": "gelu",
        "add_pooling_layer": False,
        "attn_pdrop": 0.0,
        "causal": False,
        "embd_pdrop": 0.0,
        "expert_choice_router": False,
        "ffn_div": 1,
        "layer_norm_epsilon": 1e-05,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": True,
        "mlp_fc2_bias": True,
        "moe_every_n_layers": 2,
        "moe_normalize_expert_weights": False,
        "moe_resid_pdrop": 0.0,
        "moe_top_k": 2,
        "n_positions": 2048,
        "num_shared_experts": 0,
        "pad_token_id": 1,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": True,
        "resid_pdrop": 0.0,
        "rotary_emb_base": 10000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "torch_dtype": "float32",
        "type_vocab_size": 1,
    }
