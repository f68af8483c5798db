"""Bad input costs nothing; bad models lose nothing; no secret gets out."""

from __future__ import annotations

import json

import pytest
from fakes import Scripted
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from langchain_smart import Label, Price, SmartChatModel
from smart_engine import InvalidInputError

FREE = Price.free()
KEY = "sk-this-must-stay-secret"


def model(name="big", answer="spam", **settings):
    script = answer if callable(answer) else lambda *_: answer
    return Scripted(name=name, script=script, **settings)


def smart_of(big=None, small=None, **settings):
    big, small = big or model("big"), small or model("small")
    settings.setdefault("prices", {"big": FREE, "small": FREE})
    return SmartChatModel(**{"reference": big, "candidates": [small], **settings})


same = model("same")
BAD = {
    "no candidates": ({"candidates": []}, "candidates"),
    "a string for the list": ({"candidates": "openai:gpt-5"}, "candidates"),
    "reference among them": ({"reference": same, "candidates": [same]}, "candidates"),
    "same name": ({"candidates": [model("big")]}, "candidates"),
    "named twice": ({"candidates": [model("small"), model("small")]}, "candidates"),
    "zero": ({"max_disagreement": 0}, "max_disagreement"),
    "one": ({"max_disagreement": 1}, "max_disagreement"),
    "percent": ({"confidence": 95}, "confidence"),
    "not a number": ({"confidence": "high"}, "confidence"),
    "no price": ({"prices": {"big": FREE}}, "prices"),
    "no Price": ({"prices": {"big": FREE, "small": 3}}, "prices.small"),
    "unknown model": ({"reference": "no-such-model"}, "reference"),
    "no credentials": ({"candidates": ["openai:gpt-5"]}, "candidates"),
    "strategy": ({"strategy": "best"}, "strategy"),
    "looks": ({"looks": "often"}, "looks"),
    "equivalence": ({"equivalence": 3}, "equivalence"),
    "concurrency": ({"max_concurrency": 0}, "max_concurrency"),
    "a number for the list": ({"candidates": 5}, "candidates"),
    "no chat model": ({"candidates": [RunnableLambda(str)]}, "candidates"),
    "typo": ({"max_disagrement": KEY}, "max_disagrement"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_at_construction(case, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    change, field = BAD[case]
    big, small = model("big"), model("small")
    good = {"reference": big, "candidates": [small]}
    good["prices"] = {"big": FREE, "small": FREE, "same": FREE}
    with pytest.raises(InvalidInputError) as caught:
        SmartChatModel(**{**good, **change})
    assert caught.value.field == field
    assert len(caught.value.hint) > 10
    assert KEY not in str(caught.value)
    assert big.calls == small.calls == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"budget": 1}, r"^budget=1: no such parameter; did you mean budget_usd\?$"),
        ({"max_items": 9}, r"^max_items=9: .* that model; there are .*, max_tokens,"),
        ({"cache": 3}, "^cache=3: must be an instance of BaseCache"),
        ({"max_disagreement": "5%"}, "^max_disagreement='5%': write a share: 0.05$"),
        ({"max_tokens": 0}, "^max_tokens=0: must be greater than or equal to 1"),
        ({"task": ""}, "^task='': give it a name, or leave it out"),
        ({"on_drift": 3}, "^on_drift=3: give a function that is told of a Drift"),
        ({"candidate": [KEY]}, r"^candidate='…': .* did you mean candidates\?$"),
        ({"api_key": KEY}, r"^api_key='…': .* that model; there are .*, budget_usd,"),
        ({"candidates": None}, "^candidates=None: name at least one cheaper model"),
        ({"candidates": model()}, r"^candidates=Scripted\(…\): name at least one"),
        ({"reference": 3}, "^reference=3: give a LangChain chat model"),
        ({"prices": None}, r"^prices=None: must be a dictionary by name"),
        ({"prices": {"big": 3}}, r"^prices.big=3: give a Price\(…\)"),
    ],
)
def test_an_error_shows_what_was_given_and_the_nearest_parameter(given, shown):
    with pytest.raises(InvalidInputError, match=shown) as caught:
        smart_of(**{"candidates": [model("small")], **given})
    assert KEY not in str(caught.value)


def test_arguments_without_a_name_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="name each argument"):
        SmartChatModel(model("big"))


