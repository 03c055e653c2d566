"""What config.json of a NomicBert checkpoint must say, and which tensors follow from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.errors import WeightsBroken
from extractors.text_embedding.weights import CONFIG, read_config


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
