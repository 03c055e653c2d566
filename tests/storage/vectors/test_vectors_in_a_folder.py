"""What the embedded index promises beyond the contract: its folder, its locks, its death and its tidying."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge

from domain.documents import Scope
from domain.errors import StorageFull, Unavailable
from domain.features import VectorSpec
from domain.filters import parse
from storage.ports import Point
from storage.vectors import embedded
from storage.vectors.embedded import EdgeIndex, FolderInUse

ROOT = Path(__file__).resolve().parents[3]
SCOPE, SPEC = Scope("org", "ns"), VectorSpec("m", "standin", "revision", 8)
ALONG = np.eye(8, dtype=np.float32)[0]


def points(first: int, number: int, **fields) -> list[Point]:
    return [Point(f"doc_{n}", "col", "obj", 1, 1, {"n": n, **fields}, ALONG) for n in range(first, first + number)]


def search(index: EdgeIndex, wanted=None, limit: int = 10) -> list[str]:
    read = None if wanted is None else parse(wanted)
    hits = index.search(SCOPE, SPEC, ALONG, collection_ids=["col"], filter=read, limit=limit)
    return [hit.document_id for hit in hits]


def test_what_was_written_is_there_after_reopening(tmp_path):
    index = EdgeIndex(tmp_path)
    index.upsert(SCOPE, SPEC, points(0, 5))
    index.delete(SCOPE, ["doc_3"], up_to_epoch=1)
    index.close()
    index.close()  # twice is no error
    again = EdgeIndex(tmp_path)
    assert search(again) == ["doc_0", "doc_1", "doc_2", "doc_4"]
    assert search(again, {"n": 4}) == ["doc_4"]
    again.close()


def test_a_second_opener_is_refused_and_told_by_whom_and_where(tmp_path):
    index = EdgeIndex(tmp_path)
    with pytest.raises(FolderInUse) as refused:
        EdgeIndex(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert str(os.getpid()) in str(refused.value)
    script = (
        f"from pathlib import Path; from storage.vectors.embedded import EdgeIndex; EdgeIndex(Path({str(tmp_path)!r}))"
    )
    other = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert f"in use by process {os.getpid()}" in other.stderr
    index.close()
    EdgeIndex(tmp_path).close()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from domain.documents import Scope
from domain.features import VectorSpec
from storage.ports import Point
from storage.vectors.embedded import EdgeIndex
index = EdgeIndex(Path(sys.argv[1]))
vector = np.eye(8, dtype=np.float32)[0]
for number in range(int(sys.argv[2]), 10**9):
    parts = [Point(f"doc_{number}_{part}", "col", f"obj_{number}", 1, 7, {"n": number}, vector) for part in range(3)]
    index.upsert(Scope("org", "ns"), VectorSpec("m", "standin", "revision", 8), parts)
    print(number, flush=True)
"""


def test_what_was_acknowledged_outlives_kill_9(tmp_path):
    acknowledged = 0
    for least in (1, 40, 150):  # also while it flushes, and while a shard is being made
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(acknowledged)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            for line in writer.stdout:
                if int(line) - acknowledged >= least:
                    break
            writer.send_signal(signal.SIGKILL)
            done = [int(left) for left in writer.stdout.read().split()]
            acknowledged = max([int(line), *done]) + 1
    index = EdgeIndex(tmp_path)
    for number in range(acknowledged):
        assert len(index.epochs(SCOPE, "col", f"obj_{number}")) == 3, number
    index.close()


def test_a_shard_whose_making_was_interrupted_is_made_anew(tmp_path):
    half = tmp_path / f".{SPEC.name}"
    half.mkdir()
    (half / "edge_config.json").write_text("{")
    index = EdgeIndex(tmp_path)
    assert not half.exists()
    half.mkdir()
    (half / "segments").mkdir()
    index.upsert(SCOPE, SPEC, points(0, 1))
    assert search(index) == ["doc_0"]
    index.close()


