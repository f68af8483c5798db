"""The row of a stream or a task's jobs: state and budget, which processes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql

from smart_engine.errors import StoreError
from smart_engine.row import RowText
from smart_engine.serving.profile import Profile
from smart_engine.store.dialects import begin, reason, shown
from smart_engine.store.forks import connected
from smart_engine.store.schema import STREAMS, is_sound, with_checksum
from smart_engine.warn import warn

__all__ = ["SqlRow", "read_streams"]


def read_streams(engine: sql.Engine) -> list[tuple[str, str, str, str]]:
    """Return task, mode, parts and state of each row that has a state.

    Raises:
        StoreError: If one is damaged.
    """
    columns = STREAMS.c
    with connected(engine) as connection:
        rows = connection.execute(
            sql.select(STREAMS).order_by(columns.task, columns.mode, columns.profile)
        ).all()
    cells = [dict(zip(STREAMS.columns.keys(), row, strict=True)) for row in rows]
    if not all(is_sound(STREAMS, row) for row in rows):
        place = shown(engine.url)
        problem = f"a task in {place} is damaged: it does not match its checksum"
        raise StoreError(f"{problem}; use another store")
    names = ("task", "mode", "parts", "state")
    found = [tuple(str(row[name]) for name in names) for row in cells if row["state"]]
    return [(task, mode, parts, state) for task, mode, parts, state in found]


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
                cells = self._read(connection)
                if cells is None:
                    notice = self._create(connection)
                    cells = self._read(connection) or {}
                row = RowText(text := cells.get(self._column, ""))
                yield row
                if row.text != text:
                    changed = with_checksum(STREAMS, {**cells, self._column: row.text})
                    connection.execute(STREAMS.update().where(self._where), changed)
            self._exists = True  # only now: a block that failed created nothing
        except (sql.exc.SQLAlchemyError, UnicodeError) as error:
            problem = f"the store cannot be used: {reason(error)}"
            raise StoreError(problem) from error
        if notice:
            warn(notice)

    def _read(self, connection: sql.Connection) -> dict[str, Any] | None:
        """Return the row's cells, and keep others from changing them."""
        wanted = sql.select(STREAMS).where(self._where).with_for_update()
        found = connection.execute(wanted).one_or_none()
        if found is None:
            return None
        if not is_sound(STREAMS, found):
            place = shown(self._engine.url)
            problem = f"a stream in {place} is damaged: it does not match its checksum"
            raise StoreError(f"{problem}; use another store")
        return dict(zip(STREAMS.columns.keys(), found, strict=True))

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
                connection.execute(STREAMS.insert(), with_checksum(STREAMS, row))
        except sql.exc.IntegrityError:
            return None
        if not changes:
            return None
        return (
            f"the store knows task {profile.task!r} with another setting, "
            f"{min(changes, key=len)}: what was learned does not hold here, and it "
            "begins anew"
        )
