"""Over HTTP, one of sync and async is a default test; `make verify` has the other.

The runtime drives both alike, and in process both are default tests.
"""

from __future__ import annotations

import pytest

TWINS = {"ainvoke": "invoke", "stream": "astream", "batch": "abatch", "sync": "async"}
"""What `make verify` asks → what a default test asks instead."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases whose twins are cases of the same test."""
    asked: dict[str, set[str]] = {}
    for item in items:
        asked.setdefault(item.nodeid.split("[")[0], set()).add(_verb(item))
    for item in items:
        twin = TWINS.get(_verb(item))
        if "/wire/" in item.nodeid and twin in asked[item.nodeid.split("[")[0]]:
            item.add_marker(pytest.mark.slow)


def _verb(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    given = call.params if call else {}
    return str(given.get("verb") or given.get("mode") or "")
