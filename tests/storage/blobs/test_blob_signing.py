"""Signed addresses of the folder store: only we can make them, and not for ever."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Forbidden
from storage.signing import BlobGrant, sign_blob, verify_blob

SECRET = b"a secret of thirty-two bytes, ok"
GRANT = BlobGrant("objects/obj_1/content.txt", 'Zeugnis "Ü".pdf', "application/pdf", 1_000)
TOKEN = sign_blob(SECRET, GRANT)


def test_a_token_says_what_was_granted_until_it_expires():
    assert verify_blob(SECRET, TOKEN, now=1_000) == GRANT
    with pytest.raises(Forbidden, match="expired") as told:
        verify_blob(SECRET, TOKEN, now=1_000.001)
    assert told.value.code == "signature_expired"


def test_the_clock_is_asked_when_no_time_is_given():
    with pytest.raises(Forbidden, match="expired"):
        verify_blob(SECRET, TOKEN)


def test_another_secret_does_not_verify():
    with pytest.raises(Forbidden, match="not signed"):
        verify_blob(SECRET + b"x", TOKEN, now=0)


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_a_token_with_one_changed_character_is_refused(position):
    for other in "A_-.9+/=ü":
        if other != TOKEN[position]:
            with pytest.raises(Forbidden, match="not signed"):
                verify_blob(SECRET, TOKEN[:position] + other + TOKEN[position + 1 :], now=0)


@given(st.text(max_size=200))
def test_any_text_is_refused_and_breaks_nothing(text):
    with pytest.raises(Forbidden, match="not signed"):
        verify_blob(SECRET, text, now=0)


def test_a_body_without_our_signature_is_refused():
    body = base64.urlsafe_b64encode(b'["other/key","x","text/html",9999999999]').decode().rstrip("=")
    for signature in ("", TOKEN.partition(".")[0]):
        with pytest.raises(Forbidden, match="not signed"):
            verify_blob(SECRET, f"{signature}.{body}", now=0)


def test_the_secret_alone_signs_nothing_that_another_purpose_would_accept():
    body = base64.urlsafe_b64decode(TOKEN.partition(".")[2] + "==")
    plain = base64.urlsafe_b64encode(hmac.digest(SECRET, body, "sha256")).decode().rstrip("=")
    with pytest.raises(Forbidden, match="not signed"):
        verify_blob(SECRET, plain + "." + TOKEN.partition(".")[2], now=0)


def test_an_address_of_the_folder_store_carries_a_token_that_verifies(file_blobs):
    url = file_blobs.read_url("a/b", filename="ä.txt", content_type="text/plain", expires_seconds=60)
    start, _, token = url.rpartition("/")
    assert start == "http://peek.test:8000/v1/blobs"
    assert token.isascii()
    granted = verify_blob(SECRET, token)
    assert (granted.key, granted.filename, granted.content_type) == ("a/b", "ä.txt", "text/plain")
    with pytest.raises(Forbidden, match="expired"):
        verify_blob(SECRET, token, now=granted.expires_at + 1)
