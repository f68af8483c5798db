"""What each kind of database needs: SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import sqlalchemy as sql

from smart_engine.errors import InvalidInputError
from smart_engine.store.forks import fork_safely

__all__ = ["begin", "open_engine", "reason", "refuse_memory", "shown"]

_PRIVATE = 0o600
"""Permissions of a SQLite file: no one but its owner reads it."""


def open_engine(url: sql.URL, *, read_only: bool = False) -> sql.Engine:
    """Return an engine whose connections are set up as the kind of database needs."""
    engine = sql.create_engine(url, pool_pre_ping=True)
    listeners = _READING if read_only else _LISTENERS
    for event, listener in listeners.get(engine.dialect.name, {}).items():
        sql.event.listen(engine, event, listener)
    fork_safely(engine)
    return engine


def begin(connection: sql.Connection, *, durable: bool) -> None:
    """Begin a transaction that reads and then writes, and may outlive a power cut."""
    for statement in _BEGIN.get(connection.dialect.name, {}).get(durable, ()):
        connection.exec_driver_sql(statement)


def reason(error: BaseException) -> str:
    """Return what went wrong in one line: no statement, no parameters."""
    if isinstance(error, sql.exc.NoSuchTableError):
        return f"this is no store, for there is no such table: {error}"
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    return text.splitlines()[0]


def shown(url: sql.URL) -> str:
    """Return a place without a password, nor options, which may hold one."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database or ''}"
    return url.set(query={}).render_as_string(hide_password=True)


def refuse_memory(url: sql.URL) -> None:
    """Raise where SQLite would keep nothing, and each thread apart."""
    file = url.database or ":memory:"
    in_memory = file.endswith(":memory:") or url.query.get("mode") == "memory"
    if in_memory and url.get_backend_name() == "sqlite":
        hint = "what is in memory outlives nothing: name a file, or leave it out"
        raise InvalidInputError("store", file, hint)


def _create_private(
    dialect: Any, _: Any, arguments: list[Any], options: dict[str, Any]
) -> None:
    """Create a missing SQLite file so that its owner alone reads it.

    Before every connection: SQLite itself creates a missing file without asking.
    """
    file, mode = _file(arguments, options)
    if mode != "rwc":
        return
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, _PRIVATE))
    except OSError as error:
        raise dialect.dbapi.OperationalError(error.strerror) from error


def _read_only(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    """Open a SQLite file for reading, and leave no file beside it.

    Where no process has it open, as is seen by the log, SQLite need make none.
    """
    file, _ = _file(arguments, options)
    unused = "" if Path(f"{file}-wal").exists() else "&immutable=1"
    arguments[0] = f"file:{quote(file)}?mode=ro{unused}"
    options["uri"] = True


def _file(arguments: list[Any], options: dict[str, Any]) -> tuple[str, str]:
    """Return the file that SQLite is to open, and how."""
    file, mode = arguments[0], "rwc"
    if options.get("uri"):
        parts = urlsplit(file)
        file, mode = unquote(parts.path), dict(parse_qsl(parts.query)).get("mode", mode)
    return os.path.realpath(file), mode  # what SQLite puts its own files beside


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    """Let a SQLite file be read while it is written, survive a kill, and be private."""
    # A cell that was damaged must not make the others unreadable.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    for setting in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {setting}")
    ((_, _, file), *_) = connection.execute("PRAGMA database_list")
    for path in (Path(file), Path(f"{file}-wal"), Path(f"{file}-shm")):
        try:
            if stat.S_IMODE(path.stat().st_mode) & ~_PRIVATE:
                path.chmod(_PRIVATE)
        except FileNotFoundError:
            continue  # SQLite will create it with the permissions of the first
        except OSError as error:
            hint = "others can read it, and only its owner can change that"
            raise sqlite3.OperationalError(f"{error.strerror}: {hint}") from error


def _roll_back(context: Any) -> None:
    """Let an interrupt end a transaction, which an abandoned connection would not.

    It comes when SQLite has ended what it was doing, so the connection is still usable.
    """
    if not isinstance(context.original_exception, Exception):
        context.is_disconnect = False


def _bound_waits(connection: Any, _: Any) -> None:
    """Wait only so long for a process that stopped while it held a row."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '30s'")
        cursor.execute("SET idle_in_transaction_session_timeout = '20s'")
    connection.commit()


def _begin_read_only(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    connection.commit()


_LISTENERS: dict[str, dict[str, Callable[..., None]]] = {
    "sqlite": {
        "do_connect": _create_private,
        "connect": _prepare,
        "handle_error": _roll_back,
    },
    "postgresql": {"connect": _bound_waits},
}

_READING: dict[str, dict[str, Callable[..., None]]] = {
    "sqlite": {"do_connect": _read_only},
    "postgresql": {"connect": _begin_read_only},
}

_BEGIN: dict[str, dict[bool, tuple[str, ...]]] = {
    "sqlite": {  # IMMEDIATE: no other writer between our read and our write
        True: ("PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"),
        False: ("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE"),
    },
    "postgresql": {False: ("SET LOCAL synchronous_commit = off",)},
}
"""Statements that begin a transaction, by kind of database and durability."""
