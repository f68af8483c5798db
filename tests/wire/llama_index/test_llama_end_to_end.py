"""LlamaIndex programs over real HTTP: what a plain model answers, and what is saved.

Each program runs twice: with the reference alone, and with a smart model in its place.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core import Document, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.async_utils import run_jobs
from llama_index.core.evaluation import BatchEvalRunner, FaithfulnessEvaluator
from llama_index.core.extractors import (
    KeywordExtractor,
    TitleExtractor,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.selectors import LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import QueryEngineTool
from llama_index.llms.openai_like import OpenAILike
from loopback import Server, serve
from stones import (
    STONES,
    box_of,
    box_question,
    colour_of,
    colour_question,
    index_of,
    is_hard,
    read,
)

from llama_index_smart import SmartLLM
from smart_engine import Price

PRICES = {"big": (10, 30), "small": (0.1, 0.4)}

Answers = dict[int, Any]
"""Stone → what a program brought of it."""

Program = Callable[[LLM, int], "Answers | Awaitable[Answers]"]
"""Puts about so many questions to an LLM."""


# -- programs ------------------------------------------------------------------


def querying(top_k: int = 2, **settings: Any) -> Program:
    def program(llm: LLM, asked: int) -> Answers:
        index = index_of(colour_of)
        engine = index.as_query_engine(llm=llm, similarity_top_k=top_k, **settings)
        return {
            stone: str(engine.query(colour_question(stone))) for stone in range(asked)
        }

    return program


def chatting(llm: LLM, asked: int) -> Answers:
    answers = {}
    index = index_of(colour_of, box_of)
    for stone in range(asked):
        chat = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm)
        first = str(chat.chat(colour_question(stone)))
        answers[stone] = first, str(chat.chat("And in which box does it lie?"))
    return answers


def sources(llm: LLM) -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(
            index_of(fact).as_query_engine(llm=llm),
            name=name,
            description=f"Knows the {about} of every stone.",
        )
        for fact, name, about in (
            (colour_of, "colours", "colour"),
            (box_of, "boxes", "box"),
        )
    ]


def routing(selector: type[LLMSingleSelector | PydanticSingleSelector]) -> Program:
    def program(llm: LLM, asked: int) -> Answers:
        chosen = selector.from_defaults(llm=llm)
        router = RouterQueryEngine(chosen, sources(llm), llm=llm)
        answers = {}
        for stone in range(asked):
            question = (colour_question, box_question)[stone % 2](stone)
            answers[stone] = str(router.query(question))
        return answers

    return program


async def dividing(llm: LLM, asked: int) -> Answers:
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=sources(llm),
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        verbose=False,
    )
    both = "What colour is stone {}, and in which box does it lie?"
    return {n: str(await engine.aquery(both.format(n))) for n in range(asked * 4 // 5)}


def acting(
    kind: type[FunctionAgent | ReActAgent], share: float, *, streaming: bool
) -> Program:
    async def program(llm: LLM, asked: int) -> Answers:
        agent = kind(
            tools=[colour_of, box_of],
            llm=llm,
            system_prompt="You look things up." if kind is FunctionAgent else None,
            streaming=streaming,
        )
        answers = {}
        for stone in range(round(asked * share)):
            question = (colour_question, box_question)[stone % 2](stone)
            handler = agent.run(question)
            told = [event async for event in handler.stream_events()]
            answers[stone] = str(await handler)
            shown = [getattr(event, "delta", "") for event in told]
            assert streaming == (answers[stone] in "".join(shown))
        return answers

    return program


def extracting(llm: LLM, asked: int) -> Answers:
    """Extract from documents of three nodes each, two for each question."""
    stones = STONES[: 6 * asked]
    threes = [stones[n : n + 3] for n in stones[::3]]
    documents = [
        Document(text="\n".join(f"# Stone {n}\n\n{colour_of(n)}" for n in three))
        for three in threes
    ]
    pipeline = IngestionPipeline(
        transformations=[
            MarkdownNodeParser(),
            TitleExtractor(llm=llm, nodes=1, show_progress=False),
            KeywordExtractor(llm=llm, num_workers=8, show_progress=False),
        ],
        disable_cache=True,
    )
    told = [node.metadata for node in pipeline.run(documents=documents)]
    answers: Answers = {n: [told[n]["excerpt_keywords"]] for n in stones}
    for three in threes:  # a document's title is that of its first stone
        (title,) = {told[n]["document_title"] for n in three}
        answers[three[0]].append(title)
    return answers


async def judging(llm: LLM, asked: int) -> Answers:
    """Judge answers, every third of which is beside the point."""
    judged = range(2 * asked)
    runner = BatchEvalRunner({"faithful": FaithfulnessEvaluator(llm=llm)}, workers=8)
    results = await runner.aevaluate_response_strs(
        queries=[colour_question(stone) for stone in judged],
        response_strs=[(colour_of, box_of)[stone % 3 == 0](stone) for stone in judged],
        contexts_list=[[colour_of(stone)] for stone in judged],
    )
    return {n: result.passing for n, result in enumerate(results["faithful"])}


def ranking(llm: LLM, asked: int) -> Answers:
    rerank = LLMRerank(llm=llm, choice_batch_size=5, top_n=1)
    engine = index_of(colour_of).as_query_engine(
        llm=llm, similarity_top_k=5, node_postprocessors=[rerank]
    )
    return {stone: str(engine.query(colour_question(stone))) for stone in range(asked)}


async def crowding(llm: LLM, asked: int) -> Answers:
    synthesizer = get_response_synthesizer(llm=llm)
    jobs = [
        synthesizer.aget_response(colour_question(n), [colour_of(n)])
        for n in range(3 * asked)
    ]
    return dict(enumerate(await run_jobs(jobs, workers=32)))


QA = "text_qa"

CASES: dict[str, tuple[Program, list[tuple[str, float]]]] = {
    "compact": (querying(response_mode="compact"), [(QA, 1)]),
    "compact, streaming": (querying(streaming=True), [(QA, 1)]),
    "refine": (querying(3, response_mode="refine"), [("refine", 2), (QA, 1)]),
    "tree_summarize": (querying(response_mode="tree_summarize"), [("summary", 1)]),
    "accumulate": (querying(response_mode="accumulate"), [(QA, 2)]),
    "condense plus context": (chatting, [("custom", 2), ("task", 1)]),
    "router, text": (routing(LLMSingleSelector), [("single_select", 1), (QA, 1)]),
    "router, tool": (routing(PydanticSingleSelector), [("task", 1), (QA, 1)]),
    "sub-questions": (dividing, [("sub_question", 0.8), (QA, 2.4)]),
    "function agent": (acting(FunctionAgent, 0.6, streaming=False), [("task", 1.2)]),
    "function agent, streaming": (
        acting(FunctionAgent, 0.6, streaming=True),
        [("task", 1.2)],
    ),
    "ReAct agent": (acting(ReActAgent, 0.6, streaming=False), [("task", 1.2)]),
    "ReAct agent, streaming": (acting(ReActAgent, 0.5, streaming=True), [("task", 1)]),
    "ingestion": (
        extracting,
        [("TitleExtractor", 2), ("TitleExtractor", 2), ("KeywordExtractor", 6)],
    ),
    "faithfulness": (judging, [("FaithfulnessEvaluator", 2)]),
    "rerank": (ranking, [("choice_select", 1), (QA, 1)]),
    "32 workers": (crowding, [(QA, 3)]),
}
"""Each program, and how many items a question brings of each kind of task."""

TWINS = {
    "condense plus context",
    "rerank",
    "accumulate",
    "compact, streaming",
    "router, text",
    "function agent, streaming",
    "ReAct agent, streaming",
    "ReAct agent",
    "refine",
    "sub-questions",
    "32 workers",
    "ingestion",
}
"""Programs that are much like another, or long; `make verify` has them."""

FEW, WHOLE = (30, 0.4), (50, 0.2)
"""How many questions, and which share of the answers may differ."""

SIZES = [
    *((name, *FEW) for name in CASES if name not in {*TWINS, "function agent"}),
    ("function agent", *WHOLE),  # with fewer, savings are a matter of luck
    *(
        pytest.param(name, *WHOLE, marks=pytest.mark.slow)
        for name in CASES
        if name != "function agent"
    ),
]


# -- models --------------------------------------------------------------------


def plain_at(server: Server, name: str = "big") -> OpenAILike:
    return OpenAILike(
        model=name,
        api_base=server.url,
        api_key="x",
        context_window=16_000,
        is_chat_model=True,
        is_function_calling_model=True,
        timeout=20,
    )


def bill_of(server: Server) -> float:
    """Return what the server asks for, in USD."""
    return (
        sum(
            server.input_tokens[name] * of_input
            + server.output_tokens[name] * of_output
            for name, (of_input, of_output) in PRICES.items()
        )
        / 1e6
    )


def run(program: Callable[..., Any], llm: LLM, *given: Any) -> Any:
    """Run a program in an event loop of its own: connections belong to a loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # extractors look for it
    try:
        if inspect.iscoroutinefunction(program):
            return loop.run_until_complete(program(llm, *given))
        return program(llm, *given)
    finally:
        loop.run_until_complete(close(llm))
        asyncio.set_event_loop(None)
        loop.close()


