"""State that threads share, and, over a stored row, all processes that open it.

Each step locks the row, goes on from where the others have come, and writes how it went
on: all of it or nothing. A step that cannot be written counts as that of a killed
process.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from smart_engine.errors import StoreError
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.row import StreamRow

__all__ = ["SharedSteps", "SharedTask"]


class _Part(Protocol):
    @property
    def arrived(self) -> int: ...

    def model_dump_json(self) -> str: ...


class _Shareable(Protocol):
    def shared(self) -> Any: ...

    def take_up(self, part: Any) -> None: ...


State = TypeVar("State", bound=_Shareable)


class SharedSteps(Generic[State]):
    """A state that threads share, and processes over a row.

    Args:
        begin: Begins it.
        lock: Held around every step of it.
        row: Where processes share it, if they do.
    """

    _part: type[Any]
    _kind: str

    def __init__(
        self,
        begin: Callable[[], State],
        lock: AbstractContextManager[Any],
        row: StreamRow | None = None,
    ) -> None:
        self._begin, self._lock, self._row = begin, lock, row
        self._known: str | None = None
        self._arrived = 0

    @property
    @abstractmethod
    def _session(self) -> State:
        """The state, in memory."""

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[State]:
        """Lock it for a step, which others see whole or not at all.

        Raises:
            StoreError: If it cannot be read or written.
        """
        with self._lock:
            if self._row is None:
                yield self._session
                return
            # Unless this step is written, the next one starts from the row.
            known, self._known = self._known, None
            with self._row.locked(durable=durable) as row:
                if row.text != known:
                    self._take_up(row.text)
                yield self._session
                part: _Part = self._session.shared()
                row.text = part.model_dump_json()
            self._known, self._arrived = row.text, part.arrived

    def _take_up(self, text: str) -> None:
        """Go on from what the row holds, or begin."""
        try:
            fresh = None if text else self._begin().shared()
            part = fresh or self._part.model_validate_json(text)
            self._session.take_up(part)
        except ValueError as error:
            hint = "it is damaged or was written by another version; use another one"
            problem = f"a {self._kind} in the store cannot be read: {hint}"
            raise StoreError(problem) from error
        if part.arrived < self._arrived:
            raise StoreError(
                f"the store knows of {part.arrived} items of a {self._kind}, of which "
                f"{self._arrived} had arrived: no audit may be drawn twice; begin anew "
                "with another store, or another seed"
            )


class SharedTask(SharedSteps[Task]):
    """A task whose jobs threads and processes share; see `jobs/task.py`."""

    _part, _kind = TaskRecord, "task"

    @cached_property
    def _session(self) -> Task:
        return self._begin()
