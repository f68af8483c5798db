"""Forks while threads run: a child finds every lock free and shares no connection.

A lock that another thread held would stay locked in the child for ever. Two processes
cannot share a connection either. SQLite notes in memory which locks on a file its
process holds: a child gets the notes without the locks, and goes on writing into a log
that the parent deletes. So a fork waits until no thread uses SQLite, and closes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    import sqlalchemy as sql

__all__ = ["connected", "fork_safe_lock", "fork_safely"]

_LONGEST = 60.0
"""Seconds for which a fork waits for transactions, which may wait for other writers."""


def fork_safe_lock() -> Lock:
    """Return a lock that a forked child finds free, whoever held it in the parent.

    Example:
        ```python
        lock = fork_safe_lock()
        with lock:
            assert lock.locked()
        ```
    """
    lock = Lock()
    _locks.add(lock)
    return lock


_locks: WeakSet[Lock] = WeakSet()
_engines: WeakKeyDictionary[sql.Engine, Lock | nullcontext[None]] = WeakKeyDictionary()
_door = fork_safe_lock()  # held by the thread that forks: no transaction begins
_held: list[Lock] = []  # by that thread
_inherited: list[Any] = []  # never collected: that would close the parent's connections


def fork_safely(engine: sql.Engine) -> None:
    """Let children of this process connect anew."""
    sqlite = engine.dialect.name == "sqlite"
    _engines[engine] = fork_safe_lock() if sqlite else nullcontext()


@contextmanager
def connected(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Connect for one transaction; in SQLite, one thread after the other."""
    with _door:
        pass
    with _engines[engine], engine.begin() as connection:
        yield connection


def _before() -> None:
    _door.acquire()
    for engine, lock in list(_engines.items()):
        if not isinstance(lock, nullcontext) and lock.acquire(timeout=_LONGEST):
            _held.append(lock)
            engine.dispose()


def _in_parent() -> None:
    while _held:
        _held.pop().release()
    _door.release()


def _in_child() -> None:
    _held.clear()
    for lock in list(_locks):
        # As the standard library's own locks do: `release` might not free a lock that
        # another thread was about to get.
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_in_parent, after_in_child=_in_child
    )