def test_a_closed_index_says_so_and_makes_nothing(tmp_path):
    index = EdgeIndex(tmp_path)
    index.close()
    for ask in (lambda: search(index), index.check, lambda: index.upsert(SCOPE, SPEC, points(0, 1)), index.settle):
        with pytest.raises(Unavailable, match="closed"):
            ask()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_cannot_be_opened_is_named_and_the_folder_let_go(tmp_path):
    broken = tmp_path / "vectors" / SPEC.name
    broken.mkdir(parents=True)
    for _ in range(2):  # the second time would say "in use" had the first kept the lock
        with pytest.raises(Unavailable):
            EdgeIndex(tmp_path / "vectors")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable):
        EdgeIndex(tmp_path / "file")


def test_a_folder_of_an_unfinished_version_is_refused_by_name(tmp_path):
    index = EdgeIndex(tmp_path)
    index.upsert(SCOPE, SPEC, points(0, 1))
    index._shards[SPEC.name].engine.update(edge.UpdateOperation.delete_field_index("facts"))
    index.close()
    with pytest.raises(Unavailable, match=SPEC.name):
        EdgeIndex(tmp_path)


def test_settling_waits_for_much_that_is_new_and_changes_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_SETTLE_AFTER", 50)
    index = EdgeIndex(tmp_path)
    index.upsert(SCOPE, SPEC, points(0, 49))
    assert index.settle() == 0.0
    index.close()
    index = EdgeIndex(tmp_path)  # it remembers what was new
    index.upsert(SCOPE, SPEC, points(49, 1))
    before = search(index, limit=50)
    assert index.settle() > 0.0
    assert index.settle() == 0.0
    assert search(index, limit=50) == before
    assert len(before) == 50
    index.close()


def test_the_log_is_written_out_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_FLUSH_AFTER", 10)
    index = EdgeIndex(tmp_path)
    for first in range(0, 25, 5):
        index.upsert(SCOPE, SPEC, points(first, 5))
    assert index._shards[SPEC.name].unflushed == 5
    for _ in range(5):
        index.delete(SCOPE, ["doc_1"], up_to_epoch=9)
    assert index._shards[SPEC.name].unflushed == 0
    index.close()


def test_numbers_are_indexed_where_they_are_compared_but_not_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_MOST_RANGES", 2)
    index = EdgeIndex(tmp_path)
    index.upsert(SCOPE, SPEC, points(0, 3, a=1, b=2, c=3))
    shard = index._shards[SPEC.name]
    assert search(index, {"field": "nowhere", "operator": "gt", "value": 0}) == []
    assert shard.ranges == set()
    for path in ("a", "b", "c"):
        assert search(index, {"field": path, "operator": "gt", "value": 0}) == ["doc_0", "doc_1", "doc_2"]
        assert search(index, {"field": f"metadata.{path}", "operator": "gt", "value": 3}) == []
    assert len(shard.ranges) == 2
    index.close()
    again = EdgeIndex(tmp_path)
    assert len(again._shards[SPEC.name].ranges) == 2
    again.close()


class Failing:
    """An engine that fails in one way."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def update(self, _operation):
        raise self._error

    flush = close = info = lambda _self: None


class PanicException(BaseException):
    """As the engine's own panics are called."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Exception("Service internal error: No space left on device (os error 28)"), StorageFull),
        (OSError(28, "No space left on device"), StorageFull),
        (Exception("Service internal error: WAL is broken"), Unavailable),
        (PanicException("called unwrap on None"), Unavailable),
        (OSError(5, "Input/output error"), Unavailable),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (TypeError("our own mistake"), TypeError),
    ],
)
def test_what_the_engine_raises_is_told_as_a_fact(tmp_path, error, told):
    index = EdgeIndex(tmp_path)
    index.upsert(SCOPE, SPEC, points(0, 1))
    shard = index._shards[SPEC.name]
    real, shard.engine = shard.engine, Failing(error)
    with pytest.raises(told) as raised:
        index.upsert(SCOPE, SPEC, points(0, 1))
    assert type(raised.value) is told
    shard.engine = real
    index.close()
