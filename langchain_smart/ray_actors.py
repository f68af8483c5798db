"""Actors of Ray that make the calls of a data set, in pieces."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_smart.parts import Parts
from langchain_smart.ray_rows import Answers, Rows, numbered, ray_with_data
from langchain_smart.rows import RowCaller
from smart_engine.calls import Call
from smart_engine.errors import InvalidInputError, RemoteCallError, error_name
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.runtime.blocks import Ended, Piece

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RayPool"]


class _Worker:
    """An actor: makes pieces, one after another."""

    def __init__(
        self, made: Callable[[], RowCaller], parts: Parts | None, names: Sequence[str]
    ) -> None:
        self._caller = made()
        self._parts, self._names = parts, names

    def make(
        self,
        name: str,
        items: IntArray,
        models: IntArray,
        attempts: int,
        *tables: pa.Table,
    ) -> tuple[Any, Any]:
        """Make the calls of a piece.

        Returns:
            Their results, with why no call may be made any more, if that showed; and
            their answers, which stay where they are, unless they are in a part.
        """
        import pyarrow as pa

        rows = [row for table in tables for row in table.to_pylist()]
        calls = [
            Call(item, self._names[model])
            for item, model in zip(items.tolist(), models.tolist(), strict=True)
        ]
        made = self._caller.make(rows, calls, attempts)
        columns, answers = made.columns, None
        if self._parts is not None:
            self._parts.write(name, columns, made.answers)
        else:
            numbers = pa.array(columns["item"], pa.int64())
            texts = pa.array(made.answers, pa.string())
            answers = numbered(numbers, columns["model"], texts, self._names)
        ended = made.error and (error_name(made.error), str(made.error))
        return (columns, ended, 0 if answers is None else answers.nbytes), answers

    def stop(self) -> None:
        """Begin no further call; called while a piece is being made."""
        self._caller.stop()


class RayPool:
    """Actors that make pieces.

    Args:
        rows: The rows.
        made: Makes a `RowCaller`.
        parts: Where answers outlive the job, if anywhere.
        names: Names of the models.
        workers: Number of actors.
        options: Their further options.

    Attributes:
        workers: As given.
        answers: Where answers are.
    """

    def __init__(
        self,
        rows: Rows,
        made: Callable[[], RowCaller],
        parts: Parts | None,
        names: Sequence[str],
        workers: int,
        options: dict[str, Any],
    ) -> None:
        ray = ray_with_data()
        self.answers = Answers(rows, parts, names)
        self._rows, self._made, self._names = rows, ray.put(made), list(names)
        self._environment = options.get("runtime_env")
        self._parts, self._run = parts, secrets.token_hex(4)
        self.workers = workers
        groups = {"concurrency_groups": {"control": 1}}
        self._actor = ray.remote(**{**groups, **options})(_Worker)
        self._actors = [self._begin() for _ in range(workers)]
        self._flying: dict[Any, tuple[Piece, Any, Any]] = {}
        self._ended: deque[Ended] = deque()

    def _begin(self) -> Any:
        return self._actor.remote(self._made, self._parts, self._names)

    def _name(self, piece: Piece) -> str:
        """Return the name of a piece's part."""
        return f"{self._run}-{piece.number:06d}"

    def submit(self, piece: Piece) -> None:
        """Have a piece made by the actor that has the least to do."""
        busy = [actor for _, actor, _ in self._flying.values()]
        actor = min(self._actors, key=busy.count)
        items, models = piece.calls.items, piece.calls.tiers
        order, tables = self._rows.take(items)
        ref, answers = actor.make.options(num_returns=2).remote(
            self._name(piece), items[order], models[order], piece.attempts, *tables
        )
        self._flying[ref] = piece, actor, answers

    def wait(self) -> Ended:
        """Wait for the next piece that ends."""
        ray = ray_with_data()
        while not self._ended:
            (ref, *_), _ = ray.wait(list(self._flying), num_returns=1)
            self._take(ref)
        return self._ended.popleft()

    def _take(self, ref: Any) -> None:
        """Take the result of a piece, and all pieces of its actor if that was lost."""
        actor = self._flying[ref][1]
        if not self._read(ref):
            return
        self._actors.remove(actor)
        self._actors.append(self._begin())
        others = [each for each, (_, its, _) in self._flying.items() if its is actor]
        begun = False
        for each in others:  # in the order in which it would have made them
            piece = self._flying[each][0]
            how = self._read(each)
            if how is None:
                continue
            del self._flying[each]
            if begun:
                self.submit(piece)
            else:
                self._ended.append(self._lost(piece, how))
            begun = True

    def _read(self, ref: Any) -> str | None:
        """Take the result of a piece; return how its actor was lost, if it was."""
        ray = ray_with_data()
        errors = ray.exceptions
        try:
            columns, why, size = ray.get(ref)
        except (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            lines = str(error).splitlines() or ["no reason is known"]
            if getattr(error, "actor_init_failed", False):
                hint = f"an actor cannot make it: {lines[-1]}"
                raise InvalidInputError("smart", "…", hint) from error
            return lines[0]
        piece, _, answers = self._flying.pop(ref)
        items = np.array(columns["item"], np.int64)
        if self._parts is None:
            self.answers.add(answers, items, size)
        else:
            self.answers.found(self._name(piece), items)
        ended = None if why is None else RemoteCallError(*why)
        self._ended.append(Ended(piece, columns, None, ended))
        return None

    def _lost(self, piece: Piece, how: str) -> Ended:
        """Return how a piece ended whose actor was lost: its part may be there."""
        columns = self._parts and self._parts.results(self._name(piece))
        if columns:
            self.answers.found(self._name(piece), np.array(columns["item"], np.int64))
        return Ended(piece, columns or None, how)

    def worst_cases(self) -> FloatArray:
        """Return the most that each call can cost, in USD: models × rows.

        Raises:
            InvalidInputError: If nothing limits that.
        """
        return self._rows.worst_cases(self._made, self._environment)

    def worst_case(self, call: Call) -> float | None:
        """Return the most that a call can cost, in USD; None if nothing limits it."""
        return self._rows.worst_case(self._made, self._environment, call)

    def stop(self) -> None:
        """Have the pieces in flight end early."""
        for actor in self._actors:
            actor.stop.options(concurrency_group="control").remote()

    def leave(self) -> None:
        """Have the pieces in flight end now."""
        ray = ray_with_data()
        for actor in self._actors:
            ray.kill(actor)
