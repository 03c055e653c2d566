"""A registry that many threads ask at once: everybody waits for the one scan."""

import sys
import threading

from domain.registry import Registry


def test_threads_that_start_together_all_see_every_plugin(tmp_path, monkeypatch):
    package = tmp_path / "slow_plugins"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "import time, slow_registry\ntime.sleep(0.2)\nslow_registry.R.register('one')(object())\n"
    )
    (tmp_path / "slow_registry.py").write_text(
        "from domain.registry import Registry\nR = Registry('thing', 'slow_plugins', 'no.such.group')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_registry

    registry: Registry = slow_registry.R
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(registry.find("one"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert None not in seen
    for name in ("slow_plugins", "slow_plugins.one", "slow_registry"):
        sys.modules.pop(name, None)