async def test_an_unusable_item_is_found_before_anything_is_asked():
    big, small = model("big"), model("small")
    smart = smart_of(big, small)
    with pytest.raises(ValueError, match="Invalid input type"):
        smart.batch(["a", 3])
    with pytest.raises(ValueError, match="Invalid input type"):
        await smart.abatch(["a", 3])
    with pytest.raises(InvalidInputError, match="put a single one in brackets"):
        smart.batch("a b")
    with pytest.raises(InvalidInputError, match="put a single one in brackets"):
        smart.submit("a b")
    assert big.calls == small.calls == []
    results = smart.batch(["a", 3, "b"], return_exceptions=True)
    assert [isinstance(r, AIMessage) for r in results] == [True, False, True]


@pytest.mark.parametrize(
    "bad",
    [
        ConnectionError("down"),
        "I cannot say",
        "",
        AIMessage(content="spam", additional_kwargs={"refusal": "no"}),
    ],
    ids=["fails", "unparseable", "empty", "refused"],
)
async def test_a_candidate_that_never_answers_costs_no_answer(bad):
    small = model("small", lambda *_: bad)
    for mode in ("sync", "async"):
        smart = smart_of(small=small, equivalence=Label(["spam", "ham"]))
        items = [str(n) for n in range(200)]
        outputs = smart.batch(items) if mode == "sync" else await smart.abatch(items)
        assert [o.content for o in outputs] == ["spam"] * 200
        report = smart.report()
        assert report.served == {"big": 200, "small": 0}
        spend = report.spend["small"]
        assert spend.failures == spend.calls > 0
        assert spend.calls < 200


def test_a_candidates_failures_while_applied_escalate():
    def sometimes(text, _):
        return ConnectionError("down") if int(text) % 10 == 0 else "spam"

    prices = {"big": Price(10, 10), "small": Price(0.1, 0.1)}
    smart = smart_of(small=model("small", sometimes), prices=prices)
    outputs = smart.batch([str(n) for n in range(500)])
    roles = [o.response_metadata["smart"]["role"] for o in outputs]
    assert all(roles[n] in {"profiled", "escalated"} for n in range(0, 500, 10))
    assert roles.count("escalated") == smart.report().certificates[0].escalated > 10
    assert roles.count("applied") > 300


async def test_a_reference_that_fails_on_one_item_loses_only_that_item():
    def once(text, _):
        return TimeoutError("late") if text == "7" else "spam"

    items = [str(n) for n in range(40)]
    for mode in ("sync", "async"):
        smart = smart_of(model("big", once), strategy="reference")
        with pytest.raises(TimeoutError, match="late") as caught:
            smart.batch(items) if mode == "sync" else await smart.abatch(items)
        kept = caught.value.smart_results
        assert isinstance(kept[7], TimeoutError)
        assert sum(isinstance(r, AIMessage) for r in kept) == 39
        assert "39 of 40" in caught.value.__notes__[0]
        given = (
            smart.batch(items, return_exceptions=True)
            if mode == "sync"
            else await smart.abatch(items, return_exceptions=True)
        )
        assert [n for n, r in enumerate(given) if not isinstance(r, AIMessage)] == [7]
        assert smart.report().spend["big"].failures == 2
        assert smart.report().certificates[0].unanswered == 1


def test_retry_asks_again_only_for_what_failed():
    seen = []

    def flaky(text, _):
        seen.append(text)
        return TimeoutError("late") if seen.count("7") == 1 and text == "7" else "spam"

    smart = smart_of(model("big", flaky), strategy="reference")
    outputs = smart.with_retry(wait_exponential_jitter=False).batch(
        [str(n) for n in range(20)]
    )
    assert [o.content for o in outputs] == ["spam"] * 20
    assert len(seen) == 21


@pytest.mark.filterwarnings("ignore:big reported no usage")
def test_unknown_cost_is_an_error_and_a_free_model_needs_no_usage():
    silent = model("big", usage=False)
    priced = smart_of(silent, prices={"big": Price(1, 1), "small": FREE})
    (result,) = priced.batch(["a"], return_exceptions=True)
    assert "big reported no usage" in str(result)
    with pytest.raises(Exception, match="big reported no usage"):
        priced.invoke("a")
    assert smart_of(silent).batch(["a"])[0].content == "spam"


def test_a_candidate_whose_cost_is_unknown_is_named():
    prices = {"big": FREE, "small": Price(1, 1)}
    smart = smart_of(small=model("small", usage=False), prices=prices)
    with pytest.warns(UserWarning, match="small reported no usage"):
        outputs = smart.batch(["a"] * 40)
    assert [o.content for o in outputs] == ["spam"] * 40


