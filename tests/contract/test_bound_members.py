"""Members with settings around them: what is only configuration is read, in both."""

from __future__ import annotations

import pytest
from fakes import Scripted, say
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine.errors import BudgetExceededError, InvalidInputError

PROMPT = ChatPromptTemplate.from_template("{t}")
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def member(name):
    return Scripted(name=name, script=say(name))


def build(smart, reference=None, candidate=None, **settings):
    given = {"prices": PRICES, "max_disagreement": 0.4} | settings
    reference, candidate = reference or member("big"), candidate or member("small")
    return smart(reference=reference, candidates=[candidate], **given)


def ask(smart, text, **arguments):
    if isinstance(smart, SmartChatModel):
        return smart.invoke(text, **arguments).text
    return smart.chat([ChatMessage(content=text)], **arguments).message.content


BOTH = pytest.mark.parametrize("smart", [SmartChatModel, SmartLLM])


@BOTH
def test_bound_arguments_are_those_of_every_call_unless_it_has_others(smart):
    big, small = member("big"), member("small")
    bound = big.bind(temperature=0.5).bind(top_p=0.9).with_config(tags=["one"])
    built = build(smart, bound, small.bind(top_p=0.1))
    assert ask(built, "item 1") == bound.invoke("item 1").text == "yes 1"
    for n in range(40):
        ask(built, f"item {n}", **({"top_p": 0.3} if n % 2 else {}))
    given = {(kwargs.get("temperature"), kwargs["top_p"]) for _, kwargs in big.calls}
    assert given == {(0.5, 0.9), (0.5, 0.3)}
    assert {kwargs["top_p"] for _, kwargs in small.calls} == {0.1, 0.3}


@BOTH
def test_a_bound_limit_of_answers_bounds_a_budget(smart):
    with pytest.raises(InvalidInputError, match="max_tokens"):
        build(smart, budget_usd=1.0)
    limited = [member(name).bind(max_tokens=5) for name in PRICES]
    built = build(smart, *limited, budget_usd=1.0)
    assert ask(built, "item 1") == "yes 1"
    tight = build(smart, *limited, budget_usd=1e-7)  # less than the worst case
    with pytest.raises(BudgetExceededError):
        ask(tight, "item 1")
    searching = limited[0].bind(web_search_options={"search_context_size": "low"})
    with pytest.raises(InvalidInputError, match="web_search_options"):
        build(smart, searching, limited[1], budget_usd=1.0)


@BOTH
def test_bound_arguments_make_another_stream_in_a_store(smart, tmp_path):
    settings = {"store": f"sqlite:///{tmp_path}/s.db", "task": "t", "estimate_usage": 1}
    seen = []
    for top_p in (0.1, 0.1, 0.2):
        built = build(smart, candidate=member("small").bind(top_p=top_p), **settings)
        seen.append(built.report().streams)
        for n in range(3):
            ask(built, f"item {n}")
        seen[-1] = built.report().streams[0].answered
    assert seen == [3, 6, 3]


@BOTH
def test_bound_arguments_tell_smart_models_apart(smart):
    def shown(top_p):
        built = build(smart, candidate=member("small").bind(top_p=top_p))
        return built.to_dict() if smart is SmartLLM else built._get_llm_string()

    assert shown(0.1) == shown(0.1) != shown(0.2)


def test_a_service_tier_that_is_bound_in_a_chain_needs_a_price():
    mini = ChatOpenAI(model="gpt-5-mini", api_key="none").bind(service_tier="scale")
    with pytest.raises(InvalidInputError, match="the service tier 'scale'"):
        SmartRunnable(
            reference=PROMPT | member("big"),
            candidates=[{"mini": PROMPT | mini}],
            prices={"big": PRICES["big"]},
        )


@BOTH
def test_a_bound_name_and_handlers_are_the_models_own(smart):
    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, *, tags, **kwargs):
            heard.append(tags)

    heard = []
    config = {"run_name": "first", "tags": ["mine"], "callbacks": [Listener()]}
    big = member("big")
    control = big.with_config(config)
    control.invoke("item 1")
    other = big.bind(top_p=0.1)
    built = build(
        smart, control, other, prices={"first": Price(10, 30), "big": PRICES["small"]}
    )
    ask(built, "item 1")
    assert [tags.count("mine") for tags in heard] == [1, 1]
    assert [*built.report().spend] == ["first", "big"]
    assert big.name == "big"
    assert big.callbacks is None


@BOTH
@pytest.mark.parametrize(
    ("around", "way_out"),
    [
        (lambda model: model.bind(tools=[{}]), "bind_tools"),
        (lambda model: model.bind(model="other"), "made with this name"),
        (lambda model: model.with_retry(), "max_retries"),
        (lambda model: model.with_fallbacks([member("tiny")]), "as candidates"),
        (
            lambda model: ChatPromptTemplate.from_template("{t}") | model,
            "SmartRunnable",
        ),
        (lambda model: model | str, "SmartRunnable"),
        (
            lambda model: model.configurable_fields(usage=ConfigurableField("u")),
            "as it is to be called",
        ),
        (
            lambda model: model.configurable_alternatives(
                ConfigurableField("m"), other=member("tiny")
            ),
            "as it is to be called",
        ),
        (lambda model: model.with_listeners(on_end=print), "callbacks"),
        (lambda model: model.with_config(max_concurrency=2), "smart model's calls"),
    ],
)
def test_what_is_more_than_configuration_names_the_way_out(smart, around, way_out):
    with pytest.raises(InvalidInputError, match=f"reference=.*{way_out}"):
        build(smart, reference=around(member("big")))
    with pytest.raises(InvalidInputError, match=f"candidates=.*{way_out}"):
        build(smart, candidate=around(member("small")))


def test_init_chat_model_without_a_model_names_the_way_out():
    from langchain.chat_models import init_chat_model

    with pytest.raises(InvalidInputError, match="as it is to be called"):
        build(SmartChatModel, init_chat_model(temperature=0))
