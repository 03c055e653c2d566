"""A model in any folder is described by its own files, and refused where it would be embedded wrongly."""

import json
from pathlib import Path

import pytest

from domain.errors import WeightsBroken
from extractors.text_embedding import folders
from extractors.text_embedding.models import MINILM, NOMIC
from extractors.text_embedding.synthesize import synthesize

PLAIN = {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512}


@pytest.fixture
def make(tmp_path):
    """Return what makes a folder with a sentence-transformers model in it (weights are not read here)."""

    def folder(name="some-model", config=None, **files):
        made = tmp_path / name
        made.mkdir(parents=True)
        for needed in ("model.safetensors", "tokenizer.json"):
            (made / needed).write_bytes(b"")
        (made / "config.json").write_text(json.dumps(PLAIN | (config or {})))
        for file, content in files.items():
            target = made / {"pooling": "1_Pooling/config.json"}.get(file, f"{file}.json")
            target.parent.mkdir(exist_ok=True)
            target.write_text(content if isinstance(content, str) else json.dumps(content))
        return made

    return folder


def test_a_mixture_of_experts_has_nomics_prefixes_and_reads_what_it_was_trained_on(tmp_path):
    model = folders.describe(synthesize(tmp_path / "mine", seed=1, layers=2))
    assert (model.family, model.model_id, model.width, model.narrowest) == ("nomic_moe", "mine", 64, 1)
    assert (model.document_prefix, model.query_prefix) == (NOMIC.document_prefix, NOMIC.query_prefix)
    assert model.max_tokens == 512  # and not the 2,048 positions of its config
    assert model.folder == tmp_path / "mine"


def test_a_mixture_that_states_its_length_is_believed(tmp_path):
    folder = synthesize(tmp_path / "mine", seed=1, layers=2)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 100}')
    assert folders.describe(folder).max_tokens == 100


def test_a_nomic_bert_without_experts_is_refused(make):
    with pytest.raises(WeightsBroken, match="without experts"):
        folders.describe(make(config={"model_type": "nomic_bert"}))


def test_a_sentence_transformer_reads_what_its_files_say(make):
    model = folders.describe(make(sentence_bert_config={"max_seq_length": 256}))
    assert (model.family, model.width, model.max_tokens) == ("transformers", 384, 256)
    assert (model.document_prefix, model.query_prefix) == ("", "")


@pytest.mark.parametrize(
    ("config", "stated", "wanted"),
    [
        ({}, None, 512),
        ({}, {"model_max_length": 128}, 128),
        ({}, {"model_max_length": 1_000_000_000_000_000_019_884_624_838_656}, 512),  # what tokenizers write for none
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512),
        ({}, {"model_max_length": 9_000}, 512),  # more than it has positions
    ],
)
def test_the_limit_is_the_least_of_what_is_said(make, config, stated, wanted):
    files = {} if stated is None else {"tokenizer_config": stated}
    assert folders.describe(make(config=config, **files)).max_tokens == wanted


@pytest.mark.parametrize(
    ("name", "config", "wanted"),
    [
        ("multilingual-e5-small", {}, ("passage: ", "query: ")),
        ("copy", {"_name_or_path": "intfloat/multilingual-e5-base"}, ("passage: ", "query: ")),
        ("e5-base-v2", {}, ("passage: ", "query: ")),
        ("all-MiniLM-L6-v2", {}, (MINILM.document_prefix, MINILM.query_prefix)),
        ("bge-small", {}, ("", "")),
    ],
)
def test_prefixes_are_those_of_the_family_that_the_name_tells(make, name, config, wanted):
    model = folders.describe(make(name, config))
    assert (model.document_prefix, model.query_prefix) == wanted


def test_an_instructed_model_is_not_taken_for_its_plain_sister(make):
    model = folders.describe(make("multilingual-e5-large-instruct"))
    assert model.document_prefix == ""
    assert model.query_prefix.startswith("Instruct: ")


def test_prompts_in_the_folder_win_over_the_name(make):
    prompts = {"prompts": {"query": "Q: ", "document": "D: "}}
    model = folders.describe(make("multilingual-e5-small", config_sentence_transformers=prompts))
    assert (model.document_prefix, model.query_prefix) == ("D: ", "Q: ")


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "pooling_mode_cls_token"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": False}, "none"),
    ],
)
def test_another_pooling_than_the_mean_is_refused(make, pooling, words):
    with pytest.raises(WeightsBroken, match=words):
        folders.describe(make(pooling=pooling))


def test_layers_behind_the_network_are_refused(make):
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]
    with pytest.raises(WeightsBroken, match="Dense"):
        folders.describe(make(modules=modules))


def test_a_file_that_is_no_json_is_as_good_as_absent_where_it_may_be_absent(make):
    assert folders.describe(make(pooling="{", modules="[", tokenizer_config="null")).max_tokens == 512


@pytest.mark.parametrize("value", [None, 0, -1, "384", True, 3.5])
def test_a_width_that_is_no_number_is_refused(make, value):
    with pytest.raises(WeightsBroken, match="hidden_size"):
        folders.describe(make(config={"hidden_size": value}))


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(WeightsBroken, match=r"config\.json, model\.safetensors, tokenizer\.json missing"):
        folders.describe(tmp_path)
