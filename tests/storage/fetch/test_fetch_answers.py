"""Whatever a server answers, and however slowly: a fetch ends in time, in size, and with a code."""

import gzip
import io
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib

import httpcore
import pytest

from domain.errors import ObjectFailed, Unavailable
from storage.fetch import Fetcher, SourceUnavailable
from tests.services.ports import free_port
from tests.storage.fetch.doubles import LOOPBACK

ASK = {"max_bytes": 100_000, "timeout_seconds": 5}


def replying(body=b"", status=200, length=None, **headers):
    """Return a handler that gives one answer."""

    def answer(request):
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)
        if length is not None:
            request.close_connection = True

    return answer


def test_a_fetch_returns_body_type_and_where_it_ended(serve, fetcher):
    url = serve(replying("Grüße".encode(), Content_Type="text/plain; charset=utf-8")) + "/a%20b?token=1"
    found = fetcher.get(url, **ASK)
    assert found.body == "Grüße".encode()
    assert found.content_type == "text/plain; charset=utf-8"
    assert found.final_url == url


def test_the_server_sees_the_name_and_no_more_of_us_than_needed(serve, make_fetcher):
    seen = {}

    def answer(request):
        seen.update({name.lower(): value for name, value in request.headers.items()}, path=request.path)
        replying(b"x")(request)

    port = serve(answer).rpartition(":")[2]
    fetcher = make_fetcher(allow=LOOPBACK, resolve=lambda host, port: ["127.0.0.1"])
    fetcher.get(f"http://Files.Test:{port}/a?b=c#fragment", **ASK)
    assert seen["host"] == f"files.test:{port}"
    assert seen["path"] == "/a?b=c"
    assert seen["user-agent"] == "openpeek"
    assert set(seen) == {"host", "user-agent", "accept", "accept-encoding", "path"}


def test_connections_are_kept_for_the_next_request(serve, fetcher):
    ports = set()

    def answer(request):
        ports.add(request.client_address)
        replying(b"x")(request)

    url = serve(answer)
    for _ in range(5):
        fetcher.get(url, **ASK)
    assert len(ports) == 1


def test_proxies_of_the_environment_are_not_asked(serve, make_fetcher, monkeypatch):
    asked = []
    proxy = serve(lambda request: (asked.append(request.path), replying(b"proxy")(request)))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert make_fetcher(allow=LOOPBACK).get(serve(replying(b"direct")), **ASK).body == b"direct"
    assert asked == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "SOURCE_NOT_FOUND"), (410, "SOURCE_NOT_FOUND"),
        (400, "SOURCE_REFUSED"), (401, "SOURCE_REFUSED"), (403, "SOURCE_REFUSED"), (418, "SOURCE_REFUSED"),
        (304, "SOURCE_UNREADABLE"), (300, "SOURCE_UNREADABLE"), (302, "SOURCE_UNREADABLE"),
    ],
)  # fmt: skip
def test_an_answer_that_will_stay_so_fails_the_object(serve, fetcher, status, code):
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(b"", status)) + "/x?token=secret-canary", **ASK)
    assert told.value.code == code
    assert str(status) in told.value.message
    assert "canary" not in told.value.message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 408, 425, 429])
def test_an_answer_that_may_change_is_transient(serve, fetcher, status):
    with pytest.raises(SourceUnavailable) as told:
        fetcher.get(serve(replying(b"", status)) + "/x?token=secret-canary", **ASK)
    assert isinstance(told.value, Unavailable)
    assert told.value.retryable
    assert told.value.code == "SOURCE_UNAVAILABLE"
    assert str(status) in told.value.message
    assert "canary" not in told.value.message


def test_up_to_three_redirects_are_followed_and_no_more(serve, fetcher):
    def answer(request):
        left = int(request.path.strip("/"))
        if left == 0:
            replying(b"here")(request)
        else:
            replying(b"", (301, 302, 303, 307, 308)[left % 5], Location=f"/{left - 1}")(request)

    url = serve(answer)
    found = fetcher.get(f"{url}/3", **ASK)
    assert (found.body, found.final_url) == (b"here", f"{url}/0")
    with pytest.raises(ObjectFailed, match="more than 3 times") as told:
        fetcher.get(f"{url}/4", **ASK)
    assert told.value.code == "SOURCE_UNREADABLE"


