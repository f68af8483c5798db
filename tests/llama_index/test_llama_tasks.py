"""Templates are tasks by readable names, with settings of their own, or in a pool."""

from __future__ import annotations

import asyncio
import json
import pickle
import warnings

import pytest
from llama_index.core.evaluation import CorrectnessEvaluator, FaithfulnessEvaluator
from llama_index.core.extractors import KeywordExtractor, TitleExtractor
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.prompts.default_prompts import (
    DEFAULT_REFINE_PROMPT,
    DEFAULT_TEXT_QA_PROMPT,
)
from llama_index.core.schema import TextNode
from llama_index.core.selectors import (
    LLMMultiSelector,
    LLMSingleSelector,
    PydanticSingleSelector,
)
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, serve

from llama_index_smart import Price, SameScore, SmartLLM
from smart_engine import InvalidInputError, Number
from smart_engine.equivalence import Exact, agree

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
MINE = PromptTemplate("Is {what} mine?", prompt_type="mine")
THINE = PromptTemplate("Is {what} thine?", prompt_type="mine")


def said(model, text, attempt):
    if tools := text.body.get("tools"):
        chosen = {"index": 1, "reason": model}
        return Calls([(tools[0]["function"]["name"], chosen)])
    if "choice" in text:
        return json.dumps([{"choice": 1, "reason": f"{model} says so"}])
    return "4.0\nIt is right."


@pytest.fixture(scope="module")
def server():
    with serve(said) as server:
        yield server


def smart_at(server, **settings) -> SmartLLM:
    at = {"api_base": server.url, "api_key": "none", "is_chat_model": True}
    at["is_function_calling_model"] = True
    big, small = (OpenAILike(model=name, **at) for name in PRICES)
    return SmartLLM(reference=big, candidates=[small], prices=PRICES, **settings)


def ask_qa(smart):
    return smart.predict(DEFAULT_TEXT_QA_PROMPT, context_str="x", query_str="y")


def ask_refine(smart):
    filled = {"context_msg": "x", "query_str": "y", "existing_answer": "z"}
    return smart.predict(DEFAULT_REFINE_PROMPT, **filled)


NODES = [TextNode(text="A fact.")]
COMPONENTS = {
    "text_qa": ask_qa,
    "refine": ask_refine,
    "mine": lambda llm: llm.predict(MINE, what="it"),
    "CorrectnessEvaluator": lambda llm: asyncio.run(
        CorrectnessEvaluator(llm=llm).aevaluate(query="a", response="b", reference="c")
    ),
    "FaithfulnessEvaluator": lambda llm: asyncio.run(
        FaithfulnessEvaluator(llm=llm).aevaluate("a", response="b", contexts=["c"])
    ),
    "KeywordExtractor": lambda llm: asyncio.run(
        KeywordExtractor(llm=llm, show_progress=False).aextract(NODES)
    ),
    "TitleExtractor": lambda llm: asyncio.run(
        TitleExtractor(llm=llm, show_progress=False).aextract(NODES)
    ),
    "single_select": lambda llm: LLMSingleSelector.from_defaults(llm=llm).select(
        ["one", "two"], "which?"
    ),
}


def names(smart) -> list[str]:
    return [stream.task for stream in smart.report().streams]


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_task_has_the_name_of_its_template_or_component(server, name):
    tasks = {name: {"max_disagreement": 0.17}}
    smart = smart_at(server, tasks=tasks)
    COMPONENTS[name](smart)
    assert names(smart)[0] == name
    for stream in smart.report().streams:  # a second template of a component, too
        assert stream.task.startswith(name)
        assert stream.max_disagreement == 0.17


def test_two_templates_of_one_name_are_told_apart_by_a_hash(server):
    smart = smart_at(server)
    for _ in range(2):
        smart.predict(MINE, what="it")
        smart.predict(THINE, what="it")
        smart.predict(PromptTemplate("And {what}?"), what="it")
    first, second, third = names(smart)
    assert first == "mine"
    assert second.startswith("mine:")
    assert third.startswith("custom:")
    assert [each.answered for each in smart.report().streams] == [2, 2, 2]


def test_a_stored_stream_goes_on_in_whatever_order_templates_are_used(server, tmp_path):
    for count, order in enumerate([(MINE, THINE), (THINE, MINE)], 1):
        smart = smart_at(server, store=tmp_path / "answers.db")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for template in order:
                smart.predict(template, what="it")
        assert [each.arrived for each in smart.report().streams] == [count, count]


