"""A store opens the place that was named, or says what is wrong with its name."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy

from smart_engine import Call, InvalidInputError, Outcome, Store
from smart_engine.errors import UnkeptAnswerError
from smart_engine.store.store import read_bought

SECRET = "hush"  # noqa: S105 - it opens nothing


def answers(store):
    return store.answers("a job", write=str, read=str)


def test_who_only_reads_creates_nothing(place):
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"no store|unable to open"):
            read_bought(place)
    store = Store(place)
    answers(store).save_outcome(Call(0, "big"), Outcome("yes", 0.01))
    assert read_bought(place) == (str(store), store.bought())
    store.close()


NAMES = ["a?b.db", "a%20b.db", "a#b.db", "a@b.db", "é.db", "a?mode=memory&b.db"]


@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_is_taken_as_it_is(tmp_path, name):
    file = tmp_path / name
    store = Store(file)
    answers(store).save_outcome(Call(0, "big"), Outcome("yes", 0.01))
    assert str(store) == f"sqlite:///{file}"
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - ours
    assert answers(again).load_outcomes()[Call(0, "big")].answer == "yes"
    beside = {f"{name}{end}" for end in ("", "-wal", "-shm")}
    assert {path.name for path in tmp_path.iterdir()} == beside


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_others_can_read_is_made_private(tmp_path, kind):
    folder, link = tmp_path / "files", tmp_path / "link.db"
    folder.mkdir()
    link.symlink_to(folder / "a.db")
    Store(folder / "a.db").close()
    (folder / "a.db").chmod(0o644)
    with closing(sqlite3.connect(folder / "a.db")) as other:  # has files beside it
        other.execute("select count(*) from smart_jobs_1")
        assert modes(folder) == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o644)
        store = Store(folder / "a.db" if kind == "file" else link)
        answers(store).save_outcome(Call(0, "big"), Outcome("yes", 0.01))
        assert modes(folder) == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o600)
        assert read_bought(link)[1] == store.bought()
        store.close()


def test_what_cannot_be_made_private_is_refused(tmp_path, monkeypatch):
    Store(tmp_path / "a.db").close()
    (tmp_path / "a.db").chmod(0o640)

    def chmod(*_):  # as where another user owns the file
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.chmod", chmod)
    with pytest.raises(InvalidInputError, match="only its owner can change that"):
        Store(tmp_path / "a.db")


def test_a_file_that_is_no_store_stays_as_it_is(tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader, this is no database. " * 50)
    letter.chmod(0o644)
    with pytest.raises(InvalidInputError, match="not a database"):
        Store(letter)
    assert modes(tmp_path) == {"letter.txt": 0o644}


WRONG = [
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:port/none",
    f"postgresql+psycopg://me:x@{SECRET}@127.0.0.1:1/none",
    f"postgresql+psycopg://[::1/{SECRET}",
    "://",
    "sqlite:///a.db?timeout=soon",
    "sqlite:///a\0b.db",
    "a\0b.db",
    "a\ud800b.db",
]


@pytest.mark.parametrize("place", WRONG)
def test_what_is_no_place_is_told_without_a_password(place):
    with pytest.raises(InvalidInputError, match="store") as caught:
        Store(place)
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "place",
    [
        "sqlite://",
        ":memory:",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_what_is_in_memory_is_no_store(place):
    with pytest.raises(InvalidInputError, match="outlives nothing"):
        Store(place)


FORK = """
import os, sys
from smart_engine import Call, Outcome, Store

answers = Store(sys.argv[1]).answers("a job", write=str, read=str)
answers.save_outcome(Call(0, "big"), Outcome("yes", 0.01))
children = []
for child in (1, 2):
    children.append(os.fork())
    if not children[-1]:
        for item in range(20):
            answers.save_outcome(Call(100 * child + item, "big"), Outcome("yes", 0.01))
            assert len(answers.load_outcomes()) > item
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert len(answers.load_outcomes()) == 41
"""


def test_forked_children_have_connections_of_their_own(stores):
    told = subprocess.run(
        [sys.executable, "-c", FORK, stores("postgres")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr


def test_a_connection_that_was_dropped_meanwhile_is_made_anew(stores):
    place = stores("postgres")
    store = Store(place)
    answers(store).save_outcome(Call(0, "big"), Outcome("yes", 0.01))
    other = sqlalchemy.create_engine(place)
    with other.connect() as connection:
        connection.exec_driver_sql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    other.dispose()
    assert len(answers(store).load_outcomes()) == 1
    store.close()


def test_an_answer_that_cannot_be_written_is_told_as_that(tmp_path):
    def write(answer):
        raise TypeError("" if answer is None else f"no text for {answer}")

    kept = Store(tmp_path / "answers.db").answers("a job", write=write, read=str)
    with pytest.raises(UnkeptAnswerError, match="no text for 7"):
        kept.save_outcome(Call(0, "big"), Outcome(7, 0.01))
    with pytest.raises(UnkeptAnswerError, match="TypeError"):
        kept.save_outcome(Call(0, "big"), Outcome(None, 0.01))
    assert not kept.load_outcomes()
