"""What holds on every route: keys, namespaces, strict JSON, the envelope."""

import pytest

ROUTES_WITH_KEY = [
    ("GET", "/me"),
    ("GET", "/namespaces"),
    ("POST", "/buckets"),
    ("POST", "/collections"),
    ("POST", "/retrievers/execute"),
    ("GET", "/tasks/task_x"),
    ("GET", "/batches/btch_x"),
    ("GET", "/health/deep"),
]
NAMESPACED = [
    ("GET", "/buckets"),
    ("POST", "/buckets/list"),
    ("GET", "/buckets/b"),
    ("DELETE", "/buckets/b"),
    ("GET", "/buckets/b/objects"),
    ("GET", "/buckets/b/objects/o"),
    ("GET", "/buckets/b/batches/x"),
    ("GET", "/collections"),
    ("GET", "/collections/c"),
    ("DELETE", "/collections/c"),
    ("GET", "/collections/c/documents"),
    ("GET", "/collections/c/documents/count"),
    ("GET", "/collections/c/documents/d"),
    ("GET", "/retrievers"),
    ("GET", "/retrievers/r"),
    ("DELETE", "/retrievers/r"),
    ("POST", "/retrievers/r/execute"),
]
ANONYMOUS = [
    "/health",
    "/health/liveness",
    "/health/beat",
    "/collections/features/extractors",
    "/collections/features/extractors/text_extractor_v1",
    "/retrievers/stages",
]


