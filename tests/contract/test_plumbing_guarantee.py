"""Violation rates through the real plumbing: callers and models that try to break it.

A game is a stream or a batch of so many items under δ = .2 and γ = .9. It is lost where
the smart object claims its guarantee, at the end or after any answer, although more
than the share δ of the answers handed out so far is wrong. The candidates are at their
worst: wrong on one item more than is allowed, or from the moment they are trusted. In
the long run a game is lost with a probability of at most 1 − γ.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from scipy.stats import binom

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM

DELTA, GAMMA = 0.2, 0.9
USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.3), "tiny": Price(0.01, 0.03)}
FALSE_ALARM = 1e-5  # of one case, were every game lost as often as is allowed
Script = Callable[[str], str | Exception | AIMessage]


class Speaking(BaseChatModel):
    """Says what its script says, letter by letter, once its gate is open."""

    script: Any
    gate: Any = None
    asked: int = 0
    max_tokens: int = 1

    @property
    def _llm_type(self):
        return "speaking"

    @property
    def _identifying_params(self):
        return {"model": self.name}

    def _said(self, messages) -> AIMessage:
        self.asked += 1
        said = self.script(str(messages[-1].text))
        if isinstance(said, Exception):
            raise said
        said = said if isinstance(said, AIMessage) else AIMessage(said)
        return said.model_copy(update={"usage_metadata": USAGE})

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self._said(messages))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        said = self._said(messages)
        for part in said.text:
            yield ChatGenerationChunk(message=AIMessageChunk(part))
        metadata = said.response_metadata
        last = AIMessageChunk("", usage_metadata=USAGE, response_metadata=metadata)
        yield ChatGenerationChunk(message=last)

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        chunks = self._stream(messages)
        first = next(chunks)
        if self.gate is not None:
            await self.gate.wait()
        yield first
        for chunk in chunks:
            yield chunk

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        result = self._generate(messages)
        if self.gate is not None:
            await self.gate.wait()
        return result


# -- three objects, asked alike ----------------------------------------------------


class Chat:
    """`SmartChatModel`."""

    def __init__(self, big: Script, *others: Script, **settings: Any) -> None:
        names = ["big", "small", "tiny"][: 1 + len(others)]
        self.big, *candidates = (
            Speaking(name=name, script=script)
            for name, script in zip(names, [big, *others], strict=True)
        )
        shared = {"max_disagreement": DELTA, "confidence": GAMMA, **settings}
        self.smart = self._smart(
            self.big, candidates, {"prices": {n: PRICES[n] for n in names}, **shared}
        )

    def _smart(self, reference, candidates, settings) -> Any:
        return SmartChatModel(reference=reference, candidates=candidates, **settings)

    def ask(self, item: str) -> str:
        return self.smart.invoke(item).text

    async def aask(self, item: str) -> str:
        return (await self.smart.ainvoke(item)).text

    def pieces(self, item: str) -> Iterator[str]:
        for piece in self.smart.stream(item):
            yield piece.text

    async def apieces(self, item: str):
        async for piece in self.smart.astream(item):
            yield piece.text

    def batch(self, items: list[str]) -> list[str]:
        answers = self.smart.batch(items, return_exceptions=True)
        return [a.text for a in answers if not isinstance(a, Exception)]

    @property
    def claims(self) -> bool:
        report = self.smart.report()
        return all(one.valid for one in (*report.certificates, *report.streams))


class Chain(Chat):
    """`SmartRunnable`, over a model and a parser."""

    def _smart(self, reference, candidates, settings) -> Any:
        def chain(model):
            return model | StrOutputParser()

        return SmartRunnable(
            reference={"big": chain(reference)},
            candidates={model.name: chain(model) for model in candidates},
            **settings,
        )

    def ask(self, item: str) -> str:
        return self.smart.invoke(item)

    async def aask(self, item: str) -> str:
        return await self.smart.ainvoke(item)

    def pieces(self, item: str) -> Iterator[str]:
        yield from self.smart.stream(item)

    async def apieces(self, item: str):
        async for piece in self.smart.astream(item):
            yield piece

    def batch(self, items: list[str]) -> list[str]:
        answers = self.smart.batch(items, return_exceptions=True)
        return [a for a in answers if not isinstance(a, Exception)]


class Index(Chat):
    """`SmartLLM`, over the same models."""

    def _smart(self, reference, candidates, settings) -> Any:
        return SmartLLM(reference=reference, candidates=candidates, **settings)

    def ask(self, item: str) -> str:
        return self.smart.complete(item).text

    async def aask(self, item: str) -> str:
        return (await self.smart.acomplete(item)).text

    def pieces(self, item: str) -> Iterator[str]:
        for piece in self.smart.stream_complete(item):
            yield piece.delta or ""

    async def apieces(self, item: str):
        async for piece in await self.smart.astream_complete(item):
            yield piece.delta or ""

    def batch(self, items: list[str]) -> list[str]:
        answers = self.smart.complete_batch(items, return_exceptions=True)
        return [a.text for a in answers if not isinstance(a, Exception)]


OBJECTS = [Chat, Chain, Index]


# -- streams -----------------------------------------------------------------------


class Game:
    """The answers of a stream so far; lost once it claims what does not hold.

    Attributes:
        trusted: Whether the candidate has answered alone: from then on it is wrong.
    """

    def __init__(self) -> None:
        self.answers = self.wrong = 0
        self.lost = self.trusted = False

    def count(self, smart: Chat, said: str) -> None:
        """Count an answer, or the beginning of one."""
        self.answers += 1
        self.wrong += said.startswith("n")
        if self.wrong > DELTA * self.answers and not self.lost:
            self.lost = smart.claims

    def candidate(self, rng: Random, share: float) -> Script:
        """Return the script of a candidate that is wrong so often once trusted."""

        def script(text: str) -> str:
            return "no" if self.trusted and rng.random() < share else "yes"

        return script


def yes(_: str) -> str:
    return "yes"


def whole(smart: Chat, game: Game, item: str) -> str | None:
    """Take a whole answer."""
    before = smart.big.asked
    try:
        said = smart.ask(item)
    except Exception:  # noqa: BLE001 - an item without an answer
        return None
    game.count(smart, said)
    game.trusted |= smart.big.asked == before
    return said


def lost(smart: Chat, game: Game, items: int) -> bool:
    """Take whole answers to so many items; return whether the game was lost."""
    for number in range(items):
        whole(smart, game, f"item {number}")
    return game.lost


def closes_early(smart: Chat, game: Game, item: str) -> None:
    """Take the first piece, and close."""
    if not game.trusted:
        whole(smart, game, item)
        return
    pieces = smart.pieces(item)
    said = next(piece for piece in pieces if piece)
    pieces.close()
    game.count(smart, said)


async def first_piece(smart: Chat, item: str) -> str:
    pieces = smart.apieces(item)
    try:
        return await anext(piece async for piece in pieces if piece)
    finally:
        await pieces.aclose()


def leaves_when_audited(ask: Any) -> Callable[[Chat, Game, str], None]:
    """Return a caller that is cancelled as soon as the slow reference is asked."""

    async def caller(smart: Chat, game: Game, item: str) -> None:
        if not game.trusted:
            whole(smart, game, item)
            return
        before, smart.big.gate = smart.big.asked, asyncio.Event()
        asking = asyncio.ensure_future(ask(smart, item))
        for _ in range(200):
            if asking.done() or smart.big.asked > before:
                break
            await asyncio.sleep(0)
        if smart.big.asked > before:
            asking.cancel()
        (said,) = await asyncio.gather(asking, return_exceptions=True)
        smart.big.gate.set()
        if isinstance(said, str):
            game.count(smart, said)

    return caller


def play_stream(
    kind, caller, seed: int, items: int, share: float = 1.0, **settings: Any
) -> bool:
    """Play a stream; return whether it was lost."""
    rng, game = Random(seed), Game()
    smart = kind(yes, game.candidate(rng, share), seed=seed, **settings)
    if asyncio.iscoroutinefunction(caller):

        async def play() -> None:
            for number in range(items):
                await caller(smart, game, f"item {number}")
            async with asyncio.timeout(60):
                while any(s.in_flight for s in smart.smart.report().streams):
                    await asyncio.sleep(0)

        asyncio.run(play())
    else:
        for number in range(items):
            caller(smart, game, f"item {number}")
        for thread in threading.enumerate():
            if thread.name.startswith("smart") and thread.daemon:
                thread.join(60)
    return game.lost


def faq(kind, seed: int, items: int) -> bool:
    """Repeat what was answered wrongly, before LangChain's global cache."""
    set_llm_cache(InMemoryCache())
    try:
        rng, game, favourite = Random(seed), Game(), None
        smart = kind(yes, game.candidate(rng, 1.0), seed=seed)
        for number in range(2 * items):
            again = favourite is not None and rng.random() < 0.8
            text = favourite if again else f"item {number}"
            if whole(smart, game, text) == "no":
                favourite = text
        return game.lost
    finally:
        set_llm_cache(None)


