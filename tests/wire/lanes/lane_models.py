"""Smart models whose batches go to a batch server of ours, and what their bill is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from batch_loopback import BatchServer
from langchain_openai import ChatOpenAI

from langchain_smart import Price, SmartChatModel

PRICES = {
    "big": Price(10, 30, batch=Price(5, 15)),
    "small": Price(0.1, 0.4, batch=Price(0.05, 0.2)),
}
ITEMS = [f"item {n}" for n in range(60)]


def member(server: BatchServer, name: str, **settings: Any) -> ChatOpenAI:
    where = {"base_url": server.url, "api_key": "none", "timeout": 20}
    return ChatOpenAI(model=name, **{**where, **settings})


def smart_at(server: BatchServer, own: Any = None, **settings: Any) -> SmartChatModel:
    """Return a smart model; `own` are settings of its members."""
    big, small = (member(server, name, **(own or {})) for name in PRICES)
    terms = {"max_disagreement": 0.2, "seed": 5, "lane": "batch", "prices": PRICES}
    terms |= {"max_rounds": 6}
    return SmartChatModel(reference=big, candidates=[small], **{**terms, **settings})


def agreeing(model: str, text: str, attempt: int) -> str:
    number = int(text.split()[1])
    return "no" if model == "small" and number % 50 == 0 else "yes"


async def answered(
    smart: Any, mode: str, items: list[str] = ITEMS, **kwargs: Any
) -> list[Any]:
    if mode == "sync":
        return await asyncio.to_thread(smart.batch, items, **kwargs)
    return await smart.abatch(items, **kwargs)


def who(answer: Any) -> tuple[str, str]:
    mark = answer.response_metadata["smart"]
    return mark["model"], mark["role"]


def assert_ledger_is_the_bill(smart: Any, server: BatchServer) -> None:
    for name, spend in smart.report().spend.items():
        prices = PRICES[name], PRICES[name].at("batch")
        bill = 0.0
        for provider, price in zip((server, server.batched), prices, strict=True):
            bill += provider.input_tokens[name] * price.input
            bill += provider.output_tokens[name] * price.output
        read = server.input_tokens[name] + server.batched.input_tokens[name]
        written = server.output_tokens[name] + server.batched.output_tokens[name]
        assert (spend.input_tokens, spend.output_tokens) == (read, written)
        assert spend.cost == pytest.approx(bill / 1e6)
