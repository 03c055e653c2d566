"""No URL leads into the network of the operator: not by spelling, by name, by redirect or by a second answer."""

import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.errors import ObjectFailed
from storage.addresses import may_reach
from storage.fetch import Fetcher, SourceUnavailable
from tests.storage.fetch.doubles import RecordingNetwork

PUBLIC = "93.184.216.34"
ASK = {"max_bytes": 1_000, "timeout_seconds": 5}

EVIL_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "127.255.255.254",
    "localhost",
    "localhost.",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
]


# One for many tests: each fetcher reads the certificates of all authorities.
SHARED = RecordingNetwork()
GUARDED = Fetcher(allow_http=True, network=SHARED)


@pytest.mark.parametrize("port", ["", ":80", ":6379"])
@pytest.mark.parametrize("host", EVIL_HOSTS)
def test_no_spelling_of_a_private_address_is_connected_to(host, port):
    SHARED.connected.clear()
    with pytest.raises((ObjectFailed, SourceUnavailable)) as told:
        GUARDED.get(f"http://{host}{port}/latest/meta-data", **ASK)
    assert SHARED.connected == []
    assert told.value.code in {"SOURCE_FORBIDDEN", "SOURCE_UNREADABLE", "SOURCE_UNAVAILABLE"}
    # What needs interpretation may already fail as a URL or as a name.
    if host.isascii() and host not in {"0177.0.0.1", "localhost."}:
        assert told.value.code == "SOURCE_FORBIDDEN", told.value.message


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "ftp://example.com/x",
        "s3://bucket/key",
        "data:text/plain,x",
        "dict://127.0.0.1:11211/stat",
        "jar:http://example.com/!/",
        "//example.com/x",
        "/etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_only_web_addresses_are_fetched(make_fetcher, network, url):
    with pytest.raises(ObjectFailed) as told:
        make_fetcher(network=network).get(url, **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    assert network.connected == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret-canary@example.com/",
        "http://secret-canary@example.com/",
        "http://example.com:secret-canary@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://:secret-canary@example.com/",
    ],
)
def test_a_url_with_a_login_is_refused_and_not_repeated(make_fetcher, network, url):
    with pytest.raises(ObjectFailed) as told:
        make_fetcher(network=network, resolve=lambda host, port: [PUBLIC]).get(url, **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    assert "canary" not in told.value.message
    assert network.connected == []


MALFORMED = [
    *("", "http://", "http:///x", "http://[::1", "http://exa mple.com", "http://x:99999/", "http://x:port/"),
    *("http://a\x00b/", "http://" + "x" * 70_000, "http://\ud800/"),
]


@pytest.mark.parametrize("url", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_url_breaks_nothing(make_fetcher, network, url):
    with pytest.raises((ObjectFailed, SourceUnavailable)) as told:
        make_fetcher(network=network).get(url, **ASK)
    assert told.value.code in {"SOURCE_UNREADABLE", "SOURCE_FORBIDDEN", "SOURCE_UNAVAILABLE"}
    assert network.connected == []


def test_http_is_refused_unless_it_was_opted_in(network):
    fetcher = Fetcher(network=network, resolve=lambda host, port: [PUBLIC])
    with pytest.raises(ObjectFailed, match="Only https URLs") as told:
        fetcher.get("http://example.com/", **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    with pytest.raises(SourceUnavailable):
        fetcher.get("https://example.com/", **ASK)
    assert network.connected == [PUBLIC]
    fetcher.close()


def test_one_private_address_among_public_ones_is_enough_to_refuse(make_fetcher, network):
    fetcher = make_fetcher(network=network, resolve=lambda host, port: [PUBLIC, "1.1.1.1", "10.0.0.7"])
    with pytest.raises(ObjectFailed) as told:
        fetcher.get("http://example.com/", **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    assert "10.0.0.7" not in told.value.message, "strangers must not learn how our names resolve"
    assert network.connected == []


def test_a_resolver_that_changes_its_mind_is_asked_once(make_fetcher, network):
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    asked = []

    def rebinding(host, port):
        """A double of a hostile name server: public for the check, private for the connection."""
        asked.append(host)
        return next(answers)

    fetcher = make_fetcher(network=network, resolve=rebinding)
    with pytest.raises(SourceUnavailable):
        fetcher.get("http://rebind.test/", **ASK)
    assert asked == ["rebind.test"]
    assert network.connected == [PUBLIC], "exactly what was checked was connected to"
    with pytest.raises(ObjectFailed) as told:
        fetcher.get("http://rebind.test/", **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    assert network.connected == [PUBLIC]


def test_all_permitted_addresses_are_tried_in_turn(make_fetcher, network):
    fetcher = make_fetcher(network=network, resolve=lambda host, port: [PUBLIC, "1.1.1.1"])
    with pytest.raises(SourceUnavailable):
        fetcher.get("http://example.com/", **ASK)
    assert network.connected == [PUBLIC, "1.1.1.1"]


def test_the_operator_can_permit_a_network_and_only_that_one(make_fetcher, network):
    addresses = {"inside.test": ["10.1.2.3"], "mapped.test": ["::ffff:10.1.2.3"], "beside.test": ["10.2.0.1"]}
    fetcher = make_fetcher(network=network, allow=["10.1.0.0/16"], resolve=lambda host, port: addresses[host])
    for name in ("inside.test", "mapped.test"):
        with pytest.raises(SourceUnavailable):
            fetcher.get(f"http://{name}/", **ASK)
    with pytest.raises(ObjectFailed):
        fetcher.get("http://beside.test/", **ASK)
    assert network.connected == ["10.1.2.3", "::ffff:10.1.2.3"]


@pytest.mark.parametrize("location", [
    "http://127.1.1.1:1/", "http://169.254.169.254/latest", "//10.0.0.1/x", "file:///etc/passwd", "gopher://x/",
    "http://user:pw@example.com/", "https://[::1]/", "http://2130772225/",
])  # fmt: skip
def test_every_hop_of_a_redirect_is_judged_anew(serve, make_fetcher, location):
    def answer(request):
        request.send_response(302)
        request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    server = serve(answer)
    port = int(server.rpartition(":")[2])

    def resolve(host, asked):
        """A double of a resolver that knows the first server by a name."""
        return ["127.0.0.1"] if host == "start.test" else [entry[4][0] for entry in socket.getaddrinfo(host, asked)]

    fetcher = make_fetcher(allow=["127.0.0.1"], resolve=resolve)
    with pytest.raises(ObjectFailed) as told:
        fetcher.get(f"http://start.test:{port}/?token=secret-canary", **ASK)
    assert told.value.code == "SOURCE_FORBIDDEN"
    assert "canary" not in told.value.message


def oracle(address: str) -> bool:
    """Say the same as `may_reach` in other words: what the registries of IANA call globally reachable."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        number = int(ip)
        if number >> 32 in (0xFFFF, 0x64FF9B << 64):
            return oracle(str(ipaddress.IPv4Address(number & 0xFFFFFFFF)))
        first, second = number >> 112, number >> 96 & 0xFFFF
        if not 0x2000 <= first <= 0x3FFF:
            return False
        return not (
            (first == 0x2001 and (second < 0x200 or second == 0x0DB8))
            or first == 0x2002
            or (first == 0x3FFF and second < 0x1000)
        )
    a, b, c, d = ip.packed
    return not (
        a in {0, 10, 127}
        or a >= 224
        or (a == 100 and 64 <= b < 128)
        or (a, b) in {(169, 254), (192, 168), (198, 18), (198, 19)}
        or (a == 172 and 16 <= b < 32)
        or (a, b, c) in {(192, 0, 0), (192, 0, 2), (192, 88, 99), (198, 51, 100), (203, 0, 113)}
        or (a, b, c, d) == (168, 63, 129, 16)
    )


V4 = st.integers(0, 2**32 - 1)
EDGES = """0.0.0.0 10.0.0.0 11.0.0.0 100.64.0.0 100.128.0.0 127.0.0.0 128.0.0.0 168.63.129.16 169.254.0.0 169.255.0.0
172.16.0.0 172.32.0.0 192.0.0.0 192.0.1.0 192.0.2.0 192.0.3.0 192.88.99.0 192.88.100.0 192.168.0.0 192.169.0.0
198.18.0.0 198.20.0.0 198.51.100.0 198.51.101.0 203.0.113.0 203.0.114.0 224.0.0.0 240.0.0.0 255.255.255.255"""
SPECIAL_V4 = st.sampled_from([int(ipaddress.IPv4Address(edge)) for edge in EDGES.split()])
ANY_V4 = st.one_of(V4, SPECIAL_V4, st.tuples(SPECIAL_V4, st.integers(-300, 300)).map(lambda p: sum(p) % 2**32))
ADDRESSES = st.one_of(
    ANY_V4.map(lambda number: str(ipaddress.IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number))),
    st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(lambda number: str(ipaddress.IPv6Address(number))),
    ANY_V4.map(lambda number: str(ipaddress.IPv6Address(0xFFFF << 32 | number))),
    ANY_V4.map(lambda number: str(ipaddress.IPv6Address(0x64FF9B << 96 | number))),
    ANY_V4.map(lambda number: str(ipaddress.IPv6Address(0x2002 << 112 | number << 80))),
    ANY_V4.map(lambda number: str(ipaddress.IPv6Address(number))),
)


@settings(max_examples=1_000, deadline=None)
@given(ADDRESSES)
@example("64:ff9b::808:808")
@example("::ffff:8.8.8.8")
@example("2001:1ff:ffff::")
@example("2001:200::")
@example("2606:4700::1111")
def test_an_address_is_reached_exactly_if_the_registries_call_it_global(address):
    assert may_reach(address) == oracle(address)


@pytest.mark.parametrize("text", ["", "example.com", "127.1", "1.2.3", "::1::", "fe80::1%eth0", "fe80::1%"])
def test_what_is_no_public_address_is_not_reached(text):
    assert not may_reach(text)


RESOLVED: list[str] = []
FETCHER = Fetcher(allow_http=True, network=SHARED, resolve=lambda host, port: list(RESOLVED))


@settings(max_examples=300, deadline=None)
@given(addresses=st.lists(ADDRESSES, max_size=4))
def test_whatever_a_name_resolves_to_only_public_addresses_are_connected_to(addresses):
    SHARED.connected.clear()
    RESOLVED[:] = addresses
    with pytest.raises((ObjectFailed, SourceUnavailable)):
        FETCHER.get("http://any.test/", **ASK)
    assert all(oracle(address) for address in SHARED.connected)
    if not all(oracle(address) for address in addresses):
        assert SHARED.connected == []


@settings(max_examples=200, deadline=None)
@given(url=st.one_of(st.text(max_size=60), st.text(max_size=40).map("http://".__add__)))
def test_any_text_as_a_url_ends_in_a_told_error(url):
    RESOLVED[:] = ["127.0.0.1"]
    SHARED.connected.clear()
    with pytest.raises((ObjectFailed, SourceUnavailable)):
        FETCHER.get(url, **ASK)
    assert SHARED.connected == []
