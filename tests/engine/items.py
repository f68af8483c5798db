"""Single items in tests: let in, and closed whatever happens."""

from __future__ import annotations

from contextlib import contextmanager


@contextmanager
def admitted(item):
    """Let an item in; abandon it if the block raises."""
    try:
        item.arrive(shown=False)
        yield
    except BaseException:
        item.abandon()
        raise
