"""The bell of embedded mode."""

import threading
import time

from storage.queues.threads import ThreadQueue


def test_a_ring_wakes_everybody_who_waits():
    bell = ThreadQueue()
    heard = []
    threads = [threading.Thread(target=lambda: heard.append(bell.wait(10, 0))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    start = time.monotonic()
    bell.ring()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 1
    assert heard == [1, 1, 1]


def test_a_ring_while_one_was_busy_is_heard_afterwards():
    bell = ThreadQueue()
    bell.ring()
    bell.ring()
    start = time.monotonic()
    assert bell.wait(10, 0) == 2
    assert time.monotonic() - start < 1


def test_without_a_ring_one_waits_as_long_as_one_said_and_no_longer():
    bell = ThreadQueue()
    bell.ring()
    start = time.monotonic()
    assert bell.wait(0.1, 1) == 1
    assert 0.09 < time.monotonic() - start < 1


def test_the_bell_is_always_there():
    ThreadQueue().check()
