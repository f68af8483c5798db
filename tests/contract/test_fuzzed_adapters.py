"""What the adapters read, from options, tables and stores: a value or a clear error."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from fuzzing import DEEP, MANY, MINUTES, fuzz, spoilt
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from llama_index.core.llms import ChatMessage, ChatResponse

from langchain_smart.chains.store import ChainAnswers
from langchain_smart.chat.compare import read_answer, write_answer
from llama_index_smart.compare import read_response, write_response
from smart_engine import Call, Outcome, Usage
from smart_engine.cli.job import read_price
from smart_engine.cli.tables import read_table
from smart_engine.store.store import Store

pytestmark = [MANY, MINUTES]

CALL = {"name": "f", "args": {"a": [1, None]}, "id": "1", "type": "tool_call"}
USED = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
CHAINS = ChainAnswers(dict)
KINDS = {
    "chat models": (
        AIMessage(
            [{"type": "text", "text": "yes"}], tool_calls=[CALL], usage_metadata=USED
        ),
        write_answer,
        read_answer,
    ),
    "LLMs": (
        ChatResponse(message=ChatMessage("yes"), additional_kwargs={"a": 1}),
        write_response,
        read_response,
    ),
    "chains": ({"found": [AIMessage("yes"), 1]}, CHAINS.write, CHAINS.read),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers(inputs, kind, tmp_path):
    good, write, read_text = KINDS[kind]
    store = Store(tmp_path / "answers.db")
    answers = store.answers("a job", write, read_text)
    answers.save_outcome(Call(0, "big"), Outcome(good, 0.5, Usage(3, 1)))
    text = write(good)
    tag = text[: text.index("{")]
    whole = spoilt(json.loads(text[len(tag) :])) | st.just(DEEP.encode())
    with closing(
        sqlite3.connect(tmp_path / "answers.db", isolation_level=None)
    ) as file:

        def read(data):
            told = tag + data.decode("utf-8", "replace")
            change = "update smart_outcomes_1 set answer = ?, checksum = null"
            file.execute(change, (told,))
            (outcome,) = answers.load_outcomes().values()
            assert kind == "chains" or type(outcome.answer) is type(good)

        fuzz(inputs, whole, read)
    store.close()


def test_prices_by_option(inputs):
    number = st.integers(0, 99).map(str) | st.floats().map(str)
    number |= st.sampled_from(["", "nan", "-0", "1e999", "1_0", "0x1", " 1", "٣"])
    parts = st.sampled_from(["big", "a=b", "=", ",", "free", ":", "big:1", "\ud800"])
    texts = st.lists(parts | number | st.just("="), max_size=6).map("".join)
    usual = st.builds("{}={},{}".format, parts, number, number)

    def read(text):
        _, price = read_price(text)
        assert price.most(1000, 10) >= 0

    fuzz(inputs, st.one_of(usual, texts, st.text(max_size=12)), read)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables(inputs, suffix, tmp_path):
    path = tmp_path / f"mails{suffix}"
    if suffix == ".jsonl":
        row = b'{"mail": "win", "n": 1}\n'
        files = spoilt({"mail": "win", "n": [1, {"a": None}]}).map(row.__add__)
    else:
        cell = st.sampled_from(
            ["a", "mail", '"', '""', "\n", "\r", ",", "\t", "\0", "é"]
        )
        files = st.lists(cell | st.text(max_size=3), max_size=12).map("".join)
        files = files.map(lambda text: text.encode("utf-8", "surrogatepass"))
        files |= st.binary(max_size=12)

    def read(data):
        path.write_bytes(data)
        table = read_table(path)
        assert table.where(0).endswith(str(table.lines[0]))

    fuzz(inputs, files, read)
