"""`Store`: a database in which bought answers outlive the process.

The one place of the engine that touches a database; nothing else in it imports this.
It holds answers, never what was asked: a job is known by a hash.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smart_engine.calls import Call, Outcome
from smart_engine.errors import InvalidInputError, MissingExtraError, StoreError
from smart_engine.pricing import Usage
from smart_engine.serving.resumed import Shelf

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

__all__ = ["Store", "as_store"]

_FORMAT = 1


class Store:
    """A database of bought answers, for jobs that may be cut off and go on later.

    Args:
        place: A file, which is made if it is not there, readable by its owner alone;
            or a SQLAlchemy URL, such as `postgresql+psycopg://…`.

    Raises:
        InvalidInputError: If the place cannot be used.
        MissingExtraError: If SQLAlchemy is not installed.

    Example:
        ```python
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"{folder}/answers.db")
            shelf = store.shelf("a job", write=str, read=str)
            shelf.keep(Call(0, "big"), Outcome("yes", 0.01))
            again = Store(f"{folder}/answers.db").shelf("a job", write=str, read=str)
            assert again.held()[Call(0, "big")].answer == "yes"
            store.close()
        ```
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        """Open the database; make its table if it is not there."""
        try:
            import sqlalchemy
        except ModuleNotFoundError as error:
            raise MissingExtraError("store", "a store") from error
        self._url = _url(place)
        try:
            self._engine = sqlalchemy.create_engine(self._url)
            self._outcomes = _outcomes()
            if self._engine.dialect.name == "sqlite":
                _make_private(self._engine.url.database)
                sqlalchemy.event.listen(self._engine, "connect", _write_ahead)
            self._outcomes.metadata.create_all(self._engine)
        except (sqlalchemy.exc.SQLAlchemyError, ModuleNotFoundError) as error:
            raise InvalidInputError("store", str(self), _plain(error)) from error
        except OSError as error:
            raise InvalidInputError("store", str(self), str(error.strerror)) from error

    def shelf(
        self,
        job: str,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> Shelf:
        """Return where one job's outcomes are kept.

        Args:
            job: Hash of all that the job's result depends on.
            write: Turns an answer into text.
            read: Turns such a text into the answer again.
        """
        return _SqlShelf(self._engine, self._outcomes, job, write, read)

    def close(self) -> None:
        """Close all connections; the store may be used again."""
        self._engine.dispose()

    def __str__(self) -> str:
        """Show the place, without a password, nor options, which may hold one."""
        import sqlalchemy

        try:
            url = sqlalchemy.make_url(self._url)
        except sqlalchemy.exc.ArgumentError:
            return "…"
        return url.set(query={}).render_as_string(hide_password=True)

    def __repr__(self) -> str:
        """Show the place, without a password."""
        return f"Store({str(self)!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        """Return this store: there is one of it."""
        del memo
        return self

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Return how to open it again."""
        return Store, (self._url,)


def as_store(given: Store | str | os.PathLike[str] | None) -> Store | None:
    """Return a store that was given as such or by its place, if any was.

    Raises:
        InvalidInputError: If the place cannot be used.
    """
    return given if given is None or isinstance(given, Store) else Store(given)


class _SqlShelf:
    """The outcomes of one job in a table."""

    def __init__(
        self,
        engine: Engine,
        table: Table,
        job: str,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> None:
        self._engine, self._table, self._job = engine, table, job
        self._write, self._read = write, read
        self._lock = threading.Lock()  # else writers wait for each other by the clock

    def held(self) -> dict[Call, Outcome]:
        import sqlalchemy

        wanted = sqlalchemy.select(self._table).where(self._table.c.job == self._job)
        held = {}
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(wanted).all()
            for row in rows:
                usage = None
                if row.input_tokens is not None:
                    usage = Usage(row.input_tokens, row.output_tokens)
                answer = self._read(row.answer)
                told = (row.cost, usage, row.confidence)
                call = Call(row.item, row.tier)
                held[call] = Outcome(answer, *told, cached=row.cached)
        except Exception as error:
            hint = "it is damaged or was written by another version; use another one"
            raise StoreError(
                f"the store cannot be read ({_plain(error)}): {hint}"
            ) from (error)
        return held

    def keep(self, call: Call, outcome: Outcome) -> None:
        import sqlalchemy

        usage = outcome.usage
        row = {
            "job": self._job,
            "item": call.item,
            "tier": call.tier,
            "answer": self._write(outcome.answer),
            "cost": outcome.cost,
            "input_tokens": None if usage is None else usage.input_tokens,
            "output_tokens": None if usage is None else usage.output_tokens,
            "confidence": outcome.confidence,
            "cached": outcome.cached,
        }
        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(self._table.insert(), row)
        except sqlalchemy.exc.IntegrityError:
            return  # another process that works on the same job was first
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreError(f"the store cannot be written: {_plain(error)}") from error


def _outcomes() -> Table:
    """Return the table: one row per answer that was bought."""
    import sqlalchemy as sql

    number = sql.Double
    return sql.Table(
        f"smart_outcomes_{_FORMAT}",
        sql.MetaData(),
        sql.Column("job", sql.String(64), primary_key=True),
        sql.Column("item", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("tier", sql.String(255), primary_key=True),
        sql.Column("answer", sql.Text, nullable=False),
        sql.Column("cost", number, nullable=False),
        sql.Column("input_tokens", number),
        sql.Column("output_tokens", number),
        sql.Column("confidence", number),
        sql.Column("cached", sql.Boolean, nullable=False),
    )


def _url(place: str | os.PathLike[str]) -> str:
    """Return the URL of a place."""
    if not isinstance(place, str | os.PathLike) or not str(place):
        hint = "give a file, or a SQLAlchemy URL such as postgresql+psycopg://…"
        raise InvalidInputError("store", place, hint)
    if "://" in str(place):
        return str(place)
    return f"sqlite:///{Path(place).absolute()}"


def _make_private(file: str | None) -> None:
    """Make a file readable by its owner alone; those beside it will inherit that."""
    if file and file != ":memory:" and not file.startswith("file:"):
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _write_ahead(connection: Any, _: Any) -> None:
    """Let a SQLite file be read while it is written, and survive a kill."""
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {setting}")


def _plain(error: BaseException) -> str:
    """Return what went wrong in one line: no statement, no parameters."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]
