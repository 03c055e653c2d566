"""Namespaces, buckets, objects, collections, batches, tasks, documents and retrievers, as a user meets them."""

import base64
import time

import pytest


def test_a_namespace_is_found_by_id_and_name_and_lists_with_its_counts(server):
    name = f"wiki-{time.time_ns()}"
    made = server.ok("POST", "/namespaces", {"namespace_name": name, "description": "all of it"})
    for identifier in (made["namespace_id"], name):
        found = server.ok("GET", f"/namespaces/{identifier}")
        assert found["namespace_name"] == name
        assert found["document_count"] == 0
    listed = server.ok("POST", "/namespaces/list", {"search": name})
    assert [one["namespace_id"] for one in listed["results"]] == [made["namespace_id"]]
    assert listed["total_count"] == 1


def test_a_taken_namespace_name_is_409(server, api):
    name = api.ok("GET", f"/namespaces/{api.namespace}")["namespace_name"]
    error = server.refused(409, "POST", "/namespaces", {"namespace_name": name})
    assert error["type"] == "AlreadyExistsError"


def test_a_deleted_namespace_is_gone_at_once(server):
    api = server.fresh()
    bucket = api.bucket()
    api.collection(bucket)
    api.run(bucket, api.objects(bucket, [{"body": "to be deleted"}]))
    server.ok("DELETE", f"/namespaces/{api.namespace}")
    assert server.refused(404, "GET", f"/namespaces/{api.namespace}")["code"] == "namespace_not_found"
    api.refused(404, "GET", f"/buckets/{bucket}")


def test_a_bucket_keeps_its_schema_and_is_found_by_name(api):
    api.bucket("texts", year={"type": "INTEGER", "required": True})
    found = api.ok("GET", "/buckets/texts")
    assert found["bucket_schema"]["properties"]["year"] == {"type": "integer", "required": True}
    assert found["object_count"] == 0
    assert api.refused(409, "POST", "/buckets", {"bucket_name": "texts"})["code"] == "bucket_name_taken"


def test_the_other_spelling_of_the_schema_is_accepted(api):
    made = api.ok("POST", "/buckets", {"bucket_name": "b", "schema": {"properties": {"x": {"type": "text"}}}})
    assert "x" in made["bucket_schema"]["properties"]


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"year": "1999"}, "year"),
        ({"year": 1.5}, "year"),
        ({"body": 5}, "body"),
        ({"colour": "pink"}, "colour"),
        ({"flag": "true"}, "flag"),
        ({"day": "yesterday"}, "day"),
        ({"tags": "a"}, "tags"),
        ({"object_id": "obj_mine"}, "object_id"),
        ({"status": "COMPLETED"}, "status"),
        ({"blobs": [{"property": "nope", "type": "text", "data": "x"}]}, "property"),
        ({"blobs": [{"property": "body", "type": "image", "data": "x"}]}, "type"),
        ({"blobs": [{"property": "body", "type": "text"}]}, "data"),
        ({"blobs": [{"property": "body", "type": "text", "data": "data:text/plain;base64,***"}]}, "data"),
        ({"blobs": [{"property": "body", "type": "text", "data": "s3://bucket/key"}]}, "data"),
        ({"blobs": [{"property": "body", "type": "text", "upload_id": "upl_x"}]}, "upload_id"),
        ({"blobs": "x"}, "blobs"),
    ],
)
def test_objects_that_break_the_schema_are_refused_and_not_written(api, given, where):
    bucket = api.bucket(
        year={"type": "integer"},
        colour={"type": "string", "enum": ["red", "blue"]},
        flag={"type": "boolean"},
        day={"type": "date"},
        tags={"type": "array"},
    )
    error = api.refused(422, "POST", f"/buckets/{bucket}/objects", {"body": "text", **given})
    assert where in str(error["details"]["validation_errors"][0]["location"])
    assert api.ok("GET", f"/buckets/{bucket}")["object_count"] == 0


def test_an_object_keeps_what_it_was_given(api):
    bucket = api.bucket(year={"type": "integer", "default": 2000})
    given = {"body": "hello", "metadata": {"a": {"b": [1, None, True]}}, "emoji": "😀"}
    made = api.ok("POST", f"/buckets/{bucket}/objects", given)
    found = api.ok("GET", f"/buckets/{bucket}/objects/{made['object_id']}")
    for one in (made, found):
        assert {key: one[key] for key in given} == given
        assert one["year"] == 2000
        assert one["status"] == "PENDING"
        assert one["consistency"]["retriever_visible"] == "after_processing"
    assert "collection" in made["next_step"]


