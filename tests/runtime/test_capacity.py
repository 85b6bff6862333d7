from __future__ import annotations

import pytest

from fpn.runtime import capacity
from fpn.runtime.capacity import find_capacity

MEMORY = "MemTotal:       32 kB\nMemAvailable:    8388608 kB\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"meminfo": MEMORY}, 8.0),
        ({"meminfo": MEMORY, "memory.max": "max\n", "memory.current": "5\n"}, 8.0),
        ({"meminfo": MEMORY, "memory.max": f"{6 * 2**30}\n", "memory.current": f"{2 * 2**30}\n"}, 4.0),
    ],
)
def test_free_memory_is_the_machines_or_what_a_container_leaves(monkeypatch, files, free):
    monkeypatch.setattr(capacity, "_read", lambda path: files.get(path.name, ""))
    found = find_capacity(cpu=True)
    assert (found.kind, found.free) == ("cpu", free)
    assert f"{free:.0f} GiB" in str(found)