async def close(llm: LLM) -> None:
    """Close connections while their loop runs: it would mistake new ones for them."""
    members = [llm.reference, *llm.candidates] if isinstance(llm, SmartLLM) else [llm]
    for member in members:
        if member._aclient is not None:
            await member._aclient.close()


def smart_at(server: Server, max_disagreement: float = 0.2) -> SmartLLM:
    return SmartLLM(
        reference=plain_at(server, "big"),
        candidates=[plain_at(server, "small")],
        prices={name: Price(*price) for name, price in PRICES.items()},
        max_disagreement=max_disagreement,
    )


def assert_ledger_is_the_bill(smart: SmartLLM, server: Server) -> None:
    for model, spend in smart.report().spend.items():
        assert spend.calls == server.requests[model]
        assert spend.failures == 0
        assert spend.input_tokens == server.input_tokens[model]
        assert spend.output_tokens == server.output_tokens[model]


# -- what holds for every program ----------------------------------------------


@pytest.mark.parametrize(("name", "asked", "share"), SIZES)
def test_a_program_saves_and_answers_as_before(name, asked, share):
    program, per_question = CASES[name]
    tasks = [(kind, round(items * asked)) for kind, items in per_question]
    with serve(read, piece=8) as server:
        expected = run(program, plain_at(server), asked)
        assert server.requests == {"big": sum(items for _, items in tasks)}
        alone = bill_of(server)
    with serve(read, piece=8) as server:
        smart = smart_at(server, share)
        answers = run(program, smart, asked)
        report = smart.report()
        bill = bill_of(server)
        assert_ledger_is_the_bill(smart, server)

    assert answers.keys() == expected.keys()
    differing = {stone for stone in expected if answers[stone] != expected[stone]}
    assert all(is_hard(stone) for stone in differing)

    found = [(re.split("[:-]", s.task)[0], s.answered) for s in report.streams]
    assert sorted(found) == sorted(tasks)
    for stream in report.streams:
        assert stream.allowed == int(stream.answered * share + 1e-9)
        assert stream.possible_misses <= stream.allowed
        assert stream.served["small"] > 0
        assert stream.saved > 0
    allowed = sum(stream.allowed for stream in report.streams)
    assert len(differing) <= allowed

    assert report.cost == pytest.approx(bill)
    assert report.saved == pytest.approx(alone - bill, rel=0.2)