def test_a_redirect_to_nonsense_is_told(serve, fetcher):
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(b"", 302, Location="http://x:secret-canary/")), **ASK)
    assert told.value.code == "SOURCE_UNREADABLE"
    assert "canary" not in told.value.message


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(serve, fetcher):
    url = serve(replying(b"x" * 1_000))
    assert len(fetcher.get(url, max_bytes=1_000, timeout_seconds=5).body) == 1_000
    with pytest.raises(ObjectFailed, match="more than the 999 bytes") as told:
        fetcher.get(url, max_bytes=999, timeout_seconds=5)
    assert told.value.code == "SOURCE_TOO_LARGE"


def test_an_announced_size_is_refused_before_the_body(serve, fetcher):
    start = time.monotonic()
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(b"", length=10 * 1024**3)), **ASK)
    assert told.value.code == "SOURCE_TOO_LARGE"
    assert time.monotonic() - start < 2


def endless(request):
    """Send chunk after chunk and never say how many there will be."""
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    while True:
        request.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def test_a_body_without_end_is_cut_at_the_limit(serve, fetcher):
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(endless), max_bytes=1_000_000, timeout_seconds=5)
    assert told.value.code == "SOURCE_TOO_LARGE"


def test_packed_bodies_are_unpacked_also_in_several_members(serve, fetcher):
    text = b"the same sentence again and again. " * 1_000
    for packed in (gzip.compress(text), gzip.compress(text[:100]) + gzip.compress(text[100:])):
        for name in ("gzip", "x-gzip", "GZIP"):
            assert fetcher.get(serve(replying(packed, Content_Encoding=name)), **ASK).body == text


def test_a_gzip_bomb_is_defused(serve, fetcher):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()  # 200 MB in 200 kB
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(bomb, Content_Encoding="gzip")), max_bytes=1_000_000, timeout_seconds=5)
    assert told.value.code == "SOURCE_TOO_LARGE"


def test_members_that_unpack_to_nothing_end_too(serve, fetcher):
    nothing = gzip.compress(b"") * 20_000  # 400 kB
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(nothing, Content_Encoding="gzip")), max_bytes=10_000, timeout_seconds=5)
    assert told.value.code == "SOURCE_TOO_LARGE"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"not gzip at all", "gzip"),
        (gzip.compress(b"x" * 1_000)[:-9], "gzip"),
        (gzip.compress(b"x") + b"rubbish", "gzip"),
        (b"x", "br"),
        (b"x", "gzip, gzip"),
        (b"x", "secret-canary" * 20),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_told(serve, fetcher, body, encoding):
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(serve(replying(body, Content_Encoding=encoding)), **ASK)
    assert told.value.code == "SOURCE_UNREADABLE"
    assert len(told.value.message) < 300


def test_a_truncated_body_is_never_returned(serve, fetcher):
    with pytest.raises(SourceUnavailable, match="incomplete"):
        fetcher.get(serve(replying(b"half of", length=100)), **ASK)


def test_only_wanted_types_are_taken_when_some_are_wanted(serve, fetcher):
    url = serve(replying(b"x", Content_Type="Text/Plain; charset=utf-8"))
    assert fetcher.get(url, content_types=["application/json", "text/"], **ASK).body == b"x"
    with pytest.raises(ObjectFailed, match="sent Text/Plain") as told:
        fetcher.get(url, content_types=["image/"], **ASK)
    assert told.value.code == "SOURCE_UNREADABLE"
    assert fetcher.get(serve(replying(b"x")), **ASK).content_type == ""


def dripping_body(request):
    """Send a byte now and then, each soon enough for any timeout on single reads."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    while True:
        request.wfile.write(b"x")
        time.sleep(0.05)


def dripping_headers(request):
    """Never come to the end of the headers."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"X-Slow: 1\r\n")
        time.sleep(0.05)


def continuing(request):
    """Promise an answer again and again."""
    while True:
        request.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.05)


def silent(request):
    """Take the request and say nothing."""
    time.sleep(3)


def circling(request):
    """Redirect, slowly."""
    time.sleep(0.25)
    replying(b"", 302, Location="/")(request)


@pytest.mark.parametrize("answer", [dripping_body, dripping_headers, continuing, silent, circling])
def test_slowness_of_any_kind_ends_at_the_deadline(serve, fetcher, answer):
    start = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"longer than 0.5 s"):
        fetcher.get(serve(answer), max_bytes=100_000, timeout_seconds=0.5)
    assert 0.4 < time.monotonic() - start < 1.5


def test_a_resolver_that_hangs_ends_at_the_deadline(make_fetcher, network):
    done = threading.Event()
    fetcher = make_fetcher(network=network, resolve=lambda host, port: done.wait(5) and [])
    start = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"longer than 0.3 s"):
        fetcher.get("http://slow.test/", max_bytes=1, timeout_seconds=0.3)
    assert time.monotonic() - start < 1.5
    done.set()