def test_blobs_come_as_text_as_data_uri_and_as_a_stored_file(api):
    bucket = api.bucket()
    long = "lorem ipsum " * 20_000
    encoded = base64.b64encode(b"from base64").decode()
    for data, text in (("inline", "inline"), (f"data:text/plain;base64,{encoded}", "from base64"), (long, long)):
        blob = {"property": "body", "type": "text", "data": data}
        made = api.ok("POST", f"/buckets/{bucket}/objects", {"blobs": [blob]})
        path = f"/buckets/{bucket}/objects/{made['object_id']}?return_presigned_urls=true"
        found = api.ok("GET", path)["blobs"][0]
        assert found["details"]["size_bytes"] == len(text)
        if text is long:
            response = api.client.get("/v1" + found["presigned_url"].split("/v1", 1)[1])
            assert response.text == long
            assert response.headers["content-disposition"].startswith("attachment")
        else:
            assert found["data"] == text


def test_a_batch_of_objects_stands_or_falls_one_by_one(api):
    bucket = api.bucket(year={"type": "integer"})
    given = [{"body": "a"}, {"year": "x"}, "nonsense", {"body": "b", "blobs": 5}, {"body": "c"}]
    reply = api.ok("POST", f"/buckets/{bucket}/objects/batch", {"objects": given})
    assert reply["succeeded_count"] == 2
    assert [one["object_index"] for one in reply["failed"]] == [1, 2, 3]
    too_many = {"objects": [{"body": "x"}] * 101}
    api.refused(422, "POST", f"/buckets/{bucket}/objects/batch", too_many)
    api.refused(422, "POST", f"/buckets/{bucket}/objects/batch", {"objects": []})


def test_lists_walk_through_all_by_cursor_and_by_offset(api):
    bucket = api.bucket()
    ids = set(api.objects(bucket, [{"body": str(number)} for number in range(25)]))
    seen, cursor = [], None
    while True:
        page = api.ok(
            "POST", f"/buckets/{bucket}/objects/list", {"limit": 10, **({"cursor": cursor} if cursor else {})}
        )
        seen += [one["object_id"] for one in page["results"]]
        cursor = page["pagination"]["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 25
    assert set(seen) == ids
    second = api.ok("GET", f"/buckets/{bucket}/objects?page=2&page_size=10&include_total=true")
    assert [one["object_id"] for one in second["results"]] == seen[10:20]
    assert second["pagination"]["total"] == 25
    assert second["pagination"]["total_pages"] == 3


def test_the_seed_request_is_accepted_as_written(server, api):
    bucket = api.bucket()
    body = {
        "namespace_id": api.namespace,
        "collection_name": "my-collection",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": {
            "feature_extractor_name": "text_embedding",
            "version": "v1",
            "parameters": {"model_id": "nomic-ai/nomic-embed-text-v2-moe"},
        },
    }
    made = server.ok("POST", "/collections", body)
    assert made["feature_extractor"]["feature_extractor_id"] == "text_extractor_v1"
    assert made["feature_extractor"]["parameters"]["extractor_type"] == "text_extractor"
    assert made["vector_indexes"][0]["feature_uri"] == "mixpeek://text_extractor@v1/nomic_embed_v2_moe_v1"
    assert made["vector_indexes"][0]["index"]["dimensions"] == 768
    assert "text" in made["output_schema"]["properties"]
    assert any("nomic-ai/nomic-embed-text-v2-moe" in warning and "pull" in warning for warning in made["warnings"])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source": {"type": "bucket", "bucket_ids": ["bkt_missing"]}}, 404, "bucket_not_found"),
        ({"source": {"type": "bucket"}}, 422, "invalid"),
        ({"source": {"type": "taxonomy"}}, 422, "not_offered"),
        ({"feature_extractor": {"feature_extractor_name": "nope", "version": "v1"}}, 422, "unknown_extractor"),
        ({"feature_extractor": {"feature_extractor_name": "text_extractor", "version": "v9"}}, 422, "unknown_version"),
        ({"collection_name": "ab"}, 422, "validation_failed"),
    ],
)
def test_collections_that_cannot_be_are_refused(api, changes, status, code):
    bucket = api.bucket()
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1"}
    body = {
        "collection_name": "parts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": extractor,
    }
    assert api.refused(status, "POST", "/collections", {**body, **changes})["code"] == code


