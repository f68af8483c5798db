"""`Store`: a database in which bought answers and streams outlive the process.

The one place of the engine that touches a database; nothing else in it imports this.
It holds the answers of batches and what streams share, never what was asked: a job is
known by a hash, and so is what a verdict is about; a stream by the names and hashes of
what it is good for.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from smart_engine.calls import Call, Outcome, check_outcome
from smart_engine.equivalence.verdicts import Verdict
from smart_engine.errors import (
    InvalidInputError,
    MissingExtraError,
    StoreError,
    UnkeptAnswerError,
)
from smart_engine.money.pricing import Usage
from smart_engine.money.spending import Spend
from smart_engine.serving.profile import Profile, RowText, StreamRow
from smart_engine.serving.resume import AnswerStore

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table

__all__ = ["Store", "as_store"]

_FORMAT = 1
_WAYS = "give a file, or a SQLAlchemy URL such as postgresql+psycopg://…"

_KINDS = tuple(kind.name for kind in fields(Usage))
"""What is kept of a usage, each in a column of its own."""


class Store:
    """A database of bought answers and of streams.

    Batches that were cut off go on where they were. Streams go on, too, and several
    processes, on several machines if the database is a server, may work on one.

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
        self._place = _absolute(place)
        self._url = _url(self._place)
        _refuse_memory(self._url)
        try:
            self._engine = sqlalchemy.create_engine(self._url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                sqlalchemy.event.listen(self._engine, "do_connect", _make_private)
                sqlalchemy.event.listen(self._engine, "handle_error", _roll_back)
            self._outcomes, self._streams = _outcomes(), _streams()
            self._verdicts = _verdicts()
            prepare = _PREPARE.get(self._engine.dialect.name)
            if prepare is not None:
                sqlalchemy.event.listen(self._engine, "connect", prepare)
            _forget_in_children(self._engine)
            for table in (self._outcomes, self._verdicts, self._streams):
                _create(self._engine, table)
            _complete(self._engine, self._outcomes)
        except (
            sqlalchemy.exc.SQLAlchemyError,
            ModuleNotFoundError,
            ValueError,  # such as an option that is no number, or a damaged name
        ) as error:
            raise InvalidInputError("store", str(self), _plain(error)) from error

    def shelf(
        self,
        job: str,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> AnswerStore:
        """Return where one job's outcomes are kept.

        Args:
            job: Hash of all that the job's result depends on.
            write: Turns an answer into text.
            read: Turns such a text into the answer again.
        """
        tables = self._outcomes, self._verdicts
        return _SqlAnswers(self._engine, tables, job, write, read)

    def place(self, profile: Profile, what: Literal["state", "purse"]) -> StreamRow:
        """Return where the state or the purse of a profile's stream is kept.

        Args:
            profile: What the stream is good for. If the store has streams of its task,
                but none of this profile, the first step begins one and warns what is
                different.
            what: The state, or the purse.
        """
        return _SqlRow(self._engine, self._streams, profile, what)

    def bought(self) -> dict[str, dict[str, Spend]]:
        """Return what is kept: job → model → what its answers had cost.

        Raises:
            StoreError: If it cannot be read.
        """
        import sqlalchemy as sql

        kept = self._outcomes.c
        paid = sql.case((kept.cached, 0.0), else_=kept.cost)
        marked = sql.case((kept.estimated, paid), else_=0.0)
        summed = (paid, marked, kept.input_tokens, kept.output_tokens)
        sums = [sql.func.sum(each) for each in summed]
        wanted = sql.select(kept.job, kept.tier, sql.func.count(), *sums)
        wanted = wanted.group_by(kept.job, kept.tier).order_by(kept.job, kept.tier)
        jobs: dict[str, dict[str, Spend]] = {}
        try:
            with self._engine.connect() as connection:
                for job, tier, calls, *found in connection.execute(wanted):
                    cost, estimated, sent, said = found
                    jobs.setdefault(job, {})[tier] = Spend(
                        calls=calls,
                        cost=cost,
                        input_tokens=sent or 0,
                        output_tokens=said or 0,
                        estimated=estimated,
                    )
        except sql.exc.SQLAlchemyError as error:
            problem = f"the store cannot be read: {_plain(error)}"
            raise StoreError(problem) from error
        return jobs

    def close(self) -> None:
        """Close all connections; the store may be used again."""
        self._engine.dispose()

    def __str__(self) -> str:
        """Show the place, without a password, nor options, which may hold one."""
        if self._url.get_backend_name() == "sqlite":
            return f"sqlite:///{self._url.database or ''}"
        return self._url.set(query={}).render_as_string(hide_password=True)

    def __repr__(self) -> str:
        """Show the place, without a password."""
        return f"Store({str(self)!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        """Return this store: there is one of it."""
        del memo
        return self

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Return how to open it again."""
        return Store, (self._place,)


def as_store(given: Store | str | os.PathLike[str] | None) -> Store | None:
    """Return a store that was given as such or by its place, if any was.

    Raises:
        InvalidInputError: If the place cannot be used.
    """
    return given if given is None or isinstance(given, Store) else Store(given)


class _SqlAnswers:
    """The outcomes of one job in a table, and its verdicts in another."""

    def __init__(
        self,
        engine: Engine,
        tables: tuple[Table, Table],
        job: str,
        write: Callable[[Any], str],
        read: Callable[[str], Any],
    ) -> None:
        self._engine, self._job = engine, job
        self._outcomes, self._verdicts = tables
        self._write, self._read = write, read
        self._lock = threading.Lock()  # else writers wait for each other by the clock

    def held(self) -> dict[Call, Outcome]:
        held = {}
        with _readable():
            for row in self._rows(self._outcomes):
                usage = _usage(row)
                answer = self._read(row.answer)
                told = (row.cost, usage, row.confidence)
                call = Call(row.item, row.tier)
                held[call] = _sound(Outcome(answer, *told, cached=row.cached))
        return held

    def said(self) -> dict[str, Verdict]:
        said = {}
        with _readable():
            for row in self._rows(self._verdicts):
                calls = json.loads(row.calls)
                bought = [
                    (str(name), _sound(Outcome(None, cost, Usage(*usage))))
                    for name, cost, *usage in calls
                ]
                said[row.about] = Verdict(row.same, bought)
        return said

    def _rows(self, table: Table) -> Sequence[Any]:
        """Return what a table holds of the job."""
        import sqlalchemy

        wanted = sqlalchemy.select(table).where(table.c.job == self._job)
        with self._engine.connect() as connection:
            return connection.execute(wanted).all()

    def keep(self, call: Call, outcome: Outcome) -> None:
        try:
            answer = self._write(outcome.answer)
        except Exception as error:
            raise UnkeptAnswerError(_plain(error)) from error
        row = {
            "job": self._job,
            "item": call.item,
            "tier": call.tier,
            "answer": answer,
            "cost": outcome.cost,
            "confidence": outcome.confidence,
            "cached": outcome.cached,
            **{kind: getattr(outcome.usage, kind, None) for kind in _KINDS},
        }
        self._insert(self._outcomes, row)

    def keep_said(self, key: str, said: Verdict) -> None:
        calls = []
        for name, outcome in said.calls:
            usage = outcome.usage or Usage()
            calls.append((name, outcome.paid, *astuple(usage)))
        row = {"about": key, "same": said.same, "calls": json.dumps(calls)}
        self._insert(self._verdicts, {"job": self._job, **row})

    def _insert(self, table: Table, row: dict[str, Any]) -> None:
        """Add a row for good."""
        import sqlalchemy

        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(table.insert(), row)
        except sqlalchemy.exc.IntegrityError:
            return  # another process that works on the same job was first
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreError(f"the store cannot be written: {_plain(error)}") from error


class _SqlRow:
    """The state or the purse of one stream, in its row of a table."""

    def __init__(
        self, engine: Engine, table: Table, profile: Profile, what: str
    ) -> None:
        self._engine, self._table = engine, table
        self._profile, self._what = profile, what
        self._row = table.c.profile == profile.fingerprint
        self._begun = False

    @contextmanager
    def held(self, *, for_good: bool) -> Iterator[RowText]:
        import sqlalchemy

        begin = _BEGIN.get(self._engine.dialect.name, {}).get(for_good, ())
        news = None
        try:
            with self._engine.begin() as connection:
                for statement in begin:
                    connection.exec_driver_sql(statement)
                text = self._read(connection)
                if text is None:
                    news = self._begin(connection)
                    text = self._read(connection) or ""
                page = RowText(text)
                yield page
                if page.text != text:
                    changed = self._table.update().where(self._row)
                    connection.execute(changed.values({self._what: page.text}))
            self._begun = True  # not before: what was broken off is not there
        except (sqlalchemy.exc.SQLAlchemyError, UnicodeError) as error:
            raise StoreError(f"the store cannot be used: {_plain(error)}") from error
        if news:
            warnings.warn(news, stacklevel=4)

    def _read(self, connection: Connection) -> str | None:
        """Return what is kept, and keep others from changing it."""
        import sqlalchemy

        wanted = sqlalchemy.select(self._table.c[self._what]).where(self._row)
        found: str | None = connection.execute(wanted.with_for_update()).scalar()
        return found

    def _begin(self, connection: Connection) -> str | None:
        """Make the row, unless another process just did; say if that is news."""
        import sqlalchemy

        if self._begun:
            hint = "leave it there, or begin anew in another process"
            raise StoreError(f"a stream was removed from the store in use: {hint}")
        profile, table = self._profile, self._table
        same_task = (table.c.task == profile.task) & (table.c.mode == profile.mode)
        others = connection.execute(sqlalchemy.select(table.c.parts).where(same_task))
        try:
            changes = [profile.changes(json.loads(parts)) for (parts,) in others]
        except (AttributeError, ValueError, RecursionError) as error:
            hint = "it is damaged; use another one"
            raise StoreError(
                f"a profile in the store cannot be read: {hint}"
            ) from error
        row = {
            "profile": profile.fingerprint,
            "task": profile.task,
            "mode": profile.mode,
            "parts": json.dumps(dict(profile.parts)),
            "state": "",
            "purse": "",
        }
        try:
            with connection.begin_nested():
                connection.execute(table.insert(), row)
        except sqlalchemy.exc.IntegrityError:
            return None
        if not changes:
            return None
        return (
            f"the store knows task {profile.task!r}, but not with this "
            f"{min(changes, key=len)}: what was learned does not hold here, and its "
            "stream begins anew"
        )


def _streams() -> Table:
    """Return the table: one row per stream, what it is good for and how it stands."""
    import sqlalchemy as sql

    return sql.Table(
        f"smart_streams_{_FORMAT}",
        sql.MetaData(),
        sql.Column("profile", sql.String(64), primary_key=True),
        sql.Column("task", sql.Text, nullable=False),
        sql.Column("mode", sql.String(16), nullable=False),
        sql.Column("parts", sql.Text, nullable=False),
        sql.Column("state", sql.Text, nullable=False),
        sql.Column("purse", sql.Text, nullable=False),
    )


@contextmanager
def _readable() -> Iterator[None]:
    """Tell clearly of what cannot be read.

    Raises:
        StoreError: Whatever the reason is.
    """
    try:
        yield
    except Exception as error:
        hint = "it is damaged or was written by another version; use another one"
        problem = f"the store cannot be read ({_plain(error)}): {hint}"
        raise StoreError(problem) from error


def _sound(outcome: Outcome) -> Outcome:
    """Return an outcome if its figures can be booked.

    Raises:
        ValueError: If not.
    """
    check_outcome(outcome)
    if outcome.usage is not None and outcome.usage.problem is not None:
        raise ValueError(outcome.usage.problem)
    return outcome


def _verdicts() -> Table:
    """Return the table of verdicts: one row per verdict that was bought, no texts."""
    import sqlalchemy as sql

    return sql.Table(
        f"smart_verdicts_{_FORMAT}",
        sql.MetaData(),
        sql.Column("job", sql.String(64), primary_key=True),
        sql.Column("about", sql.String(64), primary_key=True),
        sql.Column("same", sql.Boolean, nullable=False),
        sql.Column("calls", sql.Text, nullable=False),
    )


def _outcomes() -> Table:
    """Return the table: one row per answer that was bought.

    Columns that may be empty may be missing in a table that an older version made.
    """
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
        sql.Column("confidence", number),
        sql.Column("cached", sql.Boolean, nullable=False),
        *(sql.Column(kind, number) for kind in _KINDS if kind != "estimated"),
        sql.Column("estimated", sql.Boolean),
    )


def _usage(row: Any) -> Usage | None:
    """Return the usage in a row of that table; an older version kept less of it."""
    if row.input_tokens is None:
        return None
    if row.output_tokens is None:
        raise ValueError("output tokens are missing")
    told = {kind: getattr(row, kind) for kind in _KINDS}
    return Usage(**{kind: part for kind, part in told.items() if part is not None})


def _absolute(place: str | os.PathLike[str]) -> str:
    """Return a place that means the same wherever the process goes."""
    if not isinstance(place, str | os.PathLike) or not str(place):
        raise InvalidInputError("store", place, _WAYS)
    return str(place) if "://" in str(place) else str(Path(place).absolute())


def _url(place: str) -> URL:
    """Return the URL of a place; what is wrong with it may show a password."""
    import sqlalchemy

    if "://" not in place:
        return sqlalchemy.URL.create("sqlite", database=place)
    try:
        url = sqlalchemy.make_url(place)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InvalidInputError("store", "…", f"this is no URL: {_WAYS}") from None
    if "@" in (url.host or ""):
        hint = "an @ in a name or a password is written %40"
        raise InvalidInputError("store", "…", hint)
    return url


def _refuse_memory(url: URL) -> None:
    """Raise where SQLite would keep nothing, and for each thread apart."""
    if url.get_backend_name() != "sqlite":
        return
    file = url.database or ":memory:"
    if file.endswith(":memory:") or url.query.get("mode") == "memory":
        hint = "what is in memory outlives nothing: name a file, or leave it out"
        raise InvalidInputError("store", file, hint)


def _make_private(
    dialect: Any, _: Any, arguments: list[Any], options: dict[str, Any]
) -> None:
    """Make a SQLite file readable by its owner alone; those beside it inherit that.

    Whatever connection is the first to find none: SQLite itself asks nobody.
    """
    file, mode = arguments[0], "rwc"
    if options.get("uri"):
        parts = urlsplit(file)
        file, mode = unquote(parts.path), dict(parse_qsl(parts.query)).get("mode", mode)
    if mode != "rwc":
        return
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise dialect.dbapi.OperationalError(error.strerror) from error


def _create(engine: Engine, table: Table) -> None:
    """Make a table if it is not there; another process may be faster."""
    import sqlalchemy

    try:
        table.create(engine, checkfirst=True)
    except sqlalchemy.exc.DBAPIError:
        if not sqlalchemy.inspect(engine).has_table(table.name):
            raise


def _complete(engine: Engine, table: Table) -> None:
    """Add the columns that an older version did not make; another may be faster."""
    import sqlalchemy

    def missing() -> set[str]:
        found = sqlalchemy.inspect(engine).get_columns(table.name)
        may_be_empty = {column.name for column in table.columns if column.nullable}
        return may_be_empty - {column["name"] for column in found}

    for name in sorted(missing()):
        kind = engine.dialect.type_compiler_instance.process(table.columns[name].type)
        change = f"ALTER TABLE {table.name} ADD {name} {kind}"
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(change)
        except sqlalchemy.exc.DBAPIError:
            if name in missing():
                raise


def _write_ahead(connection: Any, _: Any) -> None:
    """Let a SQLite file be read while it is written, and survive a kill."""
    for setting in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {setting}")


def _roll_back(context: Any) -> None:
    """Let an interrupt end a transaction, which a connection that is left would not.

    It comes when SQLite has ended what it was doing, so that the connection is sound.
    """
    if not isinstance(context.original_exception, Exception):
        context.is_disconnect = False


def _bounded_waits(connection: Any, _: Any) -> None:
    """Let nobody wait for ever for a process that stopped while it held a row."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '30s'")
        cursor.execute("SET idle_in_transaction_session_timeout = '20s'")
    connection.commit()


def _forget_in_children(engine: Engine) -> None:
    """Let forked children connect anew: two processes would talk over one line."""
    known = weakref.ref(engine)

    def forget() -> None:
        if (inherited := known()) is not None:
            inherited.dispose(close=False)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


_BEGIN: dict[str, dict[bool, tuple[str, ...]]] = {
    "sqlite": {  # whoever reads is going to write: nobody else may come between
        True: ("PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"),
        False: ("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE"),
    },
    "postgresql": {False: ("SET LOCAL synchronous_commit = off",)},
}
"""How a step begins, by kind of database and whether it must outlive a power cut."""

_PREPARE = {"sqlite": _write_ahead, "postgresql": _bounded_waits}
"""What is told each new connection, by kind of database."""


def _plain(error: BaseException) -> str:
    """Return what went wrong in one line: no statement, no parameters."""
    told = str(getattr(error, "orig", None) or error) or type(error).__name__
    return told.splitlines()[0]
