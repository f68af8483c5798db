"""What a user sets for single tasks, and which tasks share one promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from smart_engine.equivalence.rule import (
    Equivalence,
    Rule,
    as_equivalence,
    excerpt,
)
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["ByTask", "TaskSettings", "pool_of", "pooled", "read_tasks"]


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What one task has of its own; None: as the smart object has it.

    Attributes:
        equivalence: When two of its answers mean the same.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        strategy: How it is served; with `"reference"`, no candidate is asked.
        min_saving: Least share of the cost that candidates must be expected to save.
        pool: Tasks that are one under this one's name: one stream, one promise.
    """

    equivalence: Equivalence | None = None
    max_disagreement: float | None = None
    confidence: float | None = None
    strategy: str | None = None
    min_saving: float | None = None
    pool: tuple[str, ...] = ()


_KNOWN = [field.name for field in fields(TaskSettings)]


@dataclass(frozen=True, slots=True)
class ByTask(Rule):
    """The rules of pooled tasks: each item brings that of its own task.

    Args:
        rules: Task and rule.
    """

    rules: tuple[tuple[str, Equivalence], ...]

    @property
    def name(self) -> str:
        """All tasks with their rules."""
        return ", ".join(f"{task}: {rule.name}" for task, rule in self.rules)

    @property
    def _inner_rules(self) -> tuple[Any, ...]:
        return tuple(rule for _, rule in self.rules)

    def parse(self, answer: Any) -> Any:
        """Refuse an answer of an unknown task."""
        raise UnparseableAnswerError(f"none of {self.name} reads {excerpt(answer)}")

    def same(self, left: Any, right: Any) -> bool:
        """Whether both mean the same, which nothing says."""
        del left, right
        return False


def read_tasks(given: Any) -> dict[str, TaskSettings]:
    """Return the settings of tasks by their names.

    Args:
        given: Name → settings, as the user wrote them.

    Raises:
        InvalidInputError: It names the task and the setting.

    Example:
        ```python
        pool = {"pool": ["text_qa", "refine"], "max_disagreement": 0.1}
        tasks = read_tasks({"answers": pool})
        assert pool_of(tasks, "refine") == "answers"
        assert pool_of(tasks, "summary") == "summary"
        ```
    """
    if not isinstance(given, Mapping) or not all(isinstance(n, str) for n in given):
        hint = "give settings by the task's name: {'text_qa': {'max_disagreement': .1}}"
        raise InvalidInputError("tasks", given, hint)
    tasks = {name: _read(name, settings) for name, settings in given.items()}
    pooled: dict[str, str] = {}
    for pool, settings in tasks.items():
        for name in settings.pool:
            field, own = f"tasks[{pool!r}].pool", tasks.get(name, TaskSettings())
            if name in pooled:
                hint = f"{name} is in the pool {pooled[name]} already"
                raise InvalidInputError(field, list(settings.pool), hint)
            pooled[name] = pool
            if own != TaskSettings(equivalence=own.equivalence):
                hint = (
                    f"{name} is in a pool, whose promise is its own: of {name} alone, "
                    "set nothing but equivalence, and do not name the pool so"
                )
                raise InvalidInputError(field, list(settings.pool), hint)
    return tasks


def pool_of(tasks: Mapping[str, TaskSettings], name: str) -> str:
    """Return the task under whose promise another one is: its pool, or itself."""
    return next((pool for pool, own in tasks.items() if name in own.pool), name)


def pooled(tasks: Mapping[str, TaskSettings]) -> list[str]:
    """Return the names of all tasks that are in a pool."""
    return [name for settings in tasks.values() for name in settings.pool]


def _read(name: str, given: Any) -> TaskSettings:
    if isinstance(given, TaskSettings):
        return given
    field = f"tasks[{name!r}]"
    if not isinstance(given, Mapping):
        hint = f"give settings by name; there are {', '.join(_KNOWN)}"
        raise InvalidInputError(field, given, hint)
    settings = dict(given)
    for key in settings.keys() - set(_KNOWN):
        near = get_close_matches(str(key), _KNOWN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_KNOWN)}"
        raise InvalidInputError(field, key, f"no such setting; {hint}")
    if "equivalence" in settings:
        rule = as_equivalence(settings["equivalence"], f"{field}.equivalence")
        settings["equivalence"] = rule
    if "pool" in settings:
        pool = settings["pool"]
        listed = isinstance(pool, Sequence) and not isinstance(pool, str)
        if not listed or not pool or not all(isinstance(n, str) for n in pool):
            hint = "list names of tasks, such as ['text_qa', 'refine']"
            raise InvalidInputError(f"{field}.pool", pool, hint)
        settings["pool"] = tuple(pool)
    return TaskSettings(**settings)
