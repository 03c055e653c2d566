"""Models run by transformers: only architectures it runs as published, and every tensor from the checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from domain.errors import WeightsBroken
from extractors.text_embedding.hf_encoder import HfEncoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    return folder


def alter(bert: Path, tmp_path: Path, change) -> Path:
    folder = shutil.copytree(bert, tmp_path / "altered")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsBroken) as caught:
        HfEncoder("tests/bert", folder)
    return caught.value.message


def test_the_mixture_of_experts_can_not_be_loaded_by_transformers(checkpoint):
    message = refusal(checkpoint)
    assert "nomic_bert" in message


def test_the_vector_is_the_mean_over_the_tokens_whatever_the_batch(bert):
    encoder = HfEncoder("tests/bert", bert)
    batch = [[2, 7, 3], [2, 9, 8, 7, 6, 3], [2, 3]]
    together = encoder.embed(batch)
    alone = torch.cat([encoder.embed([ids]) for ids in batch])
    assert (together - alone).abs().max() <= 1e-6
    hidden = encoder._model(input_ids=torch.tensor([batch[0]])).last_hidden_state[0].mean(dim=0)
    assert torch.allclose(together[0], hidden / hidden.norm(), atol=1e-6)


def test_a_missing_tensor_is_not_made_up_at_random(bert, tmp_path):
    name = "encoder.layer.1.output.dense.weight"
    assert f"missing {name}" in refusal(alter(bert, tmp_path, lambda tensors: tensors.pop(name)))


def test_a_checkpoint_may_lack_the_pooler_that_nothing_reads(bert, tmp_path):
    folder = alter(bert, tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if "pooler" in name])
    assert torch.equal(HfEncoder("tests/a", folder).embed([[2, 7]]), HfEncoder("tests/b", bert).embed([[2, 7]]))


def test_a_tensor_too_many_is_named(bert, tmp_path):
    folder = alter(bert, tmp_path, lambda tensors: tensors.update({"adapter.weight": torch.zeros(2)}))
    assert "unexpected adapter.weight" in refusal(folder)


def test_a_tensor_of_another_shape_or_type_is_refused(bert, tmp_path):
    name = "embeddings.LayerNorm.bias"
    assert name in refusal(alter(bert, tmp_path / "a", lambda tensors: tensors.update({name: torch.zeros(3)})))
    assert "F64" in refusal(
        alter(bert, tmp_path / "b", lambda tensors: tensors.update({name: torch.zeros(16).double()}))
    )


def test_half_precision_is_widened(bert, tmp_path):
    folder = alter(bert, tmp_path, lambda tensors: tensors.update({n: t.half() for n, t in list(tensors.items())}))
    assert HfEncoder("tests/half", folder).embed([[2, 7]]).dtype == torch.float32


def test_a_file_that_ends_early_or_a_pickle_is_refused(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "short")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert "not a whole safetensors file" in refusal(folder)
    file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "safetensors" in refusal(folder)


def test_a_config_of_no_known_architecture_is_refused(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "other")
    for kind in ("nomic_bert", "t5", None):
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": {"AutoModel": "evil.Model"}}))
        assert "loader takes" in refusal(folder)
