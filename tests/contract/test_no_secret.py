"""No key shows in what jobs leave behind, whatever goes wrong."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import stat
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import EVERY, TERMS, answer
from langchain_core.load import dumps
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.llms.openai_like import OpenAILike
from loopback import serve

import langchain_smart
import llama_index_smart
import smart_engine
from langchain_smart import ChatJudge, Price, SmartChatModel
from langchain_smart.chains.store import _MADE, ChainAnswers
from llama_index_smart import SmartLLM
from smart_engine.equivalence import Normalized, Similar, as_equivalence
from smart_engine.errors import InvalidInputError, StoreError
from smart_engine.store.store import Store

PACKAGES = (smart_engine, langchain_smart, llama_index_smart)
SECRET = "hush-5f3a"  # noqa: S105 - it opens nothing
"""Part of every key and password below."""

FAULTS = [fault for fault in EVERY if fault not in ("silent", "stalled")]
ITEMS = [
    f"item {n:03d} | {who} | {fault}"
    for n, (fault, who) in enumerate(
        (fault, who) for fault in FAULTS for who in ("big", "small")
    )
]
HEADERS = {"x-api-key": f"{SECRET}-in-a-header"}


class Runs(BaseTracer):
    """Keeps every run as a tracer would send it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def _persist_run(self, run: Any) -> None:
        self.told.append(run.model_dump_json(fallback=repr))


def chat_model(name: str, url: str) -> ChatOpenAI:
    at = {"base_url": url, "default_headers": HEADERS}
    return ChatOpenAI(model=name, api_key=f"{SECRET}-key", max_retries=0, **at)


def llm(name: str, url: str) -> OpenAILike:
    at = {"api_base": url, "default_headers": HEADERS, "is_chat_model": True}
    return OpenAILike(model=name, api_key=f"{SECRET}-key", max_retries=0, **at)


def smart_at(adapter: str, url: str, **settings: Any) -> Any:
    """Return a smart model whose members have keys wherever one can be."""
    kind, member = {
        "LangChain": (SmartChatModel, chat_model),
        "LlamaIndex": (SmartLLM, llm),
    }[adapter]
    url = url.replace("://", f"://someone:{SECRET}-in-the-url@")
    big, small = member("big", url), member("small", url)
    members: dict[str, Any] = {"reference": big, "candidates": [small]}
    if adapter == "LangChain":
        members["callbacks"] = [Runs()]
    return kind(**{**members, **TERMS, **settings})


