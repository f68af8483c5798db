"""`RowCaller`: puts rows of a table to models, in whatever data engine they are.

It makes the calls that it is given and decides nothing: which model is asked about
which row is said by a session elsewhere, as in `smart_dataset`, or by the caller. Calls
are made as in any batch: with the same retries, time-outs, limits and prices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from math import fsum
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableSequence, ensure_config

from langchain_smart.batching import SmartBatching, named_task
from langchain_smart.chat.compare import MessageReading
from langchain_smart.chat.members import unwrapped
from langchain_smart.chat.structured import Parsed
from smart_engine.bulk import Outcomes
from smart_engine.calls import Call, Failure, Outcome, Result
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.identity import identity
from smart_engine.equivalence.keys import key_of
from smart_engine.errors import InvalidInputError, UnparseableAnswerError, check_whole
from smart_engine.evidence.tails import FloatArray
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import Key, LedgerScope
from smart_engine.money.reservations import Reservations
from smart_engine.runtime.blocks import WorkerLostError
from smart_engine.runtime.drive import drive
from smart_engine.runtime.job import Job
from smart_engine.serving.answer_text import as_text
from smart_engine.serving.result_columns import Row, to_columns

__all__ = ["Made", "RowCaller", "SmartSource"]

SmartSource = Runnable[Any, Any] | Callable[[], Runnable[Any, Any]]
"""A smart model or chain, or a function without arguments that makes one."""

Prompt = str | Runnable[Any, Any] | Callable[[dict[str, Any]], Any]

_SHOWN = ("key", "error", "cost", "cached", "estimated", "confidence")
_TOKENS = ("input_tokens", "output_tokens")


class Made(NamedTuple):
    """What became of some calls.

    Attributes:
        columns: Their results; see `smart_engine.serving.result_columns`.
        answers: Their answers as texts, in the same order; None where there is none.
        error: Why no call may be made any more, if that showed.
    """

    columns: dict[str, list[Any]]
    answers: list[str | None]
    error: Exception | None = None


class RowCaller:
    """Answers batches of rows, each by the model that its column `model` names.

    It is made for `ray.data.Dataset.map_batches`, as a class that each actor constructs
    once, and serves in the same way in Dask (`map_partitions`), Daft and Spark
    (`mapInPandas`). A batch is a `pyarrow.Table`, a `pandas.DataFrame` or a dict of
    columns; what is returned is the same kind of table, with the columns of the batch
    and `model`, `answer` (a text: of messages their text, of objects their JSON),
    `error` (why there is none), `key` (equal for answers that mean the same, by the
    equivalence), `cost` in USD, `cached`, `estimated`, `confidence`, `input_tokens` and
    `output_tokens`. A row that fails has its own `error`; the rest is answered.

    No certificate comes of it: nothing here compares a model with the reference. Use
    `smart_dataset` where the guarantee has to hold.

    Args:
        smart: A `SmartChatModel` or `SmartRunnable`, also with tools, a schema or other
            arguments bound to it, that can be pickled; or a function without arguments
            that makes one, since many clients cannot.
        prompt: A template in which columns are named, such as `"Is this spam? {mail}"`,
            a prompt of LangChain's, or a function of a row (a dict). Without a prompt
            and a column, the row is what is asked: a dict, as chains take it.
        column: Name of the column that is asked as it is, in place of a prompt.
        model: Name of the model for batches without a column `model`.
        workers: Number of workers that share `max_concurrency` and the requests per
            second of an `InMemoryRateLimiter`.

    Attributes:
        task: Name of the task.
        rule: How answers are compared.
        told: A text that identifies what models are told of a row.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel


        def smart():
            return SmartChatModel(
                reference=FakeListChatModel(responses=["spam"], name="big"),
                candidates=[FakeListChatModel(responses=["Spam."], name="small")],
                prices={"big": Price.free(), "small": Price.free()},
            )


        answer = RowCaller(smart, prompt="Is this spam? {mail}", model="small")
        assert answer({"mail": ["Win a prize!"] * 2})["answer"] == ["Spam.", "Spam."]
        ```
    """

    def __init__(
        self,
        smart: SmartSource,
        *,
        prompt: Prompt | None = None,
        column: str | None = None,
        model: str | None = None,
        workers: int = 1,
    ) -> None:
        check_whole("workers", workers, 1)
        if prompt is not None and column is not None:
            hint = "give a prompt or a column, not both: a prompt names its columns"
            raise InvalidInputError("column", column, hint)
        self._given = (smart, prompt, column, model, workers)
        self.told = _text_of(prompt if column is None else column)
        self._smart, arguments = _smart_in(smart)
        self._prompt = _prompt_of(prompt)
        self._column, self._model = column, model
        if prompt is column is None and isinstance(self._smart, BaseChatModel):
            hint = "give a prompt in which columns are named, or the column to ask"
            raise InvalidInputError("prompt", None, hint)
        label = named_task(arguments, None) or self._smart.task
        make, compared_by, name_of = self._smart._job_maker(dict(arguments))  # noqa: SLF001
        self._make, serving = make, self._smart._serving  # noqa: SLF001
        self.task = serving.task_of(label or name_of([]))
        self.rule: Equivalence = compared_by(serving.rule_of(self.task))
        self._limit = max(1, self._smart.max_concurrency // workers)
        self._stopped = False
        if workers > 1:
            _share_rates(self._smart, workers)

    def __reduce__(self) -> tuple[Callable[..., RowCaller], tuple[Any, ...]]:
        """Return how to make it anew, in another process."""
        return _again, self._given

    @property
    def smart(self) -> SmartBatching[Any, Any]:
        """The smart model or chain."""
        return self._smart

    def job(self, inputs: Sequence[Any] = (), scope: LedgerScope | None = None) -> Job:
        """Return a job over some inputs, which knows how to put them to models."""
        config = ensure_config()
        return self._make(
            task=self.task,
            rule=self.rule,
            scope=scope or LedgerScope(_Nowhere(), self._names[0], self.task),
            places=range(len(inputs)),
            limit=self._limit,
            label=self.task,
            inputs=inputs,
            configs=[config] * len(inputs),
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return self._smart._serving.models  # noqa: SLF001

    def stop(self) -> None:
        """Begin no further call, from any thread: what is being made ends early."""
        self._stopped = True

    def __call__(self, batch: Any) -> Any:
        """Return a batch with its answers; see the class."""
        if self._smart.budget_usd is not None:
            hint = (
                "batches are answered in many places, each of which knows only its own "
                "calls: leave it out, or use smart_dataset"
            )
            raise InvalidInputError("budget_usd", self._smart.budget_usd, hint)
        named = _column(batch, "model")
        if named is None and self._model is None:
            hint = "name a model for all rows here, or each row's in a column model"
            raise InvalidInputError("model", None, hint)
        rows = _rows(batch, self.columns_of(batch))
        models = [self._model] * len(rows) if named is None else named
        for name in set(models) - set(self._names):
            hint = f"name one of the members: {', '.join(self._names)}"
            raise InvalidInputError("model", name, hint)
        calls = [Call(place, name) for place, name in enumerate(models)]
        made = self.make(rows, calls)
        if made.error is not None:
            raise made.error
        added: dict[str, list[Any]] = {"model": models, "answer": made.answers}
        added |= {name: made.columns[name] for name in (*_SHOWN, *_TOKENS)}
        return _with_columns(batch, added)

    def columns_of(self, table: Any) -> list[str]:
        """Return the columns of a table of which models are told anything.

        Raises:
            InvalidInputError: If one of them is missing; names those that there are.
        """
        present = _names_in(table)
        needed = [] if self._column is None else [self._column]
        needed += getattr(self._prompt, "input_variables", [])
        missing = sorted(set(needed) - set(present))
        if missing:
            hint = f"no such column; there are {', '.join(map(str, present))}"
            field = "column" if self._column else "prompt"
            raise InvalidInputError(field, missing[0], hint)
        return needed or present

    def worst_cases(self, rows: Sequence[Any]) -> FloatArray:
        """Return the most that each model's call about each row can cost, in USD.

        A row of which no call can be made costs nothing.

        Args:
            rows: The rows, dicts.

        Returns:
            Models × rows.

        Raises:
            InvalidInputError: If nothing limits that; it names the setting or part.
        """
        read = [*map(self._read, rows)]
        job = self.job([None if isinstance(each, Exception) else each for each in read])
        most = np.zeros((len(self._names), len(rows)))
        for place, given in enumerate(read):
            if not isinstance(given, Exception):
                calls = (Call(place, name) for name in self._names)
                most[:, place] = [job.worst_case(call) for call in calls]
        return most

    def worst_case(self, row: Any, model: str) -> float | None:
        """Return the most that a call can cost, in USD; None if nothing limits it."""
        read = self._read(row)
        if isinstance(read, Exception):
            return 0.0
        return self.job([read]).requester(0).worst_case(model)

    def _within(self, job: Job, calls: Sequence[Call]) -> Reservations | None:
        """Return what calls reserve, all of them from the start, if there is a budget.

        The driver has set their worst cases aside. So what some leave of theirs is for
        further attempts at others, and nothing else.
        """
        if self._smart.budget_usd is None:
            return None
        most = fsum(job.worst_case(call) or 0.0 for call in calls)
        reserved = Reservations(Budget(most, Lock()), job.worst_case, Lock())
        for call in calls:
            reserved.begin(call)
        return reserved

    def make(
        self, rows: Sequence[Any], calls: Sequence[Call], attempts: int = 0
    ) -> Made:
        """Make calls; `stop` ends that early.

        Args:
            rows: Per call its row, a dict.
            calls: The calls.
            attempts: How often they may have been made before, by workers that were
                lost: each attempt is booked at its most.
        """
        read = [*map(self._read, rows)]
        inputs = [None if isinstance(each, Exception) else each for each in read]
        inner = _Inner()
        job = self.job(inputs, LedgerScope(inner, self._names[0], self.task))
        given = _Given([call.tier for call in calls], read, self._limit, self)
        given.reserved = job.reservations = self._within(job, given.calls)
        error = None
        try:
            drive(given, job, self._limit)
        except Exception as ending:  # noqa: BLE001 - told beside what was made
            error = ending
        found: list[Row] = []
        answers: list[str | None] = []
        for place, result in sorted(given.results.items()):
            call, ended = calls[place], result
            key, unread, answer = None, None, None
            if isinstance(result, Outcome):
                answer = self._text(result.answer)
                try:
                    key = key_of(self.rule.parse(result.answer))
                except TypeError as problem:
                    error = error or _no_key(self.rule, problem)
                except Exception as problem:  # noqa: BLE001 - a user's rule
                    unread = problem
                ended = result._replace(answer=key)
            if attempts and not (isinstance(ended, Failure) and ended.sat_out):
                ended = _after_losses(job, place, call.tier, ended, attempts)
            found.append(Row(call, ended, unread, inner.calls.get(place, ())))
            answers.append(answer)
            with suppress(Exception):  # of callbacks
                job.finish(place, result[0])  # the answer, or the error
        return Made(to_columns(found), answers, error)

    @property
    def stopped(self) -> bool:
        """Whether no further call may begin."""
        return self._stopped

    def _read(self, row: Any) -> Any:
        """Return what is asked about a row, or why that cannot be made of it."""
        try:
            given = row if self._column is None else row[self._column]
            return self._smart._read(self._prompt(given))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - it is the row's
            return error

    def _text(self, answer: Any) -> str:
        """Return an answer as text."""
        schema = getattr(self.rule, "schema", None)
        if schema is not None and isinstance(self.rule, MessageReading):
            with suppress(UnparseableAnswerError):
                kind, content = self.rule.read(answer)
                if kind == "objects":
                    return as_text(content[0])
        if isinstance(answer, BaseMessage):
            text, calls = str(answer.text), getattr(answer, "tool_calls", [])
            if text.strip() or not calls:
                return text
            return json.dumps([{"name": c["name"], "args": c["args"]} for c in calls])
        return answer if isinstance(answer, str) else as_text(answer)


class _Given:
    """A session that hands out given calls, a few at once, and keeps their results."""

    waits = False

    def __init__(
        self, models: Sequence[str], read: Sequence[Any], few: int, caller: RowCaller
    ) -> None:
        self.calls = [
            Call(place, model)
            for place, (model, given) in enumerate(zip(models, read, strict=True))
            if not isinstance(given, Exception)
        ]
        self._left = iter(self.calls)
        self._few, self._caller = few, caller
        self.reserved: Reservations | None = None
        self.results: dict[int, Result] = {
            place: Failure(given)
            for place, given in enumerate(read)
            if isinstance(given, Exception)
        }

    def next_calls(self) -> list[Call]:
        return [] if self._caller.stopped else list(islice(self._left, self._few))

    def keep(self, call: Call, outcome: Result) -> None:
        """Do nothing before it is recorded."""

    def record(self, call: Call, outcome: Result) -> None:
        self.results[call.item] = outcome
        if self.reserved is not None:
            self.reserved.end(call, outcome.total)


def _smart_in(smart: SmartSource) -> tuple[SmartBatching[Any, Any], dict[str, Any]]:
    """Return a smart model or chain, and what is bound to it.

    Raises:
        InvalidInputError: If it is none.
    """
    made: Any = smart
    if not isinstance(smart, Runnable) and callable(smart):
        made = smart()
    inner = made
    if isinstance(made, RunnableSequence) and isinstance(made.last, Parsed):
        inner = made.first  # objects become JSON here
    found, arguments = unwrapped(inner)
    if not isinstance(found, SmartBatching):
        hint = (
            "give a SmartChatModel or a SmartRunnable, with arguments bound to it or "
            "not, or a function that makes one; what comes before it is the prompt"
        )
        raise InvalidInputError("smart", type(made).__name__, hint)
    if "model" in arguments:
        hint = "rows name the models, so none can be bound to the smart model"
        raise InvalidInputError("smart", arguments["model"], hint)
    return found, arguments


def _prompt_of(prompt: Prompt | None) -> Any:
    """Return a function that makes of a row what is asked."""
    if prompt is None:
        return _Same()
    if isinstance(prompt, str):
        prompt = ChatPromptTemplate.from_template(prompt)
    if isinstance(prompt, Runnable):
        return _Template(prompt)
    if not callable(prompt):
        hint = "give a text with columns in {braces}, a prompt, or a function of a row"
        raise InvalidInputError("prompt", type(prompt).__name__, hint)
    return prompt


class _Same:
    """The prompt that leaves a row as it is."""

    def __call__(self, row: Any) -> Any:
        return row


class _Template:
    """A prompt of LangChain's."""

    def __init__(self, prompt: Runnable[Any, Any]) -> None:
        self._prompt = prompt
        self.input_variables = list(getattr(prompt, "input_variables", []))

    def __call__(self, row: Any) -> Any:
        if isinstance(self._prompt, BasePromptTemplate):  # without a run of its own
            return self._prompt.format_prompt(**row)
        return self._prompt.invoke(row, {"callbacks": []})


def _text_of(prompt: Any) -> str:
    """Return a text that identifies a prompt or a column."""
    known = isinstance(prompt, str | Runnable)
    return repr(prompt) if known else identity(prompt).mark


def _again(
    smart: SmartSource, prompt: Any, column: Any, model: Any, workers: int
) -> RowCaller:
    return RowCaller(smart, prompt=prompt, column=column, model=model, workers=workers)


class _Nowhere:
    """Enters nothing: calls are entered where the session is."""

    def enter(
        self, key: Key, batch: int | None, item: int, error: str | None, result: Result
    ) -> None:
        """Enter no call."""

    def enter_all(self, key: Key, batch: int | None, outcomes: Outcomes) -> None:
        """Enter no calls."""


class _Inner(_Nowhere):
    """Collects by item the calls that calls make themselves."""

    def __init__(self) -> None:
        self.calls: dict[int, list[tuple[str, Result]]] = {}

    def enter(
        self, key: Key, batch: int | None, item: int, error: str | None, result: Result
    ) -> None:
        """Collect a call."""
        del batch, error
        self.calls.setdefault(item, []).append((key.model, result))


def _share_rates(smart: SmartBatching[Any, Any], workers: int) -> None:
    """Leave each of several workers its share of the requests per second."""
    members = (member.model for member in smart._members.values())  # noqa: SLF001
    limiters = {
        id(limiter): limiter
        for each in (smart, *members)
        if (limiter := getattr(each, "rate_limiter", None)) is not None
    }
    for limiter in limiters.values():
        if not isinstance(limiter, InMemoryRateLimiter):
            hint = (
                f"{type(limiter).__name__} cannot be shared over {workers} workers: "
                "use an InMemoryRateLimiter, or concurrency=1"
            )
            raise InvalidInputError("rate_limiter", limiter, hint)
        limiter.requests_per_second /= workers
        limiter.max_bucket_size = max(1.0, limiter.max_bucket_size / workers)


def _after_losses(
    job: Job, place: int, model: str, result: Result, attempts: int
) -> Result:
    """Return a result with the attempts before it, whose results were lost."""
    most = job.requester(place).worst_case(model)
    if most == 0:
        return result
    error = WorkerLostError("the worker that made this call was lost")
    lost = (Failure(error, unknown=most or 0.0),) * attempts
    return result._replace(earlier=(*lost, *result.earlier))


def _no_key(rule: Equivalence, problem: TypeError) -> InvalidInputError:
    hint = (
        f"{problem}, so answers in different processes cannot be compared: let the "
        "rule read plain data, such as texts, numbers, tuples or dicts"
    )
    return InvalidInputError("equivalence", rule.name, hint)


# -- tables of data engines ------------------------------------------------------------


def _names_in(table: Any) -> list[str]:
    """Return the names of a table's columns."""
    if isinstance(table, Mapping):
        return list(table)
    return list(getattr(table, "column_names", None) or table.columns)


def _column(table: Any, name: str) -> list[Any] | None:
    """Return a column as a list of plain values, None if there is none."""
    if name not in _names_in(table):
        return None
    column = table[name]
    for plain in ("to_pylist", "tolist"):
        if hasattr(column, plain):
            return list(getattr(column, plain)())
    return list(column)


def _rows(table: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a table's rows, with those columns alone."""
    columns = [_column(table, name) or [] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _with_columns(table: Any, added: Mapping[str, list[Any]]) -> Any:
    """Return a table of the same kind with more columns, or others in their place."""
    if isinstance(table, Mapping):
        return {**table, **added}
    if hasattr(table, "assign"):
        return table.assign(**added)
    for name, column in added.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, [column])
        else:
            table = table.append_column(name, [column])
    return table