def test_an_absurd_usage_fails_its_call_and_no_other():
    usage = {"input_tokens": -5, "output_tokens": 1, "total_tokens": -4}
    good = {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}

    def script(text, _):
        return AIMessage("spam", usage_metadata=usage if text == "7" else good)

    absurd = model("big", script, usage=False)
    items = [str(n) for n in range(20)]
    priced = {"big": Price(1, 1), "small": FREE}
    smart = smart_of(absurd, strategy="reference", prices=priced)
    with pytest.warns(UserWarning, match="-5"):
        outputs = smart.batch(items, return_exceptions=True)
    assert [isinstance(o, AIMessage) for o in outputs].count(False) == 1
    free = smart_of(absurd, strategy="reference")  # whatever it says, it costs nothing
    assert len(free.batch(items)) == 20
    assert free.report().spend["big"].input_tokens == 19 * 5


async def test_a_limit_that_allows_nothing_is_refused():
    smart = smart_of()
    for limit in (0, -1):
        with pytest.raises(InvalidInputError, match="max_concurrency"):
            smart.batch(["a"], {"max_concurrency": limit})
        with pytest.raises(InvalidInputError, match="max_concurrency"):
            await smart.abatch(["a"], {"max_concurrency": limit})


async def test_whatever_a_member_raises_fails_its_item_and_nothing_hangs():
    class Panic(BaseException):
        pass

    class Panicking(Scripted):
        async def ainvoke(self, *_, **__):
            raise Panic

        def invoke(self, *_, **__):
            raise Panic

    big = Panicking(name="big", script=lambda *_: "")
    smart = smart_of(big, strategy="reference")
    for outputs in (
        smart.batch(["a", "b"], return_exceptions=True),
        await smart.abatch(["a", "b"], return_exceptions=True),
    ):
        assert [type(o) for o in outputs] == [Panic, Panic]


def test_answers_nobody_can_read_are_counted_all_the_same():
    small = model("small", "dunno")
    smart = smart_of(small=small, equivalence=Label(["spam", "ham"]))
    outputs = smart.batch([f"{n:03d}" for n in range(200)])
    assert len(outputs) == 200
    unread = smart.report().spend["small"]
    assert unread.input_tokens == 3 * unread.calls > 0


def test_a_reply_from_the_cache_costs_nothing():
    from langchain_core.caches import InMemoryCache

    big, small = (
        Scripted(name=name, script=lambda *_: "spam", cache=InMemoryCache())
        for name in ("big", "small")
    )
    prices = {"big": Price(10, 10), "small": Price(1, 1)}
    smart = smart_of(big, small, prices=prices)
    items = [str(n) for n in range(50)]
    smart.batch(items)
    paid, asked = smart.report().cost, len(big.calls) + len(small.calls)
    assert paid > 0
    assert smart.report().served["small"] > 0
    outputs = smart.batch(items)
    assert len(big.calls) + len(small.calls) == asked
    assert smart.report().cost == paid
    assert sum(o.response_metadata["smart"]["cost"] for o in outputs) == 0
    assert smart.invoke("new").response_metadata["smart"]["cost"] > 0
    assert smart.invoke("new").response_metadata["smart"]["cost"] == 0


def test_settings_count_as_they_stand_and_members_stay():
    smart = smart_of()
    smart.max_disagreement = 0.5
    smart.batch(["a"] * 10)
    assert smart.report().certificates[0].max_disagreement == 0.5
    other = smart.model_copy(update={"max_disagreement": 0.25})
    other.batch(["a"] * 10)
    assert other.report().certificates[-1].max_disagreement == 0.25
    with pytest.raises(Exception, match="frozen"):
        smart.reference = model("other")


def test_single_calls_that_fail_are_in_the_books():
    smart = smart_of(model("big", lambda *_: TimeoutError("late")))
    with pytest.raises(TimeoutError):
        smart.invoke("a")
    assert smart.report().spend["big"].failures == 1


def test_an_equivalence_that_raises_loses_nothing():
    def broken(left, right):
        raise RuntimeError("bug")

    smart = smart_of(equivalence=broken)
    assert [o.content for o in smart.batch(["a"] * 50)] == ["spam"] * 50
    assert smart.report().served["small"] == 0


def test_no_key_gets_out():
    secret = ChatOpenAI(model="gpt-x", api_key=KEY, base_url="http://127.0.0.1:9/v1")
    prices = {"gpt-x": Price(1, 1), "small": FREE}
    smart = SmartChatModel(reference=secret, candidates=[model("small")], prices=prices)
    shown = [
        repr(smart),
        str(smart),
        json.dumps(smart._identifying_params, default=str),
        json.dumps(smart._serialized, default=str),
        smart.report().model_dump_json(),
    ]
    assert all(KEY not in text for text in shown)