def refusing(kind, seed: int, items: int) -> bool:
    """The reference has no answer to half of what the candidate gets wrong."""
    rng, game = Random(seed), Game()

    def reference(text: str) -> str | Exception:
        return RuntimeError("refused") if text[-1] in "13579" else "yes"

    smart = kind(reference, game.candidate(rng, 0.4), seed=seed)
    return lost(smart, game, items)


def cut_off(kind, seed: int, items: int) -> bool:
    """The candidate is cut off where it is wrong."""
    rng, game = Random(seed), Game()
    wrong = game.candidate(rng, 1.0)
    metadata = {"finish_reason": "length"}

    def candidate(text: str) -> AIMessage:
        said = wrong(text)
        return AIMessage(said, response_metadata=metadata if said == "no" else {})

    smart = kind(yes, candidate, seed=seed)
    return lost(smart, game, items)


def ended_budget(kind, seed: int, items: int) -> bool:
    """The budget ends in the middle."""
    return play_stream(kind, whole, seed, items, budget_usd=0.3 * items * 40e-6)


def again_and_again(kind, seed: int, items: int) -> bool:
    """Whoever gets the reference's answer asks once more; all answers count."""
    rng, game = Random(seed), Game()
    smart = kind(yes, game.candidate(rng, 0.5), seed=seed)
    for number in range(items):
        for _ in range(3):
            before = smart.big.asked
            whole(smart, game, f"item {number}")
            if smart.big.asked == before:
                break
    return game.lost


