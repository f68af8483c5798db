"""`progress=True`: each adapter's batch shows a bar that ends as its report does."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from langchain_core.output_parsers import StrOutputParser
from llama_index.core.llms import CompletionResponse, CustomLLM
from llama_index.core.llms import LLMMetadata as Metadata
from tqdm.auto import tqdm

from langchain_smart import Price, RecordedChatModel, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine import Trace
from smart_engine.amounts import usd
from smart_engine.offline.traces import Row

ITEMS = [f"item {number:03d}" for number in range(80)]
PRICES = {"big": Price(1000, 3000), "small": Price(10, 40)}


def answer(name: str, item: str) -> str:
    return "other" if name == "small" and int(item[5:]) % 50 == 7 else "same"


def chat(**settings):
    rows = [
        Row(
            input=item,
            answers={name: answer(name, item) for name in PRICES},
            tokens=dict.fromkeys(PRICES, (20, 1)),
        )
        for item in ITEMS
    ]
    trace = Trace(rows, "big", ["small"], PRICES)
    big, small = (RecordedChatModel(trace=trace, model=name) for name in PRICES)
    told = {"max_disagreement": 0.2, "prices": PRICES, **settings}
    return SmartChatModel(reference=big, candidates=[small], **told)


def chain(**settings):
    members = chat()
    settings.pop("interrupted", None)
    return SmartRunnable(
        reference={"big chain": members.reference | StrOutputParser()},
        candidates={"small chain": members.candidates[0] | StrOutputParser()},
        max_disagreement=0.2,
        prices=PRICES,
        **settings,
    )


class Llama(CustomLLM):
    name: str
    interrupts_at: int = -1
    asked: int = 0

    @property
    def metadata(self):
        return Metadata(model_name=self.name)

    def complete(self, prompt, formatted=False, **kwargs):
        self.asked += 1
        if self.asked == self.interrupts_at:
            os.kill(os.getpid(), signal.SIGINT)
        used = {"prompt_tokens": 20, "completion_tokens": 1}
        return CompletionResponse(
            text=answer(self.name, prompt), additional_kwargs=used
        )

    async def acomplete(self, prompt, formatted=False, **kwargs):
        return self.complete(prompt)

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def llama(interrupts_at=-1, **settings):
    big = Llama(name="big", interrupts_at=interrupts_at)
    told = {"max_disagreement": 0.2, "prices": PRICES, **settings}
    return SmartLLM(reference=big, candidates=[Llama(name="small")], **told)


async def _completed(smart):
    return [pair async for pair in smart.abatch_as_completed(ITEMS)]


WAYS = {
    "batch": (chat, lambda smart: smart.batch(ITEMS)),
    "abatch": (chat, lambda smart: asyncio.run(smart.abatch(ITEMS))),
    "batch_as_completed": (chat, lambda smart: list(smart.batch_as_completed(ITEMS))),
    "abatch_as_completed": (chat, lambda smart: asyncio.run(_completed(smart))),
    "chain.batch": (chain, lambda smart: smart.batch(ITEMS)),
    "chain.abatch": (chain, lambda smart: asyncio.run(smart.abatch(ITEMS))),
    "complete_batch": (llama, lambda smart: smart.complete_batch(ITEMS)),
    "acomplete_batch": (llama, lambda smart: asyncio.run(smart.acomplete_batch(ITEMS))),
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def last_shown(capsys) -> str:
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    return shown.splitlines()[-1].split("\r")[-1]


@pytest.mark.parametrize(("make", "run"), WAYS.values(), ids=WAYS)
def test_the_bar_ends_as_the_report_does(make, run, capsys):
    smart = make(progress=True, task="items")
    assert len(run(smart)) == len(ITEMS)
    line, report = last_shown(capsys), smart.report()
    assert "| 80/80 [" in line
    assert f"spent {usd(report.cost)} USD, saved {usd(report.saved)} USD" in line
    assert "differ <= 16/16]" in line
    assert report.saved > 0


@pytest.mark.parametrize("make", [chat, chain, llama], ids=lambda make: make.__name__)
def test_it_is_off_unless_asked_for(make, capsys):
    smart = make()
    _ = smart.complete_batch(ITEMS) if make is llama else smart.batch(ITEMS)
    assert capsys.readouterr() == ("", "")


def test_each_task_has_a_bar(capsys):
    smart = chat(progress=True)
    configs = [{"metadata": {"smart_task": f"task {n % 2}"}} for n in range(80)]
    smart.batch(ITEMS, configs)
    shown = capsys.readouterr().err
    assert "task 0, done: 100%" in shown
    assert "task 1, done: 100%" in shown


def test_an_interrupt_closes_the_bar(capsys):
    smart = llama(progress=True, interrupts_at=12)
    with pytest.raises(KeyboardInterrupt):
        smart.complete_batch(ITEMS, max_concurrency=2)
    assert f"spent {usd(smart.report().cost)} USD" in last_shown(capsys)
    assert not list(getattr(tqdm, "_instances", ()))


def test_no_task_controls_the_terminal(capsys):
    smart = chat(progress=True, task="\x1b[2Jmails\0")
    smart.batch(ITEMS)
    shown = capsys.readouterr().err
    assert "\\x1b[2Jmails\\x00, " in shown
    assert "\x1b[2J" not in shown
    assert "\0" not in shown