def test_each_thread_has_a_deadline_of_its_own(serve, fetcher):
    slow, fast = serve(dripping_body), serve(replying(b"fast"))
    ended = {}

    def wait():
        start = time.monotonic()
        with pytest.raises(SourceUnavailable):
            fetcher.get(slow, max_bytes=10_000, timeout_seconds=0.8)
        ended["slow"] = time.monotonic() - start

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    for _ in range(20):
        assert fetcher.get(fast, max_bytes=10, timeout_seconds=10).body == b"fast"
    thread.join(5)
    assert 0.7 < ended["slow"] < 1.8


def test_a_name_that_nobody_knows_is_transient(make_fetcher, network):
    def unknown(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolve in (unknown, lambda host, port: []):
        with pytest.raises(SourceUnavailable):
            make_fetcher(network=network, resolve=resolve).get("http://gone.test/", **ASK)
    assert network.connected == []


def test_a_server_that_is_away_or_speaks_something_else_is_transient(fetcher):
    with pytest.raises(SourceUnavailable, match="no connection"):
        fetcher.get(f"http://127.0.0.1:{free_port()}/?token=secret-canary", **ASK)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1_000)
                    connection.sendall(b"220 mail.test ESMTP\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(SourceUnavailable, match="not HTTP"):
            fetcher.get(f"http://127.0.0.1:{port}/", **ASK)
        with pytest.raises(SourceUnavailable):
            fetcher.get(f"https://127.0.0.1:{port}/", **ASK)
        thread.join(5)


def test_no_secret_of_a_url_is_logged_or_chained(serve, fetcher, caplog):
    caplog.set_level(logging.INFO)
    fetcher.get(serve(replying(b"x")) + "/secret-canary?token=secret-canary", **ASK)
    for url in (
        f"http://127.0.0.1:{free_port()}/?t=secret-canary",
        "http://x:secret-canary/",
        "http://x:99999/secret-canary",
    ):
        with pytest.raises((ObjectFailed, SourceUnavailable)) as told:
            fetcher.get(url, **ASK)
        error = told.value
        while error is not None:
            assert "canary" not in str(error)
            error = error.__cause__
    assert "canary" not in caplog.text


class TlsDouble(httpcore.NetworkBackend, httpcore.NetworkStream):
    """A double of a network with one server behind TLS; it notes whose certificate is asked for."""

    def __init__(self):
        self.address = self.server_name = self.context = None
        self.sent = b""
        self.answer = io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def connect_tcp(self, host, port, **_):
        self.address = (host, port)
        return self

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        self.server_name, self.context = server_hostname, ssl_context
        return self

    def read(self, max_bytes, timeout=None):
        return self.answer.read(max_bytes)

    def write(self, buffer, timeout=None):
        self.sent += buffer

    def close(self):
        pass

    def get_extra_info(self, info):
        return None


def test_tls_and_host_keep_the_name_while_the_connection_goes_to_the_checked_address(make_fetcher):
    double = TlsDouble()
    fetcher = make_fetcher(network=double, resolve=lambda host, port: ["93.184.216.34"])
    assert fetcher.get("https://files.example.com/a", **ASK).body == b"ok"
    assert double.address == ("93.184.216.34", 443)
    assert double.server_name == "files.example.com"
    assert b"Host: files.example.com\r\n" in double.sent
    assert double.context.verify_mode == ssl.CERT_REQUIRED
    assert double.context.check_hostname


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with the program openssl")
def test_a_certificate_must_be_trusted_and_be_for_the_name(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=files.test"),
            *("-addext", "subjectAltName=DNS:files.test"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer_three():
            for _ in range(3):
                raw, _ = server.accept()
                try:
                    with context.wrap_socket(raw, server_side=True) as connection:
                        connection.recv(10_000)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                except OSError:
                    raw.close()

        thread = threading.Thread(target=answer_three, daemon=True)
        thread.start()
        given = {"allow": LOOPBACK, "resolve": lambda host, port: ["127.0.0.1"]}
        stranger = Fetcher(**given)
        with pytest.raises(SourceUnavailable, match="certificate cannot be verified"):
            stranger.get(f"https://files.test:{port}/", **ASK)
        stranger.close()
        monkeypatch.setitem(os.environ, "SSL_CERT_FILE", str(certificate))
        trusting = Fetcher(**given)
        assert trusting.get(f"https://files.test:{port}/", **ASK).body == b"ok"
        with pytest.raises(SourceUnavailable, match="certificate cannot be verified"):
            trusting.get(f"https://other.test:{port}/", **ASK)
        trusting.close()
        thread.join(5)
