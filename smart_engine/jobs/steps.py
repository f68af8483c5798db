"""`TaskSteps`: how jobs take steps on a task that threads and processes share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from smart_engine.jobs.task import Task

__all__ = ["TaskSteps"]


class TaskSteps(Protocol):
    """A task that threads and processes share."""

    def step(self, *, durable: bool = False) -> AbstractContextManager[Task]:
        """Lock the task for a step, which others see whole or not at all.

        Raises:
            StoreError: If that is not possible.
        """
        ...