def by(caller, share: float = 1.0) -> Callable[..., bool]:
    """Return the game of a caller."""
    return lambda kind, seed, items: play_stream(kind, caller, seed, items, share)


STREAMS = {
    "turns bad": by(whole),
    "errs a little": by(whole, share=0.3),
    "closes early": by(closes_early),
    "leaves a stream": by(leaves_when_audited(first_piece)),
    "leaves a call": by(leaves_when_audited(lambda smart, item: smart.aask(item))),
    "asks again": again_and_again,
    "repeats questions": faq,
    "refuses": refusing,
    "is cut off": cut_off,
    "ends its budget": ended_budget,
}


# -- batches -----------------------------------------------------------------------


def play_batch(smart: Chat, items: list[str]) -> bool:
    """Answer a batch; return whether it claims what does not hold."""
    said = smart.batch(items)
    return said.count("no") > DELTA * len(said) and smart.claims


def shuffled(seed: int, items: int) -> tuple[list[str], Random]:
    rng = Random(seed)
    texts = [f"item {number}" for number in range(items)]
    rng.shuffle(texts)
    return texts, rng


def no_to(wrong: set[str]) -> Script:
    """Return a script that is wrong about these items."""
    return lambda text: "no" if text in wrong else "yes"


def one_too_many(kind, seed: int, items: int) -> bool:
    """The candidate is wrong on one item more than is allowed."""
    texts, _ = shuffled(seed, items)
    wrong = set(texts[: int(DELTA * items) + 1])
    return play_batch(kind(yes, no_to(wrong), seed=seed), sorted(texts))


