"""The text extractor: its parameters, its vectors, and what it does without weights."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from tiny_model import LIMIT

from domain.errors import Invalid, WeightsBroken, WeightsMissing
from extractors import text_embedding
from extractors.contract import ModelHome
from extractors.registry import EXTRACTORS, configure
from extractors.text_embedding import encoder, engine, models

NOMIC = "nomic-ai/nomic-embed-text-v2-moe"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def unwatched(_: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> ModelHome:
    """A machine without any weights."""
    for variable in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / "hub"))
    monkeypatch.setattr(text_embedding.weights, "_in_package", lambda _model: None)
    return ModelHome(str(tmp_path / "models"))


def resolved(home: ModelHome, **parameters) -> dict:
    return configure("text_extractor", parameters, home).resolved().model_dump()


def invalid(home: ModelHome, **parameters) -> Invalid:
    with pytest.raises(Invalid) as refusal:
        configure("text_extractor", parameters, home)
    return refusal.value


def test_importing_it_loads_neither_torch_nor_transformers():
    program = (
        "import extractors.text_embedding, extractors.registry, sys\n"
        "from extractors.contract import ModelHome\n"
        "extractor = extractors.registry.configure('text_extractor', {}, ModelHome('/nowhere'))\n"
        "extractor.resolved(); extractor.output(); type(extractor).Parameters.model_json_schema()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_it_is_found_by_both_of_its_names():
    assert EXTRACTORS.require("text_extractor") is EXTRACTORS.require("text_embedding")


@pytest.mark.parametrize("key", ["model_id", "model", "embedding_model"])
@pytest.mark.parametrize("name", [NOMIC, "nomic_embed_v2_moe_v1", "NOMIC-AI/nomic-embed-text-v2-moe"])
def test_a_model_goes_by_any_of_its_names_under_any_key(nowhere, key, name):
    assert resolved(nowhere, **{key: name})["model_id"] == NOMIC


def test_model_id_wins_where_several_keys_name_models(nowhere):
    asked = {"embedding_model": "multilingual_e5_large_instruct_v1", "model_id": NOMIC}
    assert resolved(nowhere, **asked)["model_id"] == NOMIC


def test_an_unknown_model_is_refused_with_the_list_of_those_known(nowhere):
    refusal = invalid(nowhere, model_id="acme/unknown")
    assert refusal.code == "unknown_model"
    assert NOMIC in refusal.message


def test_resolved_parameters_have_every_default_decided_and_configure_the_same_extractor(nowhere):
    first = resolved(nowhere, model_id="all_minilm_l6_v2_v1", language="de", llm_model="x")
    assert first["model_id"] == first["embedding_model"] == MINILM
    assert first["dimensions"] == 384
    assert first["extractor_type"] == "text_extractor"
    assert resolved(nowhere, **first) == first


def test_the_default_model_is_the_operators_then_the_best_that_is_here_then_nomic(nowhere, tmp_path, tiny):
    assert resolved(nowhere)["model_id"] == NOMIC
    assert resolved(ModelHome(tiny.home.folder))["model_id"] == MINILM or not installed()
    assert resolved(ModelHome(nowhere.folder, default_model="all_minilm_l6_v2_v1"))["model_id"] == MINILM


def installed() -> bool:
    return text_embedding.weights._in_package(models.MINILM) is not None


@pytest.mark.parametrize("dimensions", [256, 512, 768])
def test_nomic_may_be_cut_to_between_256_and_768_dimensions(nowhere, dimensions):
    assert resolved(nowhere, model_id=NOMIC, dimensions=dimensions)["dimensions"] == dimensions


@pytest.mark.parametrize(("model", "dimensions", "allowed"), [(NOMIC, 255, "256 to 768"), (MINILM, 385, "64 to 384")])
def test_other_dimensions_are_refused_with_those_allowed(nowhere, model, dimensions, allowed):
    refusal = invalid(nowhere, model_id=model, dimensions=dimensions)
    assert refusal.code == "dimensions_out_of_range"
    assert allowed in refusal.message


@pytest.mark.parametrize("parameters", [{"split_by": "time_segments"}, {"source_type": "youtube"}])
def test_what_is_not_offered_yet_is_said_so(nowhere, parameters):
    assert "not offered yet" in invalid(nowhere, **parameters).message


@pytest.mark.parametrize(
    "parameters",
    [{"chunk_size": 0}, {"chunk_size": 10_001}, {"chunk_overlap": 5_001}, {"oversize": "drop"}, {"split_by": "lines"}],
)
def test_values_outside_the_contract_are_refused(nowhere, parameters):
    assert invalid(nowhere, **parameters).location[-1] in parameters


def test_overlap_must_be_smaller_than_the_part(nowhere):
    assert "smaller than chunk_size" in invalid(nowhere, chunk_size=10, chunk_overlap=10).message
    assert invalid(nowhere, chunk_size=0, chunk_overlap=10).location[-1] == "chunk_size"


def test_null_means_default_and_other_parameters_of_the_contract_are_tolerated(nowhere):
    parameters = {"model_id": None, "chunk_size": None, "split_by": None, "dimensions": None, "llm_provider": None}
    more = {"extract_captions": True, "response_shape": "text", "embedding_task": "clustering", "llm_model": "x"}
    found = resolved(nowhere, **parameters, **more, segment_length_seconds=120)
    assert (found["chunk_size"], found["split_by"]) == (1_000, "none")


def test_the_output_is_known_without_weights_and_its_revision_is_not(nowhere):
    output = configure("text_extractor", {"model_id": NOMIC, "dimensions": 256}, nowhere).output()
    assert output is not None
    assert (output.spec.model_id, output.spec.inference_name) == (NOMIC, "nomic_embed_v2_moe_v1")
    assert (output.spec.revision, output.spec.dimensions, output.spec.precision) == ("", 256, "fp32")
    assert len(output.description) >= 10


def test_without_weights_every_step_that_needs_them_says_how_to_get_them(nowhere, tiny):
    extractor = configure("text_extractor", {"model_id": NOMIC}, nowhere)
    for step in (
        extractor.identity,
        lambda: extractor.embed(["a"], unwatched),
        lambda: extractor.embed_query("a"),
        lambda: extractor.parts(text_embedding.Source("obj_1", {}, {"text": "a"})),
    ):
        with pytest.raises(WeightsMissing) as missing:
            step()
        for way in (f"openpeek model pull {NOMIC}", nowhere.folder, "HF_HOME"):
            assert way in missing.value.message


def test_identity_and_output_tell_the_revision_once_the_weights_are_here(tiny):
    extractor = tiny.extractor(dimensions=32)
    identity, output = extractor.identity(), extractor.output()
    assert identity is not None
    assert output is not None
    assert identity.revision == identity.weights_sha256 == output.spec.revision
    assert len(identity.tokenizer_sha256) == 64
    assert output.spec.name == f"tiny_moe_v1_{identity.revision[:8]}_32"


def test_vectors_come_in_order_with_unit_length_and_progress(tiny):
    extractor = tiny.extractor()
    words = ["a", "on and on and on and on", "the", "of the end", "z"]
    seen: list[int] = []
    vectors = extractor.embed(words, seen.append)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 64)
    assert seen[-1] == 5
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for word, vector in zip(words, vectors, strict=True):
        assert np.abs(extractor.embed([word], unwatched)[0] - vector).max() <= 1e-6


def test_no_texts_have_no_vectors(tiny):
    assert tiny.extractor().embed([], unwatched).shape == (0, 64)


def test_documents_and_queries_have_different_prefixes(tiny):
    extractor = tiny.extractor()
    assert extractor.document_prefix() == "search_document: "
    document, query = extractor.embed(["the end"], unwatched)[0], extractor.embed_query("the end")
    assert np.abs(document - query).max() > 1e-3


def test_vectors_are_cut_first_and_normalised_then(tiny):
    extractor = tiny.extractor(dimensions=16)
    full = extractor.embed(["the end", "of"], unwatched)
    fitted = extractor.fit(full)
    assert full.shape == (2, 64)
    assert fitted.shape == (2, 16)
    assert fitted.dtype == np.float32
    assert np.allclose(np.linalg.norm(fitted, axis=1), 1, atol=1e-6)
    assert np.allclose(fitted, full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True), atol=1e-6)
    assert extractor.embed_query("the end").shape == (16,)


def test_a_query_longer_than_the_model_reads_is_refused_with_its_tokens(tiny):
    with pytest.raises(Invalid) as refusal:
        tiny.extractor().embed_query("on and on " * 50)
    assert refusal.value.code == "query_too_long"
    assert str(LIMIT) in refusal.value.message


def test_half_a_surrogate_pair_is_no_reason_to_fail(tiny):
    (part,) = tiny.parts("a\ud800b").parts
    assert part.text == "a?b"
    assert tiny.extractor().embed_query("a\ud800b").shape == (64,)


def test_two_threads_that_ask_at_once_load_the_model_once(tiny, monkeypatch):
    monkeypatch.setattr(engine, "_encoders", {})
    loaded: list[int] = []
    original = encoder._network

    def counted(*arguments):
        loaded.append(1)
        return original(*arguments)

    monkeypatch.setattr(encoder, "_network", counted)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(tiny.extractor().embed(["a", "b"], unwatched))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert len(found) == 6
    assert all(np.array_equal(one, found[0]) for one in found)


def test_a_network_that_gives_no_numbers_is_broken_and_its_vectors_are_not_used(tiny, monkeypatch):
    extractor = tiny.extractor()
    extractor.embed(["a"], unwatched)
    network = extractor._engine._encoder()._network
    monkeypatch.setattr(network, "embed", lambda batch, _pause: torch.full((len(batch), 64), float("nan")))
    with pytest.raises(WeightsBroken):
        extractor.embed(["a"], unwatched)


def test_every_known_model_has_what_the_catalogue_promises():
    for model in models.all_known():
        assert 0 < model.narrowest <= model.width
        assert models.require(model.model_id) is models.require(model.inference_name) is model
        assert model.revision != "main"
