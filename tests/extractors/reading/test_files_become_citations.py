"""From files in a bucket to documents that say where they stand, over HTTP, workers and reader processes included."""

import base64
import http.server
import threading
from itertools import pairwise
from typing import Any

import pytest
from starlette.testclient import TestClient

from cli.serve import application
from extractors.reading.formats import DOCX_TYPE
from tests.conftest import Api
from tests.extractors.reading.samples import encrypted_pdf, p, pdf, word, zipped
from workers import sources

MANUAL = pdf("The pump", "Bleed the valve\nevery autumn.", "Spare parts: gasket")
CONTRACT = word(
    p("Lease", '<w:outlineLvl w:val="0"/>')
    + p("Rent", '<w:outlineLvl w:val="1"/>')
    + p("Rent is due on the third workday.")
    + p("Notice", '<w:outlineLvl w:val="1"/>')
    + p("Notice takes three months.")
)
PAGE = "<!doctype html><title>Recipes</title><h1>Bread</h1><p>Knead the dough.<h2>Oven</h2><p>Bake at 230 degrees."
MARKDOWN = "# Guide\n\nWelcome aboard.\n\n## Harbour\n\nMoor at the quay.\n\n```py\nx = 1\n```\n"


def blob(content: bytes | str, content_type: str = "", property_: str = "body", type_: str = "text") -> dict[str, str]:
    raw = content if isinstance(content, str) else f"data:{content_type};base64,{base64.b64encode(content).decode()}"
    return {"property": property_, "type": type_, "data": raw}


def put(api: Api, bucket: str, *blobs: dict[str, str]) -> str:
    made: str = api.ok("POST", f"/buckets/{bucket}/objects", {"blobs": list(blobs)})["object_id"]
    return made


def documents(api: Api, collection: str) -> list[dict[str, Any]]:
    listed = api.ok("POST", f"/collections/{collection}/documents/list", {"limit": 100})["results"]
    return sorted(listed, key=lambda one: (one["_internal"]["lineage"]["root_object_id"], one["chunk_index"]))


@pytest.fixture
def library(api):
    """A bucket with a collection that splits by sections, where a file has them."""
    bucket = api.bucket()
    api.collection(bucket, parameters={"split_by": "markdown"})
    return api, bucket


def test_every_format_gives_documents_that_say_where_they_stand_and_are_found(library):
    api, bucket = library
    ids = {
        "pdf": put(api, bucket, blob(MANUAL, "application/pdf")),
        "docx": put(api, bucket, blob(CONTRACT, DOCX_TYPE)),
        "html": put(api, bucket, blob(PAGE)),
        "markdown": put(api, bucket, blob(MARKDOWN)),
    }
    done = api.run(bucket, list(ids.values()))
    assert (done["status"], done["failed_objects"]) == ("COMPLETED", [])
    found = documents(api, "parts")
    of = {
        name: [one for one in found if one["_internal"]["lineage"]["root_object_id"] == identity]
        for name, identity in ids.items()
    }
    assert [(one["page_number"], one["text"].strip()) for one in of["pdf"]] == [
        (1, "The pump"),
        (2, "Bleed the valve\nevery autumn."),
        (3, "Spare parts: gasket"),
    ]
    assert [one["heading_path"] for one in of["docx"]] == [["Lease"], ["Lease", "Rent"], ["Lease", "Notice"]]
    assert [one["heading_path"] for one in of["html"]] == [["Bread"], ["Bread", "Oven"]]
    assert [(one["heading_path"], one["chunk_kind"]) for one in of["markdown"]] == [
        (["Guide"], "section"),
        (["Guide", "Harbour"], "section"),
        (["Guide", "Harbour"], "code"),
    ]
    for parts in of.values():
        assert parts[0]["start_char"] == 0
        assert all(one["end_char"] == after["start_char"] for one, after in pairwise(parts))
        assert all(len(one["text"]) == one["end_char"] - one["start_char"] for one in parts)
    for query, name, where in (
        ("bleed the valve every autumn", "pdf", {"page_number": 2}),
        ("Rent is due on the third workday", "docx", {"heading_path": ["Lease", "Rent"]}),
        ("Bake at 230 degrees", "html", {"heading_path": ["Bread", "Oven"]}),
        ("Moor at the quay", "markdown", {"heading_path": ["Guide", "Harbour"]}),
    ):
        best = api.search(query)[0]
        assert best["_internal"]["lineage"]["root_object_id"] == ids[name], query
        assert {key: best[key] for key in where} == where
    [cited] = api.search("gasket", limit=1, filters={"field": "page_number", "operator": "eq", "value": 3})
    assert "gasket" in cited["text"]


