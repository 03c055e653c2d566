"""The official OpenAI client works against a served house, over a real socket."""

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import uvicorn

from api.app import create_app
from cli.wiring import House
from tests.conftest import ADMIN_KEY

MODEL = "openpeek/standin"
WIDTH = 384


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[openai.OpenAI]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(create_app(house.services(url)), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=ADMIN_KEY, max_retries=0) as made:
            yield made
        server.should_exit = True
        thread.join(30)


def test_texts_come_back_in_order_and_the_tokens_are_counted(client):
    reply = client.embeddings.create(model=MODEL, input=["red fox", "blue whale"])
    assert [one.index for one in reply.data] == [0, 1]
    assert [len(one.embedding) for one in reply.data] == [WIDTH, WIDTH]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0
    assert reply.model == MODEL


def test_base64_which_the_client_asks_for_by_itself_and_floats_are_the_same_numbers(client):
    packed = client.embeddings.create(model=MODEL, input="red fox").data[0].embedding
    plain = client.embeddings.create(model=MODEL, input="red fox", encoding_format="float").data[0].embedding
    assert np.array_equal(np.array(packed, np.float32), np.array(plain, np.float32))


def test_fewer_dimensions_and_the_kind_of_input_are_passed_on(client):
    query, document = (
        client.embeddings.create(model=MODEL, input="red fox", dimensions=64, extra_body={"input_type": kind}).data[0]
        for kind in ("query", "document")
    )
    assert len(query.embedding) == len(document.embedding) == 64
    assert np.linalg.norm(query.embedding) == pytest.approx(1, abs=1e-5)


def test_errors_become_the_clients_own_with_the_reason_in_them(client):
    with pytest.raises(openai.UnprocessableEntityError, match="8,192"):
        client.embeddings.create(model=MODEL, input=["word " * 150] * 30)
    with pytest.raises(openai.UnprocessableEntityError, match="not known here"):
        client.embeddings.create(model="nobody/nothing", input="a")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk_wrong").embeddings.create(model=MODEL, input="a")
