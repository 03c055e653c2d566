"""Making a seeded checkpoint in the real layout, for tests and benchmarks: same names, same keys, no meaning."""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from extractors.text_embedding.nomic_moe import layout, read
from extractors.text_embedding.weights import CONFIG, TOKENIZER, WEIGHTS

_SPECIALS: Final = ("<s>", "<pad>", "</s>", "<unk>")
_PIECES: Final = (
    "▁", "▁the", "▁a", "▁of", "▁and", "▁to", "▁search", "▁document", "▁query", "_", ":", "ing", "er", "es", "en",
    "the", "an", "in", "on", "th", "er", "re", "ed", "nd", "ha", "at", "or", "st", "ion", "▁s", "▁t", "▁w", "▁b",
)  # fmt: skip


def synthesize(
    folder: Path, *, seed: int, layers: int = 4, width: int = 64, heads: int = 4, inner: int = 96, experts: int = 8
) -> Path:
    """Write config.json, model.safetensors and tokenizer.json into a folder; return it.

    The router's weights are drawn wide enough that experts differ, so that a mistake in routing is seen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / TOKENIZER))
    config = {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "n_embd": width,
        "n_head": heads,
        "n_inner": inner,
        "n_layer": layers,
        "n_positions": 2048,
        "max_trained_positions": 2048,
        "num_experts": experts,
        "moe_top_k": 2,
        "moe_every_n_layers": 2,
        "moe_normalize_expert_weights": False,
        "rotary_emb_base": 10000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "qkv_proj_bias": True,
        "mlp_fc1_bias": True,
        "mlp_fc2_bias": True,
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-05,
        "prenorm": False,
        "type_vocab_size": 1,
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": 1,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in layout(read("synthesized", folder)).items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith((".weight", ".bias")) and ("norm" in name or name.startswith("emb_ln")):
            tensors[name] = drawn * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif "router" in name:
            tensors[name] = drawn * 0.5
        else:
            tensors[name] = drawn * (0.2 if name.endswith("bias") else shape[-1] ** -0.5)
    save_file(tensors, folder / WEIGHTS)
    return folder


def _tokenizer() -> Tokenizer:
    """Return an XLM-R-like unigram tokenizer over ASCII, with bytes for all other characters."""
    pieces = [(piece, 0.0) for piece in _SPECIALS]
    pieces += [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    pieces += [(chr(code), -8.0) for code in range(33, 127)]
    known = {piece for piece, _ in pieces}
    pieces += [(piece, -5.0) for piece in dict.fromkeys(_PIECES) if piece not in known]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(list(_SPECIALS))
    return tokenizer