@pytest.mark.parametrize(
    "parameters",
    [
        {"model_id": "nobody/knows-this"},
        {"chunk_size": 0},
        {"chunk_size": 5, "chunk_overlap": 5},
        {"split_by": "time_segments"},
        {"model_id": "nomic-ai/nomic-embed-text-v2-moe", "dimensions": 100},
        {"dimensions": "many"},
    ],
)
def test_wrong_extractor_parameters_are_refused_at_creation(api, parameters):
    bucket = api.bucket()
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "parameters": parameters}
    body = {
        "collection_name": "parts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": extractor,
    }
    error = api.refused(422, "POST", "/collections", body)
    assert "parameters" in str(error["details"]["validation_errors"][0]["location"])


def test_parameters_of_another_extractor_are_ignored_with_a_warning(api):
    bucket = api.bucket()
    parameters = {"extractor_type": "audio_fingerprint_extractor", "segment_duration_sec": 5.0}
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "parameters": parameters}
    body = {
        "collection_name": "parts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": extractor,
    }
    made = api.ok("POST", "/collections", body)
    assert any("audio_fingerprint_extractor" in warning for warning in made["warnings"])


def test_an_input_that_cannot_be_inferred_is_asked_for(api):
    schema = {"properties": {"title": {"type": "string"}, "summary": {"type": "string"}}}
    bucket = api.ok("POST", "/buckets", {"bucket_name": "b", "bucket_schema": schema})["bucket_id"]
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1"}
    body = {
        "collection_name": "parts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": extractor,
    }
    assert api.refused(422, "POST", "/collections", body)["code"] == "input_mapping_needed"
    body["feature_extractor"]["input_mappings"] = {"text": "$.payload.summary"}
    made = api.ok(
        "POST", "/collections", {**body, "feature_extractor": {**extractor, "input_mappings": {"text": "summary"}}}
    )
    assert made["feature_extractor"]["input_mappings"] == {"text": "summary"}


def test_a_draft_takes_objects_and_a_submitted_batch_takes_none(api):
    bucket = api.bucket()
    api.collection(bucket)
    ids = api.objects(bucket, [{"body": f"text {number}"} for number in range(4)])
    draft = api.ok("POST", f"/buckets/{bucket}/batches", {"object_ids": ids[:2]})
    assert draft["status"] == "DRAFT"
    assert draft["lifecycle"] == "accepted"
    address = f"/buckets/{bucket}/batches/{draft['batch_id']}"
    assert set(api.ok("POST", f"{address}/objects", {"object_ids": ids})["object_ids"]) == set(ids)
    task = api.ok("POST", f"{address}/submit")
    assert task["task_type"] == "api_buckets_batches_process"
    done = api.wait(draft["batch_id"])
    assert done["status"] == "COMPLETED"
    assert done["task_id"] == task["task_id"]
    assert api.ok("GET", f"/tasks/{task['task_id']}")["status"] == "COMPLETED"
    assert api.refused(409, "POST", f"{address}/submit")["code"] == "batch_already_submitted"
    assert api.refused(409, "POST", f"{address}/objects", {"object_ids": ids})["code"] == "batch_not_draft"
    assert api.refused(409, "POST", f"{address}/cancel")["code"] == "batch_ended"


def test_a_draft_may_be_canceled_twice(api):
    bucket = api.bucket()
    ids = api.objects(bucket, [{"body": "x"}])
    draft = api.ok("POST", f"/buckets/{bucket}/batches", {"object_ids": ids})["batch_id"]
    for _ in range(2):
        api.ok("POST", f"/buckets/{bucket}/batches/{draft}/cancel")
    assert api.ok("GET", f"/batches/{draft}")["status"] == "CANCELED"


def test_a_batch_over_nothing_is_refused(api):
    bucket = api.bucket()
    other = api.bucket("other")
    ids = api.objects(bucket, [{"body": "x"}])
    api.refused(422, "POST", f"/buckets/{bucket}/batches", {})
    api.refused(422, "POST", f"/buckets/{bucket}/batches", {"object_ids": []})
    foreign = api.refused(422, "POST", f"/buckets/{other}/batches", {"object_ids": ids})
    assert foreign["code"] == "object_not_found"
    draft = api.ok("POST", f"/buckets/{bucket}/batches", {"object_ids": ids})["batch_id"]
    error = api.refused(409, "POST", f"/buckets/{bucket}/batches/{draft}/submit")
    assert error["code"] == "no_collection"
    assert api.ok("GET", f"/batches/{draft}")["status"] == "DRAFT"


