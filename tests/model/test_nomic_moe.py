"""Our network computes what the architecture says: checked against an oracle that shares no code with it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from oracle import MISTAKES, Oracle
from safetensors.torch import load_file, save_file

from domain.errors import WeightsBroken
from extractors.text_embedding.linear import multiply
from extractors.text_embedding.nomic_config import Config, layout, read
from extractors.text_embedding.nomic_moe import NomicMoe, route
from extractors.text_embedding.synthesize import synthesize

TOLERANCE = 1e-5
VISIBLE = 1e-4


@contextmanager
def refusal_that_says(words: str) -> Iterator[None]:
    with pytest.raises(WeightsBroken) as refusal:
        yield
    assert words in refusal.value.message


def texts(network: NomicMoe, *lengths: int) -> list[list[int]]:
    """Token ids as a tokenizer gives them: <s>, the text, </s>."""
    drawn = np.random.default_rng(sum(lengths)).integers(4, network.config.vocabulary, size=(len(lengths), 600))
    return [[0, *map(int, row[: length - 2]), 2] for row, length in zip(drawn, lengths, strict=True)]


@pytest.mark.parametrize("length", [2, 3, 7, 33, 80])
def test_a_text_alone_has_the_vector_that_the_oracle_says(network, oracle, length):
    (text,) = texts(network, length)
    assert np.abs(network.embed([text])[0].numpy() - oracle.embed(text)).max() < TOLERANCE


def test_texts_of_mixed_length_have_the_vectors_that_the_oracle_says(network, oracle):
    batch = texts(network, 5, 40, 2, 17, 40, 61)
    expected = np.stack([oracle.embed(text) for text in batch])
    assert np.abs(network.embed(batch).numpy() - expected).max() < TOLERANCE


def test_the_same_text_gives_the_same_vector_in_any_batch(network):
    batch = texts(network, 30, 4, 64, 2, 9, 31, 64, 12)
    together = network.embed(batch)
    alone = torch.cat([network.embed([text]) for text in batch])
    backwards = network.embed(batch[::-1]).flip(0)
    assert (together - alone).abs().max() <= 1e-6
    assert (together - backwards).abs().max() <= 1e-6


def test_the_same_text_gives_the_same_vector_in_any_batch_of_a_wide_model_too(tmp_path):
    """Wide layers are where a matrix library changes its kernel, and with it the order of addition."""
    network = NomicMoe("tests/wide", synthesize(tmp_path, seed=4, layers=4, width=256, inner=3072, experts=2))
    batch = texts(network, 30, 4, 280, 2, 60, 280)
    alone = torch.cat([network.embed([text]) for text in batch])
    assert (network.embed(batch) - alone).abs().max() <= 1e-6


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 255, 256, 257, 512, 530])
def test_a_row_of_a_product_does_not_depend_on_how_many_rows_there_are(rows):
    generator = torch.Generator().manual_seed(rows)
    hidden, weight = torch.randn(rows, 96, generator=generator), torch.randn(40, 96, generator=generator)
    bias = torch.randn(40, generator=generator)
    product = multiply(hidden, weight, bias)
    assert torch.allclose(product, hidden @ weight.T + bias, atol=1e-4)
    for row in {0, rows // 2, rows - 1}:
        assert (multiply(hidden[row : row + 1], weight, bias)[0] - product[row]).abs().max() <= 1e-6


def test_vectors_have_unit_length(network):
    assert torch.allclose(network.embed(texts(network, 3, 50)).norm(dim=1), torch.ones(2), atol=1e-6)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_with_the_oracle_would_notice(network, oracle, mistake):
    batch = texts(network, 4, 3, 5, 41)  # the mean over a long text hides what is small
    right = network.embed(batch).numpy()
    wrong = np.stack([oracle.embed(text, mistake) for text in batch])
    assert np.abs(right - wrong).max() > VISIBLE


def test_weights_of_the_chosen_experts_are_not_made_to_sum_to_one():
    generator = torch.Generator().manual_seed(3)
    weights, chosen = route(torch.randn(50, 8, generator=generator) * 4, 2)
    assert (weights.sum(dim=1) < 1).all()
    assert chosen.shape == (50, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_widened_and_computed_in_float32(checkpoint, tmp_path, dtype):
    folder = shutil.copytree(checkpoint, tmp_path / "half")
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(narrow, folder / "model.safetensors")
    network = NomicMoe("tests/half", folder)
    save_file({name: tensor.float() for name, tensor in narrow.items()}, folder / "model.safetensors")
    (text,) = texts(network, 20)
    vector = network.embed([text])[0]
    assert vector.dtype == torch.float32
    assert np.abs(vector.numpy() - Oracle(folder).embed(text)).max() < TOLERANCE


def test_another_rotary_base_is_honoured(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "base")
    change(folder, rotary_emb_base=500)
    network = NomicMoe("tests/base", folder)
    (text,) = texts(network, 30)
    assert np.abs(network.embed([text])[0].numpy() - Oracle(folder).embed(text)).max() < TOLERANCE


def test_the_published_sizes_have_148_tensors_and_475_292_928_parameters():
    tensors = layout(
        Config(
            width=768,
            heads=12,
            inner=3072,
            layers=12,
            vocabulary=250_048,
            token_types=1,
            experts=8,
            experts_per_token=2,
            moe_every=2,
            rotary_base=10_000.0,
            epsilon=1e-5,
        )
    )
    assert len(tensors) == 148
    assert sum(int(np.prod(shape)) for shape in tensors.values()) == 475_292_928


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "bert"),
        ("prenorm", True),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_fraction", 0.5),
        ("moe_normalize_expert_weights", True),
        ("activation_function", "gelu_new"),
        ("activation_function", "swiglu"),
        ("qkv_proj_bias", False),
        ("moe_every_n_layers", 1),
        ("rotary_scaling_factor", 2.0),
        ("num_shared_experts", 1),
        ("causal", True),
        ("n_head", 5),
        ("n_layer", 0),
        ("n_embd", "64"),
        ("n_inner", True),
        ("moe_top_k", 9),
        ("layer_norm_epsilon", None),
    ],
)
def test_a_config_that_asks_for_another_model_is_refused_by_the_name_of_the_key(checkpoint, tmp_path, key, value):
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    change(folder, **{key: value})
    with refusal_that_says(key):
        read("tests/other", folder)


def test_a_config_without_a_key_is_refused_by_the_name_of_the_key(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "less")
    config = json.loads((folder / "config.json").read_text())
    del config["num_experts"]
    (folder / "config.json").write_text(json.dumps(config))
    with refusal_that_says("num_experts"):
        read("tests/less", folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '"nomic_bert"'])
def test_a_config_that_is_no_json_object_is_refused(checkpoint, tmp_path, content):
    folder = shutil.copytree(checkpoint, tmp_path / "garbled")
    (folder / "config.json").write_text(content)
    with refusal_that_says("config.json"):
        read("tests/garbled", folder)


def refused(checkpoint, tmp_path, alter) -> str:
    """Save a checkpoint whose tensors were altered, and return why it is refused."""
    folder = shutil.copytree(checkpoint, tmp_path / "altered")
    tensors = load_file(folder / "model.safetensors")
    alter(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsBroken) as refusal:
        NomicMoe("tests/altered", folder)
    return refusal.value.message


def test_a_missing_tensor_is_named(checkpoint, tmp_path):
    name = "encoder.layers.1.mlp.experts.bias"
    message = refused(checkpoint, tmp_path, lambda tensors: tensors.pop(name))
    assert f"missing {name}" in message


def test_a_tensor_too_many_is_named(checkpoint, tmp_path):
    message = refused(checkpoint, tmp_path, lambda tensors: tensors.update({"pooler.weight": torch.zeros(2)}))
    assert "unexpected pooler.weight" in message


def test_a_tensor_of_another_shape_is_named(checkpoint, tmp_path):
    name = "encoder.layers.1.mlp.experts.mlp.w2"
    message = refused(checkpoint, tmp_path, lambda tensors: tensors.update({name: tensors[name].T.contiguous()}))
    assert f"{name} has shape [64, 768], not [768, 64]" in message


def test_a_tensor_of_another_type_is_named(checkpoint, tmp_path):
    message = refused(checkpoint, tmp_path, lambda tensors: tensors.update({"emb_ln.bias": torch.zeros(64).double()}))
    assert "emb_ln.bias is F64" in message


def test_ten_wrong_tensors_are_named_and_the_rest_are_counted(checkpoint, tmp_path):
    message = refused(checkpoint, tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors)[:14]])
    assert message.count("missing") == 10
    assert "and 4 more" in message


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_file_that_ends_early_is_refused(checkpoint, tmp_path, kept):
    folder = shutil.copytree(checkpoint, tmp_path / "short")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:kept])
    with refusal_that_says("not a whole safetensors file"):
        NomicMoe("tests/short", folder)


def test_a_file_of_garbage_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "garbage")
    for content in (b"\xff" * 4_096, b"\x10" + bytes(7) + b"[[[[[[[[[[[[[[[[", b"\x02\0\0\0\0\0\0\0{}x"):
        (folder / "model.safetensors").write_bytes(content)
        with refusal_that_says("not a whole safetensors file"):
            NomicMoe("tests/garbage", folder)


def test_a_token_that_the_table_does_not_have_is_refused(network):
    with refusal_that_says("table of words"):
        network.embed([[0, network.config.vocabulary, 2]])