async def results(smart: Any, mode: str) -> list[Any]:
    """Return what a batch and single items bring, errors included."""
    llama = isinstance(smart, SmartLLM)
    batch, single = ("complete_batch", "complete") if llama else ("batch", "invoke")
    if mode == "async":
        found = await getattr(smart, f"a{batch}")(ITEMS, return_exceptions=True)
        asks = [getattr(smart, f"a{single}")(item) for item in ITEMS[::3]]
        return found + [
            (await asyncio.gather(ask, return_exceptions=True))[0] for ask in asks
        ]
    found = getattr(smart, batch)(ITEMS, return_exceptions=True)
    for item in ITEMS[::3]:
        try:
            found.append(getattr(smart, single)(item))
        except Exception as error:  # noqa: BLE001 - it is looked at
            found.append(error)
    return found


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that led to it."""
    while error is not None:
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def told_by(error: BaseException) -> Iterator[str]:
    """Yield all that an error says."""
    yield from traceback.format_exception(error)
    for each in chained(error):
        yield str(each) + repr(each) + repr(each.args)
        yield from getattr(each, "__notes__", ())


def left_behind(smart: Any, found: list[Any]) -> Iterator[str]:
    """Yield all that a job can be seen by, as texts."""
    report = smart.report()
    yield from (repr(smart), str(smart), str(report), repr(report))
    yield report.model_dump_json()
    for certificate in report.certificates:
        yield certificate.model_dump_json() + repr(certificate) + certificate.claim
    yield from (state.model_dump_json() for state in report.streams)
    if isinstance(smart, SmartLLM):
        yield json.dumps(smart.to_dict(), default=repr) + smart.to_json()
        yield json.dumps(smart.to_payload(), default=repr)
    else:
        yield json.dumps(smart._identifying_params, default=repr) + dumps(smart)
        assert len(smart.callbacks[0].told) == len(found)
        yield from smart.callbacks[0].told
    for each in found:
        if isinstance(each, BaseException):
            yield from told_by(each)
        else:
            yield repr(each) + each.model_dump_json(fallback=repr)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a database whose URL has a password where there can be one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/answers.db"
    uri = request.getfixturevalue("postgres")
    at = uri.index("@")
    user = uri[:at].removeprefix("postgresql://").split(":")[0]
    return f"postgresql+psycopg://{user}:{SECRET}-of-the-store{uri[at:]}"


@pytest.mark.parametrize(
    ("adapter", "mode", "place"),
    [
        pytest.param("LangChain", "sync", "sqlite", marks=pytest.mark.slow),
        ("LangChain", "async", "sqlite"),
        pytest.param("LangChain", "sync", "postgres", marks=pytest.mark.slow),
        ("LlamaIndex", "sync", "sqlite"),
        pytest.param("LlamaIndex", "async", "sqlite", marks=pytest.mark.slow),
        pytest.param("LlamaIndex", "async", "postgres", marks=pytest.mark.slow),
    ],
    indirect=["place"],
)
async def test_no_job_leaves_a_key_behind(adapter, mode, place, tmp_path, caplog):
    for package in PACKAGES:
        caplog.set_level(logging.DEBUG, package.__name__)
    with (
        serve(answer) as server,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        smart = smart_at(adapter, server.url, store=place)
        if mode == "sync":
            found = await asyncio.to_thread(asyncio.run, results(smart, mode))
        else:
            found = await results(smart, mode)
    assert len(found) == len(ITEMS) + len(ITEMS[::3])
    failed = [each for each in found if isinstance(each, BaseException)]
    assert len(failed) > len(FAULTS) / 3
    shown = [*left_behind(smart, found), repr(smart.store) + str(smart.store)]
    shown += [str(each.message) for each in warned]
    names = tuple(package.__name__ for package in PACKAGES)
    shown += [record.getMessage() for record in caplog.records if record.name in names]
    assert len(warned) > 0
    assert not [text for text in shown if SECRET in text]
    if place.startswith("sqlite"):
        files = sorted(tmp_path.iterdir())
        assert {f.name for f in files} >= {"answers.db", "answers.db-wal"}
        for file in files:
            kept = file.read_bytes()
            assert SECRET.encode() not in kept
            assert not [item for item in ITEMS if item.encode() in kept]
    else:
        with smart.store._engine.connect() as connection:
            rows = connection.exec_driver_sql("select * from smart_outcomes_1").all()
        assert rows
        assert SECRET not in repr(rows)
    smart.store.close()


@pytest.mark.parametrize("adapter", ["LangChain", "LlamaIndex"])
@pytest.mark.parametrize(
    "change",
    [
        {"store": f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/none"},
        {"store": f"sqlite:////no/such/folder/{SECRET[:4]}.db?password={SECRET}"},
        {"store": f"no-such-database://me:{SECRET}@127.0.0.1/none"},
        {"prices": {}},
        {"confidence": 95},
        {"budget_usd": -1},
        {"candidates": "not a model"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_be_used_is_named_without_a_key(adapter, change):
    with pytest.raises(InvalidInputError) as caught:
        smart_at(adapter, "http://127.0.0.1:9/v1", **change)
    assert not [text for text in told_by(caught.value) if SECRET in text]
    assert SECRET not in repr(caught.value.value)


def test_a_rule_that_asks_a_model_does_not_show_what_it_shows():
    judge = chat_model("judge", f"http://me:{SECRET}@127.0.0.1:9/v1")
    embeddings = OpenAIEmbeddings(api_key="none", default_headers=HEADERS)
    similar = Similar(embeddings.embed_query, threshold=0.8, price=Price.free())
    for rule in (ChatJudge(judge, price=Price.free()), similar, embeddings.embed_query):
        for put in (rule, Normalized() | as_equivalence(rule)):
            smart = smart_at("LangChain", "http://127.0.0.1:9/v1", equivalence=put)
            shown = repr(smart) + dumps(smart) + smart._serving.rule.name
            assert SECRET not in shown


FORMS = ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///file:{}?uri=true"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("removed", [False, True])
def test_a_store_is_its_owners_alone_however_it_is_named(form, removed, tmp_path):
    before = os.umask(0)
    try:
        store = Store(form.format(tmp_path / "answers.db"))
        if removed:
            store.close()
            (tmp_path / "answers.db").unlink()
            with pytest.raises(StoreError, match="no such table"):
                store.bought()
            store = Store(form.format(tmp_path / "answers.db"))
        answers = store.answers("a job", write=str, read=str)
        answers.save_outcome(
            smart_engine.Call(0, "big"), smart_engine.Outcome("yes", 0.01)
        )
    finally:
        os.umask(before)
    files = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()
    }
    assert set(files) == {"answers.db", "answers.db-wal", "answers.db-shm"}
    assert set(files.values()) == {0o600}
    store.close()


def test_an_answer_of_a_chain_makes_messages_and_documents_alone(monkeypatch):
    monkeypatch.setenv("HUSH", SECRET)
    assert {kind.__module__.split(".")[0] for kind in _MADE} == {"langchain_core"}
    answers = ChainAnswers(dict)
    secret = {"lc": 1, "type": "secret", "id": ["HUSH"]}
    assert SECRET not in repr(answers.read(f"answer:{json.dumps(secret)}"))
    assert answers.read(answers.write({"said": secret})) == {"said": secret}
    made = {"lc": 1, "type": "constructor", "kwargs": {"args": "true"}}
    for name in (["subprocess", "Popen"], ["langchain_openai", "ChatOpenAI"]):
        with pytest.raises(ValueError, match="not allowed"):
            answers.read(f"answer:{json.dumps({**made, 'id': name})}")


def test_nothing_that_is_read_is_run():
    """No input is evaluated, unpickled, or loaded as code, anywhere."""
    forbidden = {"eval", "exec", "compile", "__import__", "load", "loads", "Unpickler"}
    harmless = {"json.loads", "json.load", "re.compile"}
    files = [
        path
        for package in PACKAGES
        for path in Path(package.__file__).parent.rglob("*")
    ]
    sources = [path for path in files if path.suffix == ".py"]
    assert len(sources) > 80
    found = []
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "loads" and "allowed_objects=_MADE" in ast.unparse(node):
                    continue  # LangChain's, of messages and documents alone
                if any(told.arg == "allowed_objects" for told in node.keywords):
                    continue  # core's own, told which classes it may make
                if called.split(".")[-1] in forbidden and called not in harmless:
                    found.append(f"{path.name}: {called}")
    assert not found