VERBS = ("complete_batch", "chat_batch", "achat_batch")


@pytest.mark.parametrize(
    ("verb", "size", "share"),
    [
        *((verb, 60, 0.3) for verb in VERBS if verb != "chat_batch"),
        *(pytest.param(verb, 300, 0.1, marks=pytest.mark.slow) for verb in VERBS),
    ],
)
def test_batches_one_after_the_other(verb, size, share):
    """Two nights' jobs: a certificate each, and one bill."""
    prompts = [f"{colour_of(n)} Give a title that summarizes it." for n in range(size)]
    chats = [[ChatMessage(role="user", content=prompt)] for prompt in prompts]

    async def chatting_twice(llm):
        return [await llm.achat_batch(chats) for _ in range(2)]

    def program(llm):
        batch, given = {
            "complete_batch": (llm.complete_batch, prompts),
            "chat_batch": (llm.chat_batch, chats),
        }[verb]
        return [batch(given) for _ in range(2)]

    with serve(read, piece=8) as server:
        smart = smart_at(server, share)
        nights = run(chatting_twice if verb == "achat_batch" else program, smart)
        report = smart.report()
        assert_ledger_is_the_bill(smart, server)
    for night, certificate in zip(nights, report.certificates, strict=True):
        texts = [getattr(a, "text", None) or a.message.content for a in night]
        differ = [n for n in range(size) if texts[n] != f"On stone {n}"]
        assert all(is_hard(stone) for stone in differ)
        assert len(differ) <= certificate.max_errors == round(share * size)
        assert certificate.saved > 0.5 * certificate.reference_only_cost
        told = [answer.additional_kwargs["smart"] for answer in night]
        assert {one["certificate"] for one in told} == {certificate.id}
        assert sum(one["cost"] for one in told) == pytest.approx(certificate.cost)
