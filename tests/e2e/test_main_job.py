"""The main job over HTTP against running processes: the same test in both modes."""

import time

from extractors.text_embedding.synthesize import synthesize
from tests.conftest import Api
from tests.e2e.topology import ADMIN_KEY


def test_bucket_to_batch_to_extractor_to_index_to_retriever(peek: Api, topology):
    bucket = peek.bucket()
    collection = peek.collection(
        bucket, field_passthrough=["lang"], parameters={"split_by": "sentences", "chunk_size": 1}
    )
    texts = [
        "The lighthouse keeper counts the ships. Storms come from the west.",
        "Bread needs flour and water. Yeast makes it rise.",
        "Compilers turn source code into machine code. Linkers join the pieces.",
    ]
    stored = "A long file that is kept outside the row. " * 4_000
    ids = peek.objects(bucket, [{"body": text, "lang": "en"} for text in texts])
    blob = {"property": "body", "type": "text", "data": stored}
    ids += [peek.ok("POST", f"/buckets/{bucket}/objects", {"blobs": [blob], "lang": "x"})["object_id"]]
    ids += peek.objects(bucket, [{"body": " ", "lang": "en"}])
    done = peek.run(bucket, ids)
    assert done["status"] == "COMPLETED_WITH_ERRORS"
    assert [one["error_code"] for one in done["failed_objects"]] == ["EMPTY_TEXT"]
    assert done["progress"]["processed"] == 5
    count = peek.ok("GET", f"/collections/{collection['collection_id']}/documents/count")["count"]
    assert count == done["documents_written"] == 6 + 4_000
    search = {"feature_uri": collection["vector_indexes"][0]["feature_uri"], "query": "{{INPUT.q}}", "top_k": 50}
    stage = {"stage_name": "find", "config": {"stage_id": "feature_search", "parameters": {"searches": [search]}}}
    body = {
        "retriever_name": "ask",
        "stages": [stage],
        "collection_identifiers": ["parts"],
        "input_schema": {"q": {"type": "text"}},
    }
    peek.ok("POST", "/retrievers", body)
    for question, answer in (
        ("yeast makes bread rise", "Yeast makes it rise."),
        ("ships of the lighthouse keeper", "The lighthouse"),
    ):
        reply = peek.ok("POST", "/retrievers/ask/execute", {"inputs": {"q": question}})
        assert reply["documents"][0]["text"].startswith(answer)
    filtered = peek.ok("POST", "/retrievers/ask/execute", {"inputs": {"q": "yeast"}, "filters": {"lang": "x"}})
    assert {one["lang"] for one in filtered["documents"]} == {"x"}
    contains = {"field": "text", "operator": "contains", "value": "LINKERS"}
    reply = peek.ok("POST", "/retrievers/ask/execute", {"inputs": {"q": "yeast"}, "filters": contains})
    assert [one["text"] for one in reply["documents"]] == ["Linkers join the pieces."]


def test_every_api_process_answers_alike(peek: Api, topology):
    bucket = peek.bucket()
    peek.collection(bucket)
    peek.run(bucket, peek.objects(bucket, [{"body": "seen from everywhere"}]))
    for number in range(len(topology.apis)):
        with topology.client(number) as client:
            other = Api(client, ADMIN_KEY, peek.namespace)
            assert other.search("everywhere")[0]["text"] == "seen from everywhere"


def test_a_thousand_objects_end_exactly_once(peek: Api):
    bucket = peek.bucket()
    peek.collection(bucket)
    ids = peek.objects(bucket, [{"body": f"object number {number}"} for number in range(1_000)])
    done = peek.run(bucket, ids)
    assert done["status"] == "COMPLETED"
    assert done["item_counts"] == {"completed": 1_000}
    assert peek.ok("GET", "/collections/parts/documents/count")["count"] == 1_000
    assert len(peek.search("object", limit=500)) == 500