def test_broken_files_fail_alone_each_with_its_reason(library):
    api, bucket = library
    good = [put(api, bucket, blob(MANUAL, "application/pdf")), put(api, bucket, blob(MARKDOWN))]
    bad = {
        "PDF_BROKEN": blob(MANUAL[:300], "application/pdf"),
        "PDF_ENCRYPTED": blob(encrypted_pdf("secret"), "application/pdf"),
        "PDF_WITHOUT_TEXT": blob(pdf("", ""), "application/pdf"),
        "DOCX_BROKEN": blob(CONTRACT[:200], DOCX_TYPE),
        "DOCX_WITHOUT_TEXT": blob(word(""), DOCX_TYPE),
        "HTML_WITHOUT_TEXT": blob("<html><script>x()</script>"),
        "HTML_BROKEN": blob("<html>" + "<div>x" * 100_000),
        "TOO_LARGE": blob(pdf("x", after=b" " * 100_000_000, compressed=True), "application/pdf"),
    }
    ids = {put(api, bucket, one): code for code, one in bad.items()}
    done = api.run(bucket, [*good, *ids])
    assert done["status"] == "COMPLETED_WITH_ERRORS"
    failed = {one["object_id"]: one for one in done["failed_objects"]}
    assert {identity: one["error_code"] for identity, one in failed.items()} == ids
    for one in failed.values():
        assert one["error"].startswith("The blob 'body': ")
        assert one["error_type"] == "permanent"
    there = {one["_internal"]["lineage"]["root_object_id"] for one in documents(api, "parts")}
    assert there == set(good)
    assert api.search("bleed the valve")[0]["page_number"] == 2


def test_a_file_that_takes_too_long_fails_alone(library, monkeypatch):
    monkeypatch.setattr(sources, "OBJECT_SECONDS", 1.0)
    monkeypatch.setattr(sources, "LEAST_SECONDS", 1.0)
    api, bucket = library
    slow = "<html><p " + " ".join(f"a{number}=1" for number in range(300_000)) + ">x"
    ids = [put(api, bucket, blob(MANUAL, "application/pdf")), put(api, bucket, blob(slow))]
    done = api.run(bucket, ids)
    assert [(one["object_id"], one["error_code"]) for one in done["failed_objects"]] == [(ids[1], "READING_TIMED_OUT")]
    assert len(documents(api, "parts")) == 3


def test_several_files_of_one_property_are_one_text_whose_pages_keep_their_own_numbers(api):
    schema = {"properties": {"body": {"type": "pdf"}, "photo": {"type": "image"}}}
    bucket = api.ok("POST", "/buckets", {"bucket_name": "scans", "bucket_schema": schema})["bucket_id"]
    api.collection(bucket, parameters={"split_by": "pages", "chunk_size": 1}, input_mappings={"text": "body"})
    two = [blob(pdf(*pages), "application/pdf", type_="pdf") for pages in (("a1", "a2"), ("b1", "b2", "b3"))]
    image = blob(b"\x89PNG\r\n\x1a\n", "image/png", "photo", "image")
    assert api.run(bucket, [put(api, bucket, *two, image)])["status"] == "COMPLETED"
    assert [(one["text"].strip(), one["page_number"]) for one in documents(api, "parts")] == [
        ("a1", 1),
        ("a2", 2),
        ("b1", 1),
        ("b2", 2),
        ("b3", 3),
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "unsupported_format"),
        (zipped({"xl/workbook.xml": "<x/>"}), "unsupported_format"),
        ("Grüße".encode("latin-1"), "not_utf8"),
    ],
    ids=["PNG", "Excel", "Latin-1"],
)
def test_what_is_no_text_is_refused_when_the_object_is_made(library, data, code):
    api, bucket = library
    body = {"blobs": [blob(data, "application/octet-stream")]}
    error = api.refused(422, "POST", f"/buckets/{bucket}/objects", body)
    assert error["code"] == code
    assert error["pointer"] == "/body/blobs/0/data"


class Files(http.server.BaseHTTPRequestHandler):
    """A web server with a PDF that it calls by no name, and nothing else."""

    def do_GET(self):
        self.send_response(200 if self.path == "/manual" else 404)
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        self.wfile.write(MANUAL if self.path == "/manual" else b"nothing here")

    def log_message(self, *_given):
        pass


@pytest.fixture
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_at_an_address_is_read_by_its_bytes_and_one_that_is_gone_fails_alone(make_house, address):
    house = make_house(fetch_allow="127.0.0.1/32")
    with TestClient(application(house, "http://testserver"), raise_server_exceptions=False) as client:
        api = Api(client).fresh()
        bucket = api.bucket()
        api.collection(bucket, parameters={"split_by": "pages", "chunk_size": 1})
        ids = [put(api, bucket, blob(f"{address}/{name}")) for name in ("manual", "gone")]
        done = api.run(bucket, ids)
        assert [one["object_id"] for one in done["failed_objects"]] == [ids[1]]
        assert done["failed_objects"][0]["error"]
        assert [one["page_number"] for one in documents(api, "parts")] == [1, 2, 3]
