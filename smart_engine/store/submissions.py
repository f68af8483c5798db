"""The batches that jobs have submitted to providers, as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sql

from smart_engine.errors import StoreError
from smart_engine.serving.submissions import Submission
from smart_engine.store.dialects import begin, reason, shown
from smart_engine.store.forks import connected, fork_safe_lock
from smart_engine.store.schema import BATCHES, is_sound, with_checksum
from smart_engine.warn import warn

__all__ = ["SqlSubmissions"]


class SqlSubmissions:
    """A `SubmissionStore`; see `Store.submissions`."""

    durable = True

    def __init__(self, engine: sql.Engine, job: str | None) -> None:
        self._engine, self.key = engine, job or ""
        self._where = BATCHES.c.job == job if job is not None else sql.true()
        self._lock = fork_safe_lock()

    def saved(self) -> Sequence[Submission]:
        """Return the job's batches, or those of all jobs, the oldest first."""
        try:
            with connected(self._engine) as connection:
                about, name = sql.inspect(connection), BATCHES.name
                there = about.get_columns(name) if about.has_table(name) else []
                rows = connection.execute(self._wanted(there)).all() if there else []
            sound = [row for row in rows if is_sound(BATCHES, row)]
            submissions = [_submission(row) for row in sound]
        except (sql.exc.SQLAlchemyError, ValueError) as error:
            problem = f"the store cannot be read: {reason(error)}"
            raise StoreError(problem) from error
        if damaged := len(rows) - len(sound):
            what = f"{damaged:,} of {len(rows):,} batches in {shown(self._engine.url)}"
            hint = "what they answer may be bought again"
            warn(f"{what} are damaged: {hint}")
        return submissions

    def _wanted(self, there: Iterable[Any]) -> sql.Select[Any]:
        """Return what reads the batches; an older version stored fewer columns."""
        stored = {column["name"] for column in there}
        missing = sql.null()
        columns = (c if c.name in stored else missing.label(c.name) for c in BATCHES.c)
        return sql.select(*columns).where(self._where).order_by(BATCHES.c.began)

    def save(self, submission: Submission) -> None:
        """Add a batch, or write what is known of it now."""
        row = {"job": self.key, **_cells(submission)}
        cells = with_checksum(BATCHES, row)
        one = BATCHES.c.name == submission.name
        try:
            with self._lock, connected(self._engine) as connection:
                begin(connection, durable=True)
                changed = connection.execute(BATCHES.update().where(one), cells)
                if not changed.rowcount:
                    connection.execute(BATCHES.insert(), cells)
        except sql.exc.SQLAlchemyError as error:
            problem = f"the store cannot be written: {reason(error)}"
            raise StoreError(problem) from error

    def forget(self, name: str) -> None:
        """Remember a batch no longer; see `Store.forget_submission`."""
        try:
            with self._lock, connected(self._engine) as connection:
                connection.execute(BATCHES.delete().where(BATCHES.c.name == name))
        except sql.exc.SQLAlchemyError as error:
            problem = f"the store cannot be written: {reason(error)}"
            raise StoreError(problem) from error


def _cells(submission: Submission) -> dict[str, Any]:
    """Return a batch as the cells of its row, without the job."""
    names = ("name", "model", "address", "kind", "began", "batch", "account")
    cells = {name: getattr(submission, name) for name in names}
    return {**cells, "rows": json.dumps(submission.rows)}


def _submission(row: Any) -> Submission:
    """Return the batch of a row."""
    return Submission(
        row.name,
        row.model,
        row.address,
        row.kind,
        tuple(json.loads(row.rows)),
        row.began,
        row.batch,
        row.account,
    )