def test_a_stored_file_is_read_through_a_signed_address(peek: Api, topology):
    bucket = peek.bucket()
    text = "kept in the blob store " * 5_000
    made = peek.ok(
        "POST", f"/buckets/{bucket}/objects", {"blobs": [{"property": "body", "type": "text", "data": text}]}
    )
    path = f"/buckets/{bucket}/objects/{made['object_id']}?return_presigned_urls=true"
    url = peek.ok("GET", path)["blobs"][0]["presigned_url"]
    with topology.client() as client:
        response = client.get(url)
    assert response.status_code == 200
    assert response.text == text
    assert response.headers["content-disposition"].startswith("attachment")


def test_deep_health_is_good_and_workers_are_heard(peek: Api):
    assert peek.ok("GET", "/health/deep")["problems"] == {}
    deadline = time.monotonic() + 15
    while not peek.ok("GET", "/health/beat")["beat_running"]:
        assert time.monotonic() < deadline, "no worker was heard of"
        time.sleep(0.2)


def test_canceling_a_running_batch_is_final(peek: Api):
    bucket = peek.bucket()
    peek.collection(bucket)
    batch = peek.submit(bucket, peek.objects(bucket, [{"body": f"to be canceled {number}"} for number in range(600)]))
    peek.send("POST", f"/batches/{batch}/cancel")
    status = peek.ok("GET", f"/batches/{batch}")["status"]
    assert status in {"CANCELED", "COMPLETED"}
    before = peek.ok("GET", "/collections/parts/documents/count")["count"]
    time.sleep(1.5)
    assert peek.ok("GET", "/collections/parts/documents/count")["count"] == before
    assert peek.ok("GET", f"/batches/{batch}")["status"] == status


def test_weights_that_arrive_late_let_the_waiting_batch_go_on(peek: Api, topology):
    """A seeded checkpoint in the real layout, put where the collection's model is looked for, after the submit."""
    model = "nomic-ai/nomic-embed-text-v2-moe"
    folder = topology.folder / "data" / "models" / model
    bucket = peek.bucket()
    made = peek.collection(bucket, model=model, parameters={"dimensions": 256})
    if not folder.exists():
        assert any("openpeek model pull" in warning for warning in made["warnings"])
    batch = peek.submit(bucket, peek.objects(bucket, [{"body": "experts take turns"}, {"body": "二番目の文書"}]))
    if not folder.exists():
        deadline = time.monotonic() + 30
        while peek.ok("GET", f"/batches/{batch}")["lifecycle_reason"] is None:
            assert time.monotonic() < deadline, "the batch never says what it waits for"
            time.sleep(0.1)
        assert "model_weights_missing" in peek.ok("GET", f"/batches/{batch}")["lifecycle_reason"]
        synthesize(folder.with_name("in-the-making"), seed=3, width=768, heads=12, inner=64, layers=4)
        folder.with_name("in-the-making").rename(folder)
    done = peek.wait(batch, seconds=60)
    assert done["status"] == "COMPLETED"
    assert done["failed_objects"] == []
    shown = peek.ok("GET", "/collections/parts")
    model_of_it = shown["model"]
    assert len(model_of_it["weights_sha256"]) == len(model_of_it["tokenizer_sha256"]) == 64
    assert {key: model_of_it[key] for key in ("model_id", "document_prefix", "precision", "dimensions")} == {
        "model_id": model,
        "document_prefix": "search_document: ",
        "precision": "fp32",
        "dimensions": 256,
    }
    listed = peek.ok("POST", "/collections/parts/documents/list", {})["results"]
    assert [one["_internal"]["model"] for one in listed] == [model_of_it] * 2
    assert peek.search("experts take turns")[0]["_internal"]["model"] == model_of_it
    assert shown["vector_indexes"][0]["feature_uri"] == "mixpeek://text_extractor@v1/nomic_embed_v2_moe_v1"
    assert peek.search("experts take turns")[0]["text"] == "experts take turns"