@pytest.mark.parametrize(("method", "path"), ROUTES_WITH_KEY)
@pytest.mark.parametrize(
    "header", [None, "Bearer ", "Bearer sk_wrong", "Basic abc", "sk_tests_only", "Bearer sk_x\u00fc"]
)
def test_without_a_good_key_every_route_answers_401(server, method, path, header):
    headers = {"Authorization": header.encode("latin-1")} if header is not None else {}
    response = server.client.request(method, "/v1" + path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "UnauthorizedError"


def test_the_key_is_asked_for_before_the_body_is_looked_at(server):
    response = server.client.post("/v1/buckets", content=b"{not json")
    assert response.status_code == 401


@pytest.mark.parametrize("path", ANONYMOUS)
def test_catalogues_and_light_health_need_no_key(server, path):
    assert server.client.get("/v1" + path).status_code == 200


@pytest.mark.parametrize(("method", "path"), NAMESPACED)
def test_a_namespaced_route_without_a_namespace_answers_400(server, method, path):
    assert server.inside("").refused(400, method, path)["code"] == "namespace_missing"


@pytest.mark.parametrize(("method", "path"), NAMESPACED)
def test_an_unknown_namespace_answers_404(server, method, path):
    error = server.inside("no-such-namespace").refused(404, method, path)
    assert error["code"] == "namespace_not_found"


@pytest.mark.parametrize(
    ("method", "path"), [pair for pair in NAMESPACED if pair[1].count("/") > 1 or pair[0] == "DELETE"]
)
def test_unknown_ids_answer_404_and_say_what_is_missing(api, method, path):
    if path == "/buckets/list":
        return
    assert api.refused(404, method, path)["type"] == "NotFoundError"


def test_two_namespaces_in_one_request_are_a_conflict(server):
    one, other = server.fresh(), server.fresh()
    error = one.refused(400, "POST", "/buckets", {"bucket_name": "b", "namespace_id": other.namespace})
    assert error["code"] == "namespace_conflict"


def test_the_namespace_may_stand_in_the_body_by_name_or_id(server, api):
    name = api.ok("GET", f"/namespaces/{api.namespace}")["namespace_name"]
    made = server.ok("POST", "/buckets", {"bucket_name": "from-body", "namespace_id": name})
    assert api.ok("GET", f"/buckets/{made['bucket_id']}")["bucket_name"] == "from-body"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "json_malformed"),
        (b"[1,2", 400, "json_malformed"),
        (b'{"bucket_name": NaN}', 400, "json_malformed"),
        (b'{"bucket_name": 1e999}', 400, "json_malformed"),
        (b'{"bucket_name": "\\ud800"}', 400, "json_malformed"),
        (b'{"bucket_name": "a\\u0000b"}', 400, "nul_character"),
        (b'{"x": ' + b"[" * 70 + b"]" * 70 + b"}", 400, "json_too_deep"),
        (b"[" * 100_000, 400, "json_malformed"),
        (b'{"bucket_name": ' + b"9" * 5000 + b"}", 400, "json_malformed"),
        (b"\xff\xfe", 400, "json_malformed"),
        (b"[]", 422, "validation_failed"),
        (b'"text"', 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b"", 422, "validation_failed"),
        (b'{"bucket_name": 5}', 422, "validation_failed"),
        (b'{"bucket_name": ""}', 422, "validation_failed"),
        (b'{"bucket_name": "b", "bucket_schema": []}', 422, "validation_failed"),
        (
            b'{"bucket_name": "b", "bucket_schema": {"properties": {"x": {"type": "nonsense"}}}}',
            422,
            "validation_failed",
        ),
    ],
)
def test_bad_bodies_are_refused_with_a_code_and_never_with_500(api, content, status, code):
    response = api.send("POST", "/buckets", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
    assert api.ok("GET", "/buckets")["results"] == []


def test_a_body_of_50_megabytes_is_refused(api):
    response = api.send("POST", "/buckets", content=b" " * 50_000_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("path", ["/buckets/a%00b", "/buckets?search=%00", "/collections/%00/documents"])
def test_nul_in_the_address_is_refused(api, path):
    assert api.refused(400, "GET", path)["code"] == "nul_character"


def test_an_unknown_route_says_so_in_the_envelope(api):
    assert api.refused(404, "GET", "/nonsense")["code"] == "route_not_found"
    assert api.refused(405, "PUT", "/me")["code"] == "method_not_allowed"


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", ""])
def test_every_route_is_served_at_v1_at_api_v1_and_bare(server, prefix):
    response = server.client.get(f"{prefix}/me", headers={"Authorization": f"Bearer {server.key}"})
    assert response.status_code == 200


def test_unknown_keys_are_ignored_and_named(api):
    made = api.ok(
        "POST", "/buckets", {"bucket_name": "b", "colour": "red", "organization_id": "org_evil", "state": "x"}
    )
    assert [warning for warning in made["warnings"] if "colour" in warning]
    assert "org_evil" not in str(api.ok("GET", "/buckets/b"))


def test_an_empty_body_means_an_empty_object(api):
    assert api.send("POST", "/buckets/list").status_code == 200
    assert api.send("POST", "/collections/list", content=b"").status_code == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=abc", "offset=-1", "offset=10001", "page=0", "cursor=nonsense", "limit=1.5"],
)
def test_pages_out_of_range_are_refused(api, query):
    assert api.refused(422, "GET", f"/buckets?{query}")["type"] == "ValidationError"


def test_every_response_carries_a_request_id_and_is_not_sniffed(server):
    response = server.client.get("/v1/health")
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_catalogue_of_extractors_has_what_the_sdk_requires(server):
    for item in server.ok("GET", "/collections/features/extractors"):
        for key in ("feature_extractor_name", "version", "feature_extractor_id", "description", "icon"):
            assert isinstance(item[key], str)
        assert isinstance(item["default_parameters"], dict)
        for index in item["required_vector_indexes"]:
            assert len(index["description"]) >= 10


def test_the_catalogue_of_stages_has_what_the_sdk_requires(server):
    for item in server.ok("GET", "/retrievers/stages"):
        assert item["category"] in {"filter", "sort", "reduce", "apply", "enrich"}
        assert item["description"]
        assert item["icon"]


def test_deep_health_names_every_part(api):
    body = api.ok("GET", "/health/deep")
    assert body["status"] == "OK", body
    wanted = {"cache", "metadata", "vector_store", "object_storage", "task_queue", "inference"}
    assert set(body["data"]) == wanted
    assert api.client.get("/readyz").status_code == 200


def test_a_body_of_another_content_type_is_told_the_header_to_send(api):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    response = api.send("POST", "/buckets", content=b'{"bucket_name": "b"}', headers=form)
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["error"]["message"]
