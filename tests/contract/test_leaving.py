"""A caller that leaves voids no audit, and has used what it was shown.

The reference begins only when a gate opens, so that a caller knows an audited item by
its silence: it leaves then, and takes what the candidate says at once. The candidate is
wrong from the moment it is trusted.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from langchain_smart import Price, SmartChatModel

USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


class Speaking(BaseChatModel):
    """Says one word, letter by letter, once its gate is open."""

    word: str = "yes"
    gate: Any = None
    asked: list[int] = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "speaking"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append(1)
        message = AIMessage(self.word, usage_metadata=USAGE)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append(1)
        if self.gate is not None:
            await self.gate.wait()
        for chunk in self._stream(messages):
            yield chunk

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for part in self.word:
            yield ChatGenerationChunk(message=AIMessageChunk(part))
        last = AIMessageChunk("", usage_metadata=USAGE, chunk_position="last")
        yield ChatGenerationChunk(message=last)


def smart_over() -> tuple[SmartChatModel, Speaking, Speaking]:
    """Return a smart model whose candidate is trusted, and its models."""
    big, small = Speaking(name="big"), Speaking(name="small")
    smart = SmartChatModel(
        reference=big,
        candidates=[small],
        prices={"big": Price(10, 30), "small": Price(0.1, 0.3)},
        max_disagreement=0.2,
        seed=3,
    )
    for number in range(150):
        smart.invoke(f"item {number}")
    return smart, big, small


async def first_piece(smart, big, item) -> str | None:
    """Return the first piece; leave before it where the reference is asked."""
    before, pieces = len(big.asked), smart.astream(item)
    piece = asyncio.ensure_future(anext(pieces))
    while not piece.done() and len(big.asked) == before:
        await asyncio.sleep(0)
    if piece.done():
        await pieces.aclose()
        return piece.result().content
    piece.cancel()
    await asyncio.gather(piece, return_exceptions=True)
    await pieces.aclose()
    return None


async def resolved(smart) -> None:
    """Wait until no audit is under way."""
    async with asyncio.timeout(60):
        while any(s.unresolved or s.in_flight for s in smart.report().streams):
            await asyncio.sleep(0.001)


async def test_who_leaves_whenever_it_is_audited_gains_nothing():
    smart, big, small = smart_over()
    small.word = "no"
    wrong = answers = 0
    for number in range(300):
        big.gate = asyncio.Event()
        piece = await first_piece(smart, big, f"more {number}")
        big.gate.set()
        answers += piece is not None
        wrong += piece == "n"
    await resolved(smart)
    (state,) = smart.report().streams
    assert state.found > 0
    assert wrong <= 0.2 * (150 + answers)


async def test_an_audit_goes_on_without_its_caller():
    smart, big, _ = smart_over()
    (before,), spent = smart.report().streams, smart.report().spend["big"]
    left, big.gate = 0, asyncio.Event()
    while left < 5:
        left += await first_piece(smart, big, "item") is None
    assert smart.report().streams[0].unresolved > 0
    big.gate.set()
    await resolved(smart)
    (state,), spend = smart.report().streams, smart.report().spend["big"]
    assert state.found == 0
    assert state.audits > before.audits
    assert spend.calls == spent.calls + 5
    assert spend.failures <= 5 - (state.audits - before.audits)  # forced items alone


async def test_who_is_cancelled_voids_no_audit_either():
    smart, _, _ = smart_over()
    for number in range(60):
        task = asyncio.create_task(smart.ainvoke(f"item {number}"))
        for _ in range(number % 30):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await resolved(smart)
    (state,) = smart.report().streams
    assert state.audits > state.found == 0


def test_what_was_shown_counts_as_handed_out():
    smart, _, _ = smart_over()
    (before,) = smart.report().streams
    for _ in range(30):
        pieces = smart.stream("item")
        next(pieces)
        pieces.close()
    for thread in threading.enumerate():
        if thread.name.startswith("smart"):
            thread.join(60)
    (after,) = smart.report().streams
    assert after.answered + after.abandoned == before.answered + before.abandoned + 30
    assert after.answered > before.answered + 15
    assert after.found == before.found
    assert after.in_flight == 0


def test_an_audit_that_the_end_of_the_loop_cuts_off_counts_as_an_error():
    smart, big, _ = smart_over()

    async def leave_an_audit():
        big.gate = asyncio.Event()
        while not smart.report().streams[0].unresolved:
            await first_piece(smart, big, "item")

    asyncio.run(leave_an_audit())
    (state,) = smart.report().streams
    assert (state.unresolved, state.found) == (0, 1)
