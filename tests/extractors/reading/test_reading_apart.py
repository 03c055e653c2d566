"""Files are read apart from the worker: whatever a file does to its reader, the worker gets text or a reason."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from domain.errors import ObjectFailed
from extractors.reading import read as read_here
from tests.extractors.reading.samples import p, pdf, word
from workers import reading

ROOT = Path(__file__).parents[3]
HTML = b"<!doctype html><h1>Title</h1><p>A page.<pre><code class=language-py>x = 1</code></pre>"
MANY_ATTRIBUTES = b"<html><p " + b" ".join(b"a%d=1" % number for number in range(300_000)) + b">x"  # takes a minute


@pytest.fixture(autouse=True)
def fresh_readers():
    reading.close()
    yield
    reading.close()


def failure(raw: bytes, **more) -> ObjectFailed:
    with pytest.raises(ObjectFailed) as caught:
        reading.read(raw, "text", "", **more)
    return caught.value


def running_in(group: int) -> list[str]:
    """Return the states of a process group's members that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, member_of = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(member_of) == group and state != "Z":
            found.append(state)
    return found


@pytest.mark.parametrize(
    "raw", [pdf("One.", "Two."), word(p("x", '<w:outlineLvl w:val="0"/>')), HTML], ids=["pdf", "docx", "html"]
)
def test_text_and_places_come_out_as_if_they_had_been_read_here(raw):
    assert reading.read(raw, "text", "") == read_here(raw)


def test_a_reason_comes_out_as_if_it_had_been_found_here():
    with pytest.raises(ObjectFailed) as here:
        read_here(pdf(""))
    assert (failure(pdf("")).code, failure(pdf("")).message) == (here.value.code, here.value.message)


def test_plain_text_starts_no_process(monkeypatch):
    monkeypatch.setattr(reading, "_Reader", lambda: pytest.fail("a process was started"))
    assert reading.read("Grüße".encode(), "text", "").text == "Grüße"
    assert failure(b"").code == "EMPTY_TEXT"


def test_a_file_that_takes_too_long_fails_in_time_and_nothing_of_it_goes_on():
    reading.read(HTML, "text", "")
    [reader] = reading._idle
    started = time.monotonic()
    found = failure(MANY_ATTRIBUTES, seconds=1)
    assert time.monotonic() - started < 10
    assert found.code == "READING_TIMED_OUT"
    assert "Split it" in found.message
    deadline = time.monotonic() + 10
    while running_in(reader._process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_in(reader._process.pid) == []
    assert reading.read(HTML, "text", "").text.startswith("# Title")


def test_a_file_that_takes_too_much_memory_fails_and_the_reader_goes_on():
    """30 million elements would take 3 GB."""
    assert failure(b"<html>" + b"<p>" * 30_000_000).code == "TOO_LARGE"
    [reader] = reading._idle
    assert reading.read(HTML, "text", "").text.startswith("# Title")
    assert reading._idle == [reader]


def test_a_reader_that_died_while_it_was_idle_is_replaced():
    reading.read(HTML, "text", "")
    [reader] = reading._idle
    os.killpg(reader._process.pid, signal.SIGKILL)
    reader._process.wait()
    assert reading.read(HTML, "text", "").text.startswith("# Title")


def test_a_file_over_which_reader_after_reader_dies_fails_alone(monkeypatch):
    monkeypatch.setattr(reading._Reader, "ask", lambda self, *_given: self.kill())
    found = failure(HTML)
    assert found.code == "READER_CRASHED"
    monkeypatch.undo()
    assert reading.read(HTML, "text", "").text.startswith("# Title")


def test_a_reader_ends_with_its_worker():
    reading.read(HTML, "text", "")
    [reader] = reading._idle
    reader._process.stdin.close()
    assert reader._process.wait(timeout=10) == 0


def test_a_reader_knows_no_secret(monkeypatch):
    monkeypatch.setenv("OPENPEEK_SECRET_KEY", "do not tell")
    reading.read(HTML, "text", "")
    [reader] = reading._idle
    assert b"do not tell" not in Path(f"/proc/{reader._process.pid}/environ").read_bytes()


def test_many_threads_read_at_once_and_each_gets_its_own():
    found: dict[int, str] = {}

    def one(number: int) -> None:
        found[number] = reading.read(pdf(f"Page of {number}"), "pdf", "").text

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"Page of {number}" for number in range(8)}
    assert len(reading._idle) <= 4


def misbehave(how: str) -> dict[str, object]:
    """Return how a fork ended whose reader, a double, does something bad; seconds of the processor are cut to one."""
    program = f"""
import json, os, signal
from extractors import reading
from extractors.reading import child
child.MOST_CPU_SECONDS = 1
reading.read = lambda raw, declared, content_type: {how}
status, said = child._forked("text", "", b"x")
print(json.dumps({{
    "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
    "status": status,
    "said": json.loads(said) if said else None,
}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_fork_may_use_the_processor_only_so_long():
    assert misbehave("max(iter(int, 1))")["signal"] == signal.SIGXCPU


def test_a_fork_may_have_only_so_much_memory():
    found = misbehave("bytearray(2 * 1024**3)")
    assert found["said"]["code"] == "TOO_LARGE"


def test_a_fork_can_write_no_file(tmp_path):
    place = tmp_path / "left-behind"
    assert misbehave(f"open({str(place)!r}, 'w', buffering=1).write('x\\n')")["status"] != 0
    assert not place.exists() or place.read_bytes() == b""


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(3)", "1 / 0"])
def test_a_fork_that_crashes_says_nothing_and_is_told_apart(how):
    found = misbehave(how)
    assert found["status"] != 0
    assert found["said"] is None