def refused_together(kind, seed: int, items: int) -> bool:
    """Both models refuse half of the items; of the others too many are wrong."""
    texts, _ = shuffled(seed, items)
    half = items // 2
    refused, wrong = set(texts[:half]), set(texts[half:][: int(DELTA * half) + 1])

    def reference(text: str) -> str | Exception:
        return RuntimeError("refused") if text in refused else "yes"

    def candidate(text: str) -> str | Exception:
        return "no" if text in wrong else reference(text)

    return play_batch(kind(reference, candidate, seed=seed), sorted(texts))


def turned_bad(kind, seed: int, items: int) -> bool:
    """The candidate is wrong from one of its calls on."""
    texts, rng = shuffled(seed, items)
    calls, until = count(), rng.randrange(items // 10, items)
    smart = kind(yes, lambda _: "no" if next(calls) >= until else "yes", seed=seed)
    return play_batch(smart, texts)


def alike(kind, seed: int, items: int) -> bool:
    """The questions of a batch repeat, and one of them is too much."""
    rng = Random(seed)
    few = [f"item {rng.randrange(4)}" for _ in range(items)]
    return play_batch(kind(yes, no_to({"item 3"}), seed=seed), few)


def two_candidates(kind, seed: int, items: int) -> bool:
    """Two candidates err on the same items, and each on some of its own."""
    texts, _ = shuffled(seed, items)
    both, own = int(DELTA * items) + 1, items // 7
    scripts = (no_to({*texts[:both], *texts[both + k * own :][:own]}) for k in range(2))
    return play_batch(kind(yes, *scripts, seed=seed), sorted(texts))


def batch_beyond_its_budget(kind, seed: int, items: int) -> bool:
    """The budget ends in the middle, and the candidate is always wrong."""
    texts, rng = shuffled(seed, items)
    budget = rng.randrange(5, 60) * 40e-6
    return play_batch(kind(yes, lambda _: "no", seed=seed, budget_usd=budget), texts)


BATCHES = {
    "batch with one too many": one_too_many,
    "batch refused together": refused_together,
    "batch turns bad": turned_bad,
    "batch of few questions": alike,
    "batch with two candidates": two_candidates,
    "batch ends its budget": batch_beyond_its_budget,
}


# -- how often ---------------------------------------------------------------------

ONCE_ALWAYS_LOST = {"leaves a stream", "leaves a call", "repeats questions"}
ONCE_ALWAYS_LOST |= {"ends its budget", "batch turns bad", "batch refused together"}


GAMES = {**BATCHES, **STREAMS}


def case(kind: type[Chat], name: str) -> Any:
    """Return a game with an object."""
    return pytest.param(kind, GAMES[name], id=f"{kind.__name__}: {name}")


def a_few() -> Iterator[Any]:
    """Yield the games that were once lost, by turns in each adapter."""
    for number, name in enumerate(sorted(ONCE_ALWAYS_LOST)):
        yield case([Index, Chat, Chain][number % 3], name)


def check(kind, play, games: int, items: int) -> None:
    """Play so many games; fail if more are lost than chance explains."""
    lost = sum(play(kind, seed, items) for seed in range(games))
    print(f"\n{lost} of {games} lost", end="")
    assert lost <= binom.isf(FALSE_ALARM, games, 1 - GAMMA)


@pytest.mark.parametrize(("kind", "play"), [*a_few()])
def test_a_few_games_are_not_lost_in_a_row(kind, play):
    check(kind, play, games=6, items=70)


@pytest.mark.guarantee
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("kind", "play"), [case(kind, name) for name in GAMES for kind in OBJECTS]
)
def test_no_more_games_are_lost_than_is_allowed(kind, play):
    check(kind, play, games=300, items=70)