POOL = {
    "answers": {"pool": ["text_qa", "refine"], "max_disagreement": 0.1},
    "refine": {"equivalence": Exact()},
    "mine": {"strategy": "reference"},
}


def test_a_pool_is_one_stream_and_shared_through_a_store(server, tmp_path):
    for count in (2, 4):
        smart = smart_at(server, tasks=POOL, store=tmp_path / "answers.db")
        ask_qa(smart)
        ask_refine(smart)
        smart.predict(MINE, what="it")
        (stream,) = smart.report().streams
        assert (stream.task, stream.answered) == ("answers", count)
        assert stream.max_disagreement == 0.1
        assert stream.equivalence == "Normalized(), Exact()"
        rows = [(row.task, row.model) for row in smart.ledger().entries]
        assert rows[-1] == ("mine", "big")


@pytest.mark.parametrize(
    "kind", [LLMSingleSelector, LLMMultiSelector, PydanticSingleSelector]
)
def test_selections_are_compared_by_their_choices(server, kind):
    smart = smart_at(server)
    for _ in range(40):
        chosen = kind.from_defaults(llm=smart).select(["one", "two"], "which?")
        assert chosen.selections[0].index == 0
    (stream,) = smart.report().streams
    assert stream.equivalence.startswith("SameChoices()")
    assert stream.policy == "small"


@pytest.mark.parametrize("by_score", [False, True])
def test_evaluations_are_compared_by_their_scores_where_the_user_says_so(by_score):
    """Their feedback differs with every model, and is compared by default."""

    def reasons(model, text, attempt):
        return f"{'4.0' if model == 'big' else '4'}\nSo says {model}."

    rule = {"equivalence": SameScore()} if by_score else {}
    with serve(reasons) as server:
        smart = smart_at(server, tasks={"CorrectnessEvaluator": rule})
        for _ in range(40):
            COMPONENTS["CorrectnessEvaluator"](smart)
        (stream,) = smart.report().streams
    assert stream.equivalence == ("SameScore()" if by_score else "Normalized()")
    assert (stream.policy == "small") is by_score


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("4.0\nGood.", "4\nFine.", True),
        ("4.0\nGood.", "4.5\nGood.", False),
        ("Score: 4\nGood.", "Score: 4\nGood.", False),
        ("It is good.\n4.0", "It is good.\n4.0", False),
        ("nan\nGood.", "nan\nGood.", False),
    ],
)
def test_a_score_is_read_where_its_evaluator_reads_it(left, right, same):
    assert agree(SameScore(), left, right) is same


def test_a_name_that_nearly_is_a_templates_warns(server):
    with pytest.warns(UserWarning, match="did you mean 'text_qa'"):
        smart_at(server, tasks={"textqa": {"max_disagreement": 0.1}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smart_at(server, tasks=POOL)


def test_tasks_are_part_of_what_a_smart_llm_is(server):
    smart = smart_at(server, tasks=POOL)
    stored = smart.to_dict()
    assert stored["tasks"] == sorted(POOL)
    assert stored["identity"] != smart_at(server).to_dict()["identity"]
    models = {"reference": smart.reference, "candidates": smart.candidates}
    with pytest.raises(InvalidInputError, match=r"tasks=.*give it again"):
        SmartLLM.from_dict(stored, **models)
    again = SmartLLM.from_dict(stored, **models, tasks=POOL)
    assert again.to_dict()["identity"] == stored["identity"]
    assert pickle.loads(pickle.dumps(smart)).tasks == smart.tasks  # noqa: S301
    tasks = {"score": {"equivalence": lambda a, b: a == b}}
    with pytest.raises(InvalidInputError, match="tasks"):
        pickle.dumps(smart_at(server, tasks=tasks))


def test_a_chat_template_has_its_own_type(server):
    smart = smart_at(server, tasks={"rate": {"equivalence": Number()}})
    template = ChatPromptTemplate.from_messages(
        [("system", "Rate."), ("user", "{what}")], prompt_type="rate"
    )
    smart.predict(template, what="it")
    (stream,) = smart.report().streams
    assert (stream.task, stream.equivalence) == ("rate", "Number()")