def test_what_failed_is_named_with_its_reason(api):
    bucket = api.bucket()
    api.collection(bucket)
    ids = api.objects(bucket, [{"body": "good"}, {"body": "   "}, {"lang": "de"}])
    done = api.run(bucket, ids)
    assert done["status"] == "COMPLETED_WITH_ERRORS"
    reasons = {one["object_id"]: one["error_code"] for one in done["failed_objects"]}
    assert reasons == {ids[1]: "EMPTY_TEXT", ids[2]: "INPUT_MISSING"}
    assert done["documents_written"] == 1
    statuses = [api.ok("GET", f"/buckets/{bucket}/objects/{one}")["status"] for one in ids]
    assert statuses == ["COMPLETED", "FAILED", "FAILED"]
    assert api.run(bucket, ids[1:2])["status"] == "FAILED"


def test_documents_are_listed_filtered_counted_and_read(api):
    bucket = api.bucket()
    collection = api.collection(bucket, field_passthrough=["lang"])["collection_id"]
    api.run(bucket, api.objects(bucket, [{"body": f"text {n}", "lang": "de" if n % 2 else "en"} for n in range(6)]))
    assert api.ok("GET", f"/collections/{collection}/documents/count")["count"] == 6
    listed = api.ok("POST", "/collections/parts/documents/list", {"filters": {"lang": "de"}, "limit": 100})["results"]
    assert {one["lang"] for one in listed} == {"de"}
    assert len(listed) == 3
    one = api.ok("GET", f"/collections/{collection}/documents/{listed[0]['document_id']}?return_vectors=true")
    assert one["text"] == listed[0]["text"]
    assert len(one["vectors"]["standin_v1"]) == 384
    assert one["_internal"]["lineage"]["root_bucket_id"] == bucket
    assert api.ok("GET", f"/collections/{collection}")["document_count"] == 6
    wrong = {"filters": {"field": "lang", "operator": "resembles", "value": "x"}}
    assert api.refused(422, "POST", "/collections/parts/documents/list", wrong)["code"] == "unknown_operator"


def test_a_saved_retriever_finds_what_was_planted(api):
    bucket = api.bucket()
    collection = api.collection(bucket, field_passthrough=["lang"])
    texts = ["the quick brown fox", "a slow green turtle", "database rows and columns"]
    api.run(bucket, api.objects(bucket, [{"body": text, "lang": "en"} for text in texts]))
    uri = collection["vector_indexes"][0]["feature_uri"]
    search = {"feature_uri": uri, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": 10}
    stage = {
        "stage_name": "find",
        "stage_type": "filter",
        "config": {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 2}},
    }
    schema = {"query": {"type": "text", "required": True}}
    body = {"retriever_name": "r", "stages": [stage], "collection_identifiers": ["parts"], "input_schema": schema}
    made = api.ok("POST", "/retrievers", body)
    assert made["stages"][0]["parameters"] == made["stages"][0]["config"]["parameters"]
    assert made["collection_ids"] == [collection["collection_id"]]
    reply = api.ok("POST", f"/retrievers/{made['retriever_id']}/execute", {"inputs": {"query": "green turtle"}})
    assert reply["documents"][0]["text"] == "a slow green turtle"
    assert len(reply["documents"]) == 2
    assert reply["stage_statistics"]["stages"]["find"]["output_count"] == 2
    assert "results" not in reply
    assert api.refused(422, "POST", "/retrievers/r/execute", {})["code"] == "missing_input"
    assert api.refused(409, "POST", "/retrievers", body)["code"] == "retriever_name_taken"
    api.ok("DELETE", "/collections/parts")
    gone = api.refused(409, "POST", "/retrievers/r/execute", {"inputs": {"query": "x"}})
    assert gone["code"] == "collection_deleted"
    api.ok("DELETE", "/retrievers/r")
    api.refused(404, "GET", "/retrievers/r")


def test_a_retriever_that_could_never_run_is_refused(api):
    for stage, code in (
        ({"stage_id": "nonsense", "parameters": {}}, "unknown_stage"),
        ({"stage_id": "rerank", "parameters": {}}, "not_offered"),
        ({"stage_id": "limit", "parameters": {"limit": 0}}, "stage_parameters_wrong"),
        (
            {"stage_id": "attribute_filter", "parameters": {"field": "a", "operator": "like", "value": 1}},
            "unknown_operator",
        ),
        ({"stage_id": "feature_search", "parameters": {"query": "{{NONSENSE.x}}"}}, "unknown_template_name"),
    ):
        error = api.refused(422, "POST", "/retrievers", {"retriever_name": "r", "stages": [stage]})
        assert error["code"] == code
        assert error["details"]["validation_errors"][0]["location"][:3] == ["body", "stages", 0]
    assert api.ok("POST", "/retrievers/list")["total"] == 0


