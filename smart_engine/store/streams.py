"""The row of one stream: its state and its budget, which processes share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sql

from smart_engine.errors import StoreError
from smart_engine.row import RowText
from smart_engine.serving.profile import Profile
from smart_engine.store.dialects import begin, reason
from smart_engine.store.forks import connected
from smart_engine.store.schema import STREAMS

__all__ = ["SqlRow"]


class SqlRow:
    """A `StreamRow`; see `Store.row`."""

    def __init__(self, engine: sql.Engine, profile: Profile, column: str) -> None:
        self._engine, self._profile, self._column = engine, profile, column
        self._where = STREAMS.c.profile == profile.fingerprint
        self._exists = False

    @contextmanager
    def locked(self, *, durable: bool) -> Iterator[RowText]:
        """Lock the row for a block, and write what the block leaves."""
        notice = None
        try:
            with connected(self._engine) as connection:
                begin(connection, durable=durable)
                text = self._read(connection)
                if text is None:
                    notice = self._create(connection)
                    text = self._read(connection) or ""
                row = RowText(text)
                yield row
                if row.text != text:
                    changed = STREAMS.update().where(self._where)
                    connection.execute(changed.values({self._column: row.text}))
            self._exists = True  # only now: a block that failed created nothing
        except (sql.exc.SQLAlchemyError, UnicodeError) as error:
            problem = f"the store cannot be used: {reason(error)}"
            raise StoreError(problem) from error
        if notice:
            warnings.warn(notice, stacklevel=4)

    def _read(self, connection: sql.Connection) -> str | None:
        """Return the text, and keep others from changing it."""
        wanted = sql.select(STREAMS.c[self._column]).where(self._where)
        found: str | None = connection.execute(wanted.with_for_update()).scalar()
        return found

    def _create(self, connection: sql.Connection) -> str | None:
        """Create the row, unless another process just did; return a notice, if any."""
        if self._exists:
            hint = "leave it there, or start again in another process"
            raise StoreError(f"a stream was removed from the store in use: {hint}")
        profile, columns = self._profile, STREAMS.c
        same_task = (columns.task == profile.task) & (columns.mode == profile.mode)
        others = connection.execute(sql.select(columns.parts).where(same_task))
        try:
            changes = [profile.changes(json.loads(parts)) for (parts,) in others]
        except (AttributeError, ValueError, RecursionError) as error:
            problem = "a profile in the store cannot be read: it is damaged"
            raise StoreError(f"{problem}; use another one") from error
        row = {
            "profile": profile.fingerprint,
            "task": profile.task,
            "mode": profile.mode,
            "parts": json.dumps(dict(profile.parts)),
            "state": "",
            "budget": "",
        }
        try:
            with connection.begin_nested():
                connection.execute(STREAMS.insert(), row)
        except sql.exc.IntegrityError:
            return None
        if not changes:
            return None
        return (
            f"the store knows task {profile.task!r}, but not with this "
            f"{min(changes, key=len)}: what was learned does not hold here, and its "
            "stream begins anew"
        )
