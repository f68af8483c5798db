"""`Store`: a database in which bought answers and streams outlive the process.

It holds the answers of batches and what streams share, never what was asked: a job is
known by a hash, and so is what a verdict is about; a stream by the names and hashes of
its profile. SQLAlchemy is imported when a store is opened, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smart_engine.errors import InvalidInputError, MissingExtraError, StoreError
from smart_engine.money.spending import Spend
from smart_engine.row import StreamRow
from smart_engine.serving.profile import Profile
from smart_engine.serving.resume import AnswerStore
from smart_engine.serving.submissions import Submission, SubmissionStore
from smart_engine.serving.task_profile import TaskProfile, read_profile

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

__all__ = ["Store", "as_store", "read_bought", "read_profiles"]

_WAYS = "give a file, or a SQLAlchemy URL such as postgresql+psycopg://…"


class Store:
    """A database of bought answers and of streams.

    Batches that were cut off go on where they were. Streams go on, too, and several
    processes, on several machines if the database is a server, may work on one.

    Args:
        place: A file, which is created if it is missing, readable by its owner alone;
            or a SQLAlchemy URL, such as `postgresql+psycopg://…`.

    Raises:
        InvalidInputError: If the place cannot be used.
        MissingExtraError: If SQLAlchemy is not installed.

    Example:
        ```python
        import tempfile

        from smart_engine import Call, Outcome

        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"{folder}/answers.db")
            answers = store.answers("a job", write=str, read=str)
            answers.save_outcome(Call(0, "big"), Outcome("yes", 0.01))
            again = Store(f"{folder}/answers.db").answers("a job", write=str, read=str)
            assert again.load_outcomes()[Call(0, "big")].answer == "yes"
            store.close()
        ```
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._place = _absolute(place)
        self._url = _url(self._place)
        with _usable(self._url):
            # All of it now: a child that is forked during an import would hang in it.
            from smart_engine.store.answers import SqlAnswers
            from smart_engine.store.dialects import open_engine
            from smart_engine.store.schema import create_tables
            from smart_engine.store.streams import SqlRow
            from smart_engine.store.submissions import SqlSubmissions

            self._new_answers, self._new_row = SqlAnswers, SqlRow
            self._new_submissions = SqlSubmissions
            self._engine = open_engine(self._url)
            create_tables(self._engine)

    def answers(
        self, job: str, write: Callable[[Any], str], read: Callable[[str], Any]
    ) -> AnswerStore:
        """Return the answers and verdicts of one job.

        Args:
            job: Hash of all that the job's result depends on.
            write: Turns an answer into text.
            read: Turns such a text into the answer again.
        """
        return self._new_answers(self._engine, job, write, read)

    def submissions(self, job: str | None = None) -> SubmissionStore:
        """Return the batches that a job submitted to providers; or those of all jobs.

        Args:
            job: Hash of all that the job's result depends on.
        """
        return self._new_submissions(self._engine, job)

    def forget_submission(self, name: str) -> None:
        """Remember a batch no longer: its job, started again, buys it anew.

        Args:
            name: Our name of it.

        Raises:
            StoreError: If the store cannot be written.
        """
        self._new_submissions(self._engine, None).forget(name)

    def row(self, profile: Profile, column: Literal["state", "budget"]) -> StreamRow:
        """Return the state or the budget of a profile's stream.

        Args:
            profile: What the stream's guarantee applies to. If the store has streams of
                its task, but none of this profile, the first step begins one and warns
                what is different.
            column: Which of the two.
        """
        return self._new_row(self._engine, profile, column)

    def bought(self) -> dict[str, dict[str, Spend]]:
        """Return what is stored: job → model → what its answers had cost.

        Raises:
            StoreError: If it cannot be read.
        """
        import sqlalchemy

        from smart_engine.store.answers import bought
        from smart_engine.store.dialects import reason

        try:
            return bought(self._engine)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreError(f"the store cannot be read: {reason(error)}") from error

    def close(self) -> None:
        """Close all connections; the store may be used again."""
        self._engine.dispose()

    def __str__(self) -> str:
        """Show the place, without a password, nor options, which may hold one."""
        from smart_engine.store.dialects import shown

        return shown(self._url)

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


def read_bought(
    place: str | os.PathLike[str],
) -> tuple[str, dict[str, dict[str, Spend]]]:
    """Return a place, as a store shows it, and what is stored there.

    It changes nothing there, whatever is there; see `Store.bought`.

    Raises:
        InvalidInputError: If no store is there.
        MissingExtraError: If SQLAlchemy is not installed.
    """
    with _reading(place) as engine:
        from smart_engine.store.answers import bought
        from smart_engine.store.dialects import shown

        return shown(engine.url), bought(engine)


def read_profiles(place: str | os.PathLike[str]) -> list[TaskProfile]:
    """Return what is known of each task in a place; it changes nothing there.

    Raises:
        InvalidInputError: If no store is there.
        MissingExtraError: If SQLAlchemy is not installed.
        StoreError: If it cannot be read.
    """
    with _reading(place) as engine:
        from smart_engine.store.streams import read_streams

        rows = read_streams(engine)
    return [read_profile(*row) for row in rows]


def read_submissions(place: str | os.PathLike[str]) -> Sequence[Submission]:
    """Return the batches that the jobs of a store have submitted, the oldest first.

    It changes nothing there, whatever is there.

    Raises:
        InvalidInputError: If no store is there.
        MissingExtraError: If SQLAlchemy is not installed.
        StoreError: If it cannot be read.
    """
    with _reading(place) as engine:
        from smart_engine.store.submissions import SqlSubmissions

        return SqlSubmissions(engine, None).saved()


@contextmanager
def _reading(place: str | os.PathLike[str]) -> Iterator[Engine]:
    """Open a place to read what is there, and change nothing.

    Raises:
        InvalidInputError: If no store is there.
        MissingExtraError: If SQLAlchemy is not installed.
    """
    url = _url(_absolute(place))
    with _usable(url):
        from smart_engine.store.dialects import open_engine

        engine = open_engine(url, read_only=True)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def _usable(url: URL) -> Iterator[None]:
    """Say clearly why a place cannot be used."""
    import sqlalchemy

    from smart_engine.store.dialects import reason, refuse_memory, shown

    refuse_memory(url)
    try:
        yield
    except (
        sqlalchemy.exc.SQLAlchemyError,
        ModuleNotFoundError,
        ValueError,  # such as an option that is no number, or a damaged name
    ) as error:
        raise InvalidInputError("store", shown(url), reason(error)) from error


def _absolute(place: str | os.PathLike[str]) -> str:
    """Return a place that means the same wherever the process goes."""
    if not isinstance(place, str | os.PathLike) or not str(place):
        raise InvalidInputError("store", place, _WAYS)
    return str(place) if "://" in str(place) else str(Path(place).absolute())


def _url(place: str) -> URL:
    """Return the URL of a place; errors do not show it: it may hold a password."""
    try:
        import sqlalchemy
    except ModuleNotFoundError as error:
        raise MissingExtraError("store", "a store") from error

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
