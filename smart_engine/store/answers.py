"""The answers and verdicts of one job, as rows of two tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import sqlalchemy as sql

from smart_engine.calls import Call, Outcome, check_outcome
from smart_engine.equivalence.verdicts import Verdict
from smart_engine.errors import StoreError, UnkeptAnswerError
from smart_engine.money.pricing import Usage
from smart_engine.money.spending import Spend
from smart_engine.store.dialects import reason, shown
from smart_engine.store.forks import connected, fork_safe_lock
from smart_engine.store.schema import (
    JOBS,
    OUTCOMES,
    USAGE,
    VERDICTS,
    is_sound,
    with_checksum,
)
from smart_engine.warn import warn

__all__ = ["SqlAnswers", "bought"]


class SqlAnswers:
    """An `AnswerStore`; see `Store.answers`."""

    def __init__(
        self,
        engine: sql.Engine,
        job: str,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> None:
        self._engine, self._job = engine, job
        self._write, self._read = write, read
        self._lock = fork_safe_lock()  # else writers wait for each other by the clock

    def seed(self, fresh: int) -> int:
        """Return the seed of the job's draws."""
        with _readable():
            found = self._rows(JOBS)
        if not found:
            self._insert(JOBS, {"seed": str(fresh)})
        with _readable():
            (row,) = self._rows(JOBS)
            if not is_sound(JOBS, row):
                raise ValueError("the seed of a job is not as it was written")
            return int(row.seed)

    def load_outcomes(self) -> dict[Call, Outcome]:
        """Return the job's outcomes."""
        with _readable():
            return {
                Call(row.item, row.tier): _outcome(row, self._read(row.answer))
                for row in self._sound_rows(OUTCOMES)
            }

    def load_verdicts(self) -> dict[str, Verdict]:
        """Return the job's verdicts, by their keys."""
        with _readable():
            return {row.about: _verdict(row) for row in self._sound_rows(VERDICTS)}

    def save_outcome(self, call: Call, outcome: Outcome) -> None:
        """Store an outcome."""
        try:
            answer = self._write(outcome.answer)
        except Exception as error:
            raise UnkeptAnswerError(reason(error)) from error
        row = {
            "item": call.item,
            "tier": call.tier,
            "answer": answer,
            "cost": outcome.cost,
            "confidence": outcome.confidence,
            "cached": outcome.cached,
            **{kind: getattr(outcome.usage, kind, None) for kind in USAGE},
        }
        self._insert(OUTCOMES, row)

    def save_verdict(self, key: str, verdict: Verdict) -> None:
        """Store a verdict."""
        calls = [
            (name, outcome.paid, *astuple(outcome.usage or Usage()))
            for name, outcome in verdict.calls
        ]
        row = {"about": key, "same": verdict.same, "calls": json.dumps(calls)}
        self._insert(VERDICTS, row)

    def _rows(self, table: sql.Table) -> Sequence[Any]:
        wanted = sql.select(table).where(table.c.job == self._job)
        with connected(self._engine) as connection:
            return connection.execute(wanted).all()

    def _sound_rows(self, table: sql.Table) -> list[Any]:
        """Return the rows that are as they were written; warn of others."""
        rows = self._rows(table)
        sound = [row for row in rows if is_sound(table, row)]
        if damaged := len(rows) - len(sound):
            what = f"{damaged:,} of {len(rows):,} rows of a job"
            hint = "they do not match their checksums, and are bought again"
            place = shown(self._engine.url)
            warn(f"{what} in {place} are damaged: {hint}")
        return sound

    def _insert(self, table: sql.Table, row: dict[str, Any]) -> None:
        """Add a row, committed once this returns; one that is there stays if sound."""
        cells = with_checksum(table, {"job": self._job, **row})
        key = sql.and_(*(column == cells[column.key] for column in table.primary_key))
        try:
            with self._lock, connected(self._engine) as connection:
                found = connection.execute(sql.select(table).where(key)).one_or_none()
                if found is None:
                    connection.execute(table.insert(), cells)
                elif not is_sound(table, found):
                    connection.execute(table.update().where(key), cells)
        except sql.exc.IntegrityError:
            return  # another process that works on the same job was first
        except sql.exc.SQLAlchemyError as error:
            problem = f"the store cannot be written: {reason(error)}"
            raise StoreError(problem) from error


def bought(engine: sql.Engine) -> dict[str, dict[str, Spend]]:
    """Return what all jobs' answers had cost; see `Store.bought`."""
    with connected(engine) as connection:
        table = sql.inspect(connection).get_columns(OUTCOMES.name)
    stored = {column["name"] for column in table}
    columns = {  # an older version stored fewer
        each.name: each if each.name in stored else sql.cast(sql.null(), each.type)
        for each in OUTCOMES.columns
    }
    key = columns["job"], columns["tier"]
    paid = sql.case((columns["cached"], 0.0), else_=columns["cost"])
    summed = {
        "cost": paid,
        "input_tokens": sql.func.coalesce(columns["input_tokens"], 0.0),
        "output_tokens": sql.func.coalesce(columns["output_tokens"], 0.0),
        "estimated": sql.case((columns["estimated"], paid), else_=0.0),
    }
    sums = [sql.func.sum(value).label(name) for name, value in summed.items()]
    wanted = sql.select(*key, sql.func.count().label("calls"), *sums)
    jobs: dict[str, dict[str, Spend]] = {}
    with connected(engine) as connection:
        rows = connection.execute(wanted.group_by(*key).order_by(*key))
        for job, model, *values in rows:
            spend = dict(zip(("calls", *summed), values, strict=True))
            jobs.setdefault(job, {})[model] = Spend(**spend)
    return jobs


@contextmanager
def _readable() -> Iterator[None]:
    """Turn whatever makes rows unreadable into one clear error."""
    try:
        yield
    except Exception as error:
        hint = "it is damaged or was written by another version; use another one"
        problem = f"the store cannot be read ({reason(error)}): {hint}"
        raise StoreError(problem) from error


def _outcome(row: Any, answer: Any) -> Outcome:
    """Return a row's outcome; an older version stored less of its usage."""
    usage = None
    if row.input_tokens is not None:
        if row.output_tokens is None:
            raise ValueError("output tokens are missing")
        parts = {kind: getattr(row, kind) for kind in USAGE}
        parts = {kind: part for kind, part in parts.items() if part is not None}
        usage = Usage(**parts)
    return _checked(Outcome(answer, row.cost, usage, row.confidence, cached=row.cached))


def _verdict(row: Any) -> Verdict:
    """Return a row's verdict, with the calls that it took."""
    calls = [
        (str(name), _checked(Outcome(None, cost, Usage(*usage))))
        for name, cost, *usage in json.loads(row.calls)
    ]
    return Verdict(row.same, calls)


def _checked(outcome: Outcome) -> Outcome:
    """Return an outcome; raise unless its figures can be entered in a ledger."""
    check_outcome(outcome)
    if outcome.usage is not None and outcome.usage.problem is not None:
        raise ValueError(outcome.usage.problem)
    return outcome
