"""Over HTTP, by default one verb of each kind: `make verify` asks the others, too.

The runtime drives sync and async alike, and in process every verb is a default test.
"""

from __future__ import annotations

import pytest

OTHERS = {"ainvoke", "stream", "batch"}
"""Verbs whose twins `invoke`, `astream` and `abatch` are default tests."""

TWINS = {"invoke", "astream", "abatch"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of other verbs, where their twins are cases as well."""
    verbs: dict[str, set[str]] = {}
    for item in items:
        if "/wire/" in item.nodeid:
            verbs.setdefault(item.nodeid.split("[")[0], set()).add(_verb(item))
    for item in items:
        asked = verbs.get(item.nodeid.split("[")[0], set())
        if _verb(item) in OTHERS and asked >= TWINS:
            item.add_marker(pytest.mark.slow)


def _verb(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get("verb", "")) if call else ""