def test_a_query_of_another_width_or_an_unknown_feature_is_refused(api):
    bucket = api.bucket()
    api.collection(bucket)
    api.run(bucket, api.objects(bucket, [{"body": "hello"}]))
    stage = {"stage_id": "feature_search", "parameters": {"query": [0.1, 0.2]}}
    error = api.refused(422, "POST", "/retrievers/execute", {"stages": [stage]})
    assert error["code"] == "dimension_mismatch"
    stage = {
        "stage_id": "feature_search",
        "parameters": {"query": "x", "feature_uri": "mixpeek://text_extractor@v1/other"},
    }
    error = api.refused(422, "POST", "/retrievers/execute", {"stages": [stage]})
    assert error["code"] == "unknown_feature"
    assert "standin_v1" in error["message"]


def test_a_collection_over_a_collection_is_a_second_tier(api):
    bucket = api.bucket()
    first = api.collection(bucket, field_passthrough=["lang"])["collection_id"]
    extractor = {"feature_extractor_name": "passthrough_extractor", "version": "v1", "include_all_source_fields": True}
    source = {"type": "collection", "collection_id": "parts"}
    api.ok("POST", "/collections", {"collection_name": "copies", "source": source, "feature_extractor": extractor})
    ids = api.objects(bucket, [{"body": f"text {number}", "lang": "en"} for number in range(3)])
    done = api.run(bucket, ids)
    assert done["status"] == "COMPLETED"
    assert done["total_tiers"] == 2
    assert [tier["status"] for tier in done["tier_tasks"]] == ["COMPLETED", "COMPLETED"]
    copies = api.ok("POST", "/collections/copies/documents/list", {"limit": 100})["results"]
    assert {one["text"] for one in copies} == {f"text {number}" for number in range(3)}
    assert {one["_internal"]["lineage"]["source_collection_id"] for one in copies} == {first}


def test_a_busy_collection_or_bucket_is_not_deleted_unless_forced(api):
    bucket = api.bucket()
    # Weights that are not here keep the batch waiting, which keeps everything busy.
    api.collection(bucket, model="intfloat/multilingual-e5-base")
    batch = api.submit(bucket, api.objects(bucket, [{"body": "x"}]))
    assert api.refused(409, "DELETE", "/collections/parts")["code"] == "collection_busy"
    assert api.refused(409, "DELETE", f"/buckets/{bucket}")["code"] == "bucket_busy"
    assert api.refused(409, "DELETE", f"/namespaces/{api.namespace}")["code"] == "namespace_busy"
    api.ok("DELETE", "/collections/parts?force=true")
    done = api.wait(batch)
    assert done["status"] == "FAILED"
    assert done["failed_objects"][0]["error_code"] == "SOURCE_DELETED"
    api.ok("DELETE", f"/buckets/{bucket}")
    api.refused(404, "GET", f"/buckets/{bucket}")


def test_a_deleted_collection_is_found_by_no_search(api):
    bucket = api.bucket()
    api.collection(bucket, "one")
    api.collection(bucket, "two")
    api.run(bucket, api.objects(bucket, [{"body": "needle in the hay"}]))
    assert len(api.search("needle")) == 2
    api.ok("DELETE", "/collections/one")
    assert len(api.search("needle")) == 1
    api.ok("DELETE", f"/buckets/{bucket}")
    assert api.search("needle") == []


def test_collections_of_different_widths_are_searched_apart_and_fused(api):
    bucket = api.bucket()
    api.collection(bucket, "wide")
    api.collection(bucket, "narrow", parameters={"dimensions": 64})
    api.run(bucket, api.objects(bucket, [{"body": "green turtle"}, {"body": "red fox"}]))
    found = api.search("green turtle")
    assert [one["text"] for one in found] == ["green turtle", "green turtle", "red fox", "red fox"]
    assert len({one["collection_id"] for one in found[:2]}) == 2
    assert found[0]["score"] == pytest.approx(1 / 61)


def test_an_execution_says_where_the_time_went(api):
    bucket = api.bucket()
    api.collection(bucket)
    api.run(bucket, api.objects(bucket, [{"body": "hello"}]))
    stage = {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"query": "hello"}}}
    reply = api.ok("POST", "/retrievers/execute", {"stages": [stage]})
    assert {"embed_ms", "index_ms", "rows_ms"} <= set(reply["stage_statistics"]["stages"]["s"])
