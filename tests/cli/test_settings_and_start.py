"""Settings, and what happens when they are wrong: exit within seconds, the key named, no secret shown."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import inspect, text

from cli import schema, settings, wiring
from cli.settings import SettingsWrong
from storage.database import Database
from storage.tables import collections
from tests.services.fixtures import postgres_server  # noqa: F401 - a fixture
from tests.services.ports import free_port

ROOT = Path(__file__).parents[2]


def run(*arguments: str, seconds: float = 30, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENPEEK_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OPENPEEK_DATABSE_URL": "sqlite:///x"}, ["OPENPEEK_DATABSE_URL", "OPENPEEK_DATABASE_URL"]),
        ({"OPENPEEK_DATABASE_URL": "mysql://canary@x/y"}, ["OPENPEEK_DATABASE_URL"]),
        ({"OPENPEEK_DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/x"}, ["OPENPEEK_DATABASE_URL"]),
        ({"OPENPEEK_QUEUE_URL": "redis://:canary@127.0.0.1:1/0"}, ["OPENPEEK_QUEUE_URL", "OPENPEEK_DATABASE_URL"]),
        (
            {"OPENPEEK_QUEUE_URL": "redis://:canary@h/0", "OPENPEEK_DATABASE_URL": "postgresql://u:canary@h/d"},
            ["OPENPEEK_QUEUE_URL", "OPENPEEK_VECTORS_URL"],
        ),
        (
            {
                "OPENPEEK_QUEUE_URL": "redis://:canary@h/0",
                "OPENPEEK_DATABASE_URL": "postgresql://u:canary@h/d",
                "OPENPEEK_VECTORS_URL": "http://h:6333",
            },
            ["OPENPEEK_SECRET_KEY"],
        ),
        ({"OPENPEEK_QUEUE_URL": "amqp://canary"}, ["OPENPEEK_QUEUE_URL"]),
        ({"OPENPEEK_DEVICE": "toaster"}, ["OPENPEEK_DEVICE"]),
        ({"OPENPEEK_LEASE_SECONDS": "soon"}, ["OPENPEEK_LEASE_SECONDS"]),
        ({"OPENPEEK_SECRET_KEY": "canary"}, ["OPENPEEK_SECRET_KEY"]),
        ({"OPENPEEK_PLUGINS": "no.such.module"}, ["OPENPEEK_PLUGINS"]),
        ({"OPENPEEK_FETCH_ALLOW": "everywhere"}, ["OPENPEEK_FETCH_ALLOW"]),
        ({"OPENPEEK_DATA": "/proc/nowhere"}, ["OPENPEEK_DATA"]),
    ],
)
def test_a_wrong_setting_ends_the_process_naming_its_key_and_no_secret(environment, named, tmp_path):
    began = time.monotonic()
    done = run("serve", "--port", "0", **{"OPENPEEK_DATA": str(tmp_path), **environment})
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - began < 8
    for name in named:
        assert name in done.stderr
    assert "canary" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_short_admin_key_is_refused_where_others_can_reach_it(tmp_path):
    done = run("serve", "--host", "0.0.0.0", OPENPEEK_DATA=str(tmp_path), OPENPEEK_ADMIN_API_KEY="short-canary")
    assert done.returncode == 2
    assert "OPENPEEK_ADMIN_API_KEY" in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.services
def test_a_schema_behind_the_code_is_named_on_postgresql(postgres_server, tmp_path):  # noqa: F811
    url = postgres_server.create_database("behind")
    done = run("serve", OPENPEEK_DATA=str(tmp_path), OPENPEEK_DATABASE_URL=url)
    assert done.returncode == 2
    assert "openpeek migrate" in done.stderr
    assert postgres_server.password not in done.stderr
    assert run("migrate", OPENPEEK_DATA=str(tmp_path), OPENPEEK_DATABASE_URL=url).returncode == 0
    again = run("migrate", OPENPEEK_DATA=str(tmp_path), OPENPEEK_DATABASE_URL=url)
    assert f"is at {schema.head()}" in again.stdout


def test_sqlite_migrates_itself_and_a_second_time_does_nothing(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.prepare(database)
    assert schema.current(database) == schema.head()
    schema.prepare(database)
    database.close()


def test_a_database_of_the_first_schema_keeps_its_rows_when_it_moves_on(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.upgrade(database, "0001")
    row = {
        "id": "col_1", "organization_id": "org", "namespace_id": "ns", "name": "old", "source": "{}", "enabled": True,
        "extractor_name": "text_extractor", "extractor_version": "v1", "state": "active", "created_at": 1,
        "updated_at": 1, "include_all_source_fields": False, "model_id": "m/m", "revision": "r" * 40,
        **dict.fromkeys(("parameters", "input_mappings", "input_schema", "output_schema", "settings"), "{}"),
        "field_passthrough": "[]",
    }  # fmt: skip
    with database.engine.begin() as connection:
        names = {column["name"] for column in inspect(connection).get_columns("collections")}
        given = {key: value for key, value in row.items() if key in names}
        columns, values = ", ".join(given), ", ".join(f":{name}" for name in given)
        connection.execute(text(f"INSERT INTO collections ({columns}) VALUES ({values})"), given)
    schema.prepare(database)
    with database.reading() as session:
        kept = collections.get(session, "col_1")
        assert kept.model == {"model_id": "m/m", "revision": "r" * 40}
        assert kept.document_prefix is None
    database.close()


def test_the_models_and_the_migrations_agree(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from storage.database import Row

    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.upgrade(database)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
    database.close()


def test_a_second_process_on_the_folder_is_refused(house):
    done = run("serve", "--port", "0", OPENPEEK_DATA=str(house.settings.data))
    assert done.returncode == 2
    assert "in use by process" in done.stderr


def test_a_taken_port_is_told(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", "--port", str(taken.getsockname()[1]), OPENPEEK_DATA=str(tmp_path))
    assert done.returncode != 0
    assert "address already in use" in done.stderr


def test_the_first_start_prints_a_key_once_and_stores_only_its_hash(tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENPEEK_")}
    printed = []
    for _ in range(2):
        port = free_port()
        command = [sys.executable, "-m", "cli", "serve", "--port", str(port), "--data", str(tmp_path / "data")]
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            credentials = tmp_path / "data" / "credentials.json"
            assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
            known = json.loads(credentials.read_text())
            assert known["url"] == f"http://127.0.0.1:{port}"
            headers = {"Authorization": f"Bearer {known['api_key']}"}
            assert httpx.get(f"{known['url']}/v1/me", headers=headers).status_code == 200
        finally:
            process.terminate()
            printed.append(process.communicate(timeout=20)[0])
        assert process.returncode == 0, "TERM ends it in good order"
    key = json.loads((tmp_path / "data" / "credentials.json").read_text())["api_key"]
    assert key in printed[0]
    assert "sk_" not in printed[1]
    for path in (tmp_path / "data").rglob("*.db*"):
        assert key.encode() not in path.read_bytes()
    reset = run("keys", "reset", "--data", str(tmp_path / "data"))
    assert reset.returncode == 0
    assert json.loads((tmp_path / "data" / "credentials.json").read_text())["api_key"] in reset.stdout
    made = run("org", "create", "second", "--data", str(tmp_path / "data"))
    assert "sk_" in made.stdout
    assert run("org", "create", "second", "--data", str(tmp_path / "data")).returncode == 2


def test_doctor_says_what_it_found_and_fails_on_what_is_away(tmp_path):
    good = run("doctor", OPENPEEK_DATA=str(tmp_path))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "SQLite" in good.stdout
    bad = run("doctor", OPENPEEK_DATA=str(tmp_path), OPENPEEK_VECTORS_URL="http://127.0.0.1:1")
    assert bad.returncode == 1
    assert "vectors" in bad.stdout
    assert (
        run(
            "doctor", OPENPEEK_DATA=str(tmp_path), OPENPEEK_DATABASE_URL="postgresql://u:canary@127.0.0.1:1/x"
        ).returncode
        == 1
    )


def test_serving_goes_on_degraded_while_vectors_are_away(tmp_path):
    found = settings.load(data=tmp_path, vectors_url="http://127.0.0.1:1")
    house = wiring.build(found)
    from api.health import examine

    problems = examine(house.services("http://x"))
    assert problems["vector_store"] is not None
    assert problems["metadata"] is None
    house.close()


def test_workers_of_embedded_mode_are_refused_with_the_way_out(tmp_path):
    done = run("worker", OPENPEEK_DATA=str(tmp_path))
    assert done.returncode == 2
    assert "OPENPEEK_QUEUE_URL" in done.stderr


def test_settings_never_show_their_secrets(monkeypatch):
    monkeypatch.setenv("OPENPEEK_DATABASE_URL", "postgresql://u:canary@h/d")
    assert "canary" not in repr(settings.load())
    with pytest.raises(SettingsWrong) as wrong:
        settings.load(device="toaster")
    assert "canary" not in str(wrong.value)


def test_help_explains_every_command():
    done = run("--help")
    for command in ("serve", "worker", "migrate", "doctor", "demo", "keys", "org", "model"):
        assert command in done.stdout
