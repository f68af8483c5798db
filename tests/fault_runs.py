"""One verb put to items every other of which meets a fault, and what must be true then.

Each fault comes early and late. A right answer or a clear error comes of each; the
ledger is the provider's bill; nothing hangs; the promise is kept.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple

import httpx
import pytest
from faults import (
    EVERY,
    FAULTS,
    SHOWN,
    STALLED,
    TERMS,
    WRONG_CALLS,
    Adapter,
    Answer,
    Chains,
    LangChain,
    LlamaIndex,
    aimpatient,
    answer,
    impatient,
)
from loopback import InProcess, Provider, serve

ADAPTERS = (LangChain, LlamaIndex)
ALL = (*ADAPTERS, Chains)
MODES = ("sync", "async")
SIZES = ("big", "small")
AT_FAULT = ("small", "big")  # the candidate, the reference
MISSING = "reported no usage that can be priced"
NOTHING_USABLE = "upstream failed|NoneType|No generation chunks|ended before it began"
TELLS = {
    "busy": "429",
    "500": "500",
    "503": "503",
    "forbidden": "404",
    "too long": "400.*too long",
    "filtered question": "400.*filtered",
    "error as an answer": NOTHING_USABLE,
    "reset": "Connection error",
    "silent": "Timeout",
    "cut off": "Connection error|peer closed connection",
    "malformed": "Expecting value|No generation chunks|ended before it began",
    "no usage": MISSING,
    "negative usage": MISSING,
    "absurd usage": MISSING,
    "usage in words": f"{MISSING}|usage_metadata.input_tokens",
    "stalled": "Timeout",
}
"""What the error says where a call fails; the other faults say something unusable."""

STRUCTURED = ("tools", "object", "objects", "called", "filled")
"""Verbs that ask for calls or objects."""

SAID = {"empty": "", "refusal": "", "unreadable": "who knows", "filtered answer": ""}
SAID["truncated"] = "y"
"""What the other faults say in so many words, if a text was asked for."""


class Run(NamedTuple):
    """What came of one verb, and what the server knows of it."""

    items: list[str]
    answers: list[Answer]
    report: Any
    server: Provider


def faults_of(verb: str) -> list[str]:
    """Return the faults that a verb can meet."""
    stalls = STALLED if verb in SHOWN else {}
    return [*FAULTS, *stalls, *(WRONG_CALLS if verb in STRUCTURED else {})]


def items_of(who: str, faults: Iterable[str]) -> list[str]:
    """Return items: each fault, with a good item after it; then each fault again."""
    faults = list(faults)
    first = [told for fault in faults for told in ((who, fault), ("nobody", "none"))]
    both = [*first, *((who, fault) for fault in reversed(faults))]
    return [f"item {n:03d} | {who} | {fault}" for n, (who, fault) in enumerate(both)]


class Case(NamedTuple):
    """Who is asked how, which of its models is at fault, and whether over HTTP."""

    adapter: type[Adapter]
    verb: str
    mode: str
    who: str
    wire: bool = False
    faults: tuple[str, ...] = ()

    @property
    def met(self) -> tuple[str, ...]:
        """The faults that are met: all that can be, unless some were named."""
        return self.faults or tuple(faults_of(self.verb))

    @property
    def slow(self) -> bool:
        """Whether `make verify` tests it: further verbs, and whole rows over HTTP.

        Calls and objects are asked for with async verbs there, too.
        """
        rare = self.mode == "async" and self.verb in STRUCTURED and not self.wire
        further = self.verb not in self.adapter.verbs
        return rare or further or (self.wire and not self.faults)

    def __str__(self) -> str:
        return "-".join([self.adapter.__name__, *self[1:4]])


@cache
def run(case: Case) -> Run:
    """Put a job to a verb; it is bounded in time."""
    items = items_of(case.who, case.met)

    async def asked() -> Run:
        tasks = asyncio.all_tasks()
        with ExitStack() as stack:
            if case.wire:
                provider: Any = stack.enter_context(serve(answer))
                hooks: Any = {"event_hooks": {"request": [impatient]}, "verify": False}
                ahooks = {**hooks, "event_hooks": {"request": [aimpatient]}}
            else:
                provider = InProcess(answer)
                hooks = ahooks = {"transport": provider}
            sync = stack.enter_context(httpx.Client(**hooks))
            async with httpx.AsyncClient(**ahooks) as client:
                smart = case.adapter(provider.url, sync, client)
                if case.mode == "async":
                    answers = await smart.aask(case.verb, items)
                    for _ in range(20):  # what was broken off is closed by the loop
                        await asyncio.sleep(0)
                    assert asyncio.all_tasks() == tasks
                else:
                    answers = await asyncio.to_thread(smart.ask, case.verb, items)
        return Run(items, answers, smart.smart.report(), provider)

    async def bounded() -> Run:
        return await asyncio.wait_for(asked(), 100)

    return asyncio.run(bounded())


def right(case: Case) -> str:
    """Return what an item is answered where nothing goes wrong."""
    return "Verdict(yes)" if case.verb in ("tools", "called") else "yes"


def assert_a_right_answer_or_a_clear_error(case: Case) -> None:
    """Of each fault, early and late."""
    came = run(case)
    for fault in case.met:
        met = [
            found
            for item, found in zip(came.items, came.answers, strict=True)
            if item.endswith(f" | {case.who} | {fault}")
        ]
        assert len(met) == 2
        for found in met:
            _assert_right_or_clear(case, fault, found)


def _assert_right_or_clear(case: Case, fault: str, found: Answer) -> None:
    text, error, shown, told = found
    _, verb, _, who, *_ = case
    if error is not None:
        if fault in TELLS:
            assert re.search(TELLS[fault], repr(error)), fault
        # An answer that failed was the reference's, or was on its way to the user.
        assert who == "big" or (verb in SHOWN and shown), fault
    elif text == right(case):
        # A candidate that failed has not answered.
        assert who == "big" or told.get("role") != "applied", fault
    else:
        # What somebody said who may: the reference, or who was shown saying it.
        assert fault not in TELLS
        assert who == "big" or (verb in SHOWN and told.get("role") != "reference")
        assert verb in STRUCTURED or text == SAID[fault], fault


def assert_the_ledger_is_the_bill_and_nothing_hangs(case: Case) -> None:
    """To the token, by model."""
    came = run(case)
    report, server = came.report, came.server
    for name, spend in (report.inside or report.spend).items():
        assert spend.calls == server.requests[name] > 0
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]
        price = TERMS["prices"][name]
        cost = price.input * spend.input_tokens + price.output * spend.output_tokens
        assert spend.cost == pytest.approx(cost / 1e6)
    assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
    for stream in report.streams:
        assert (stream.in_flight, stream.unresolved) == (0, 0)
    nobody = zip(came.items, came.answers, strict=True)
    assert {a.text for item, a in nobody if " nobody " in item} == {right(case)}


def assert_the_promise_is_kept_after_every_answer(case: Case) -> None:
    """A stream's after each, a batch's at its end."""
    came = run(case)
    good, wrong = right(case), 0
    for number, (item, found) in enumerate(
        zip(came.items, came.answers, strict=True), start=1
    ):
        fault = item.rsplit(" | ", 1)[1]
        # Of the reference's own faults, those that say something are what it said.
        served = found.told.get("model") == "small"
        differs = served and case.who == "big" and fault in EVERY and fault not in TELLS
        differs |= found.error is None and case.who == "small" and found.text != good
        wrong += differs
        if came.report.streams:
            assert wrong <= TERMS["max_disagreement"] * number
    assert wrong <= TERMS["max_disagreement"] * len(came.items)


def assert_sync_and_async_decide_alike(case: Case) -> None:
    """Streams excepted: what was shown when one stalls is a matter of time."""
    if case.verb in SHOWN:
        return
    both = [run(case._replace(mode=mode)) for mode in MODES]
    decided = [
        [
            (a.text, type(a.error), a.told.get("model"), a.told.get("role"))
            for a in each.answers
        ]
        for each in both
    ]
    assert decided[0] == decided[1]
    for name, spend in both[0].report.spend.items():
        other = both[1].report.spend[name]
        assert spend.cost == pytest.approx(other.cost)  # added up as they came
        assert spend.model_copy(update={"cost": other.cost}) == other


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Test each case."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=str(case), marks=[pytest.mark.slow] * case.slow)
            for case in cases
        ],
    )
