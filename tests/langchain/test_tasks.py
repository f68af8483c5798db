"""Several tasks through one model: each batch keeps them apart, and names them."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from fakes import Foreign, Scripted
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel
from smart_engine import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(120)]


class Fact(BaseModel):
    """A fact."""

    number: int


def smart_of(kind=Scripted, **settings) -> SmartChatModel:
    big, small = (kind(name=name, script=lambda *_: "yes") for name in PRICES)
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def task_of(message) -> str:
    return message.response_metadata["smart"]["task"]


BY_PRECEDENCE = [
    ({"smart_task": "bound"}, {"smart_task": "configured"}, {"smart_task": "noted"}),
    ({}, {"smart_task": "configured"}, {"smart_task": "noted"}),
    ({}, {}, {"smart_task": "noted"}),
    ({}, {}, {}),
]


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "batch", "abatch"])
@pytest.mark.parametrize(
    ("places", "expected"),
    [*zip(BY_PRECEDENCE, ["bound", "configured", "noted", "own"], strict=True)],
)
async def test_the_nearest_name_counts(verb, places, expected):
    bound, configurable, metadata = places
    smart = smart_of(task="own")
    config = {"configurable": configurable, "metadata": metadata}
    runnable = smart.bind(**bound) if bound else smart
    if verb == "invoke":
        message = runnable.invoke("?", config)
    elif verb == "ainvoke":
        message = await runnable.ainvoke("?", config)
    elif verb == "stream":
        message = next(iter(runnable.stream("?", config)))
    elif verb == "batch":
        (message,) = runnable.batch(["?"], config)
    else:
        (message,) = await runnable.abatch(["?"], config)
    assert task_of(message) == expected
    for member in (smart.reference, *smart.candidates):
        assert all("smart_task" not in kwargs for _, kwargs in member.calls)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_batch_of_two_tasks_is_two_sessions(mode):
    smart = smart_of()
    names = ["odd" if n % 3 else "even" for n in range(120)]
    configs = [{"metadata": {"smart_task": name}} for name in names]
    if mode == "sync":
        outputs = smart.batch(ITEMS, configs)
    else:
        outputs = await smart.abatch(ITEMS, configs)
    assert [task_of(output) for output in outputs] == names
    report = smart.report()
    assert sorted(c.items for c in report.certificates) == [40, 80]
    ids = {c.id: c.items for c in report.certificates}
    for name, items in Counter(names).items():
        mine = [o for o in outputs if task_of(o) == name]
        told = {o.response_metadata["smart"]["certificate"] for o in mine}
        assert [ids[certificate] for certificate in told] == [items]
    assert report.cost == pytest.approx(
        sum(o.response_metadata["smart"]["cost"] for o in outputs)
    )


def test_results_keep_their_places_when_some_items_fail():
    smart = smart_of()
    configs = [{"metadata": {"smart_task": str(n % 2)}} for n in range(7)]
    given = ["a", "b", 3, "c", "d", 4.5, "e"]
    results = smart.batch(given, configs, return_exceptions=True)
    assert [isinstance(r, Exception) for r in results] == [
        not isinstance(item, str) for item in given
    ]


def test_an_unnamed_task_is_known_by_its_system_message_tools_and_schema():
    smart = smart_of(Foreign)
    for_sorting = [SystemMessage("Sort."), HumanMessage("a")]
    sorting = task_of(smart.invoke(for_sorting))
    assert sorting == task_of(smart.invoke([SystemMessage("Sort."), HumanMessage("b")]))
    others = {
        sorting,
        task_of(smart.invoke("a")),
        task_of(smart.invoke([SystemMessage("Count."), HumanMessage("a")])),
        task_of(smart.bind_tools([Fact]).invoke(for_sorting)),
    }
    assert len(others) == 4
    prompt = ChatPromptTemplate.from_messages([("system", "Sort."), ("human", "{t}")])
    outputs = (prompt | smart).batch([{"t": item} for item in ITEMS])
    assert {task_of(output) for output in outputs} == {sorting}
    assert len(smart.report().certificates) == 1


def test_unnamed_items_stay_together_even_if_their_system_messages_differ():
    smart = smart_of()
    outputs = smart.batch([[SystemMessage(f"For user {n}."), "?"] for n in range(100)])
    assert len({task_of(output) for output in outputs}) == 1
    (certificate,) = smart.report().certificates
    assert certificate.items == 100


@pytest.mark.parametrize("named", [False, True])
def test_too_many_tasks_without_a_name_are_told_once(named):
    smart = smart_of(task="mail" if named else None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for day in range(25):
            smart.invoke([SystemMessage(f"Today is day {day}."), HumanMessage("Hello")])
            told = [one for one in seen if "Name the task: task=" in str(one.message)]
            assert len(told) == (day >= 19 and not named)


def test_a_task_without_a_name_gets_one_that_a_person_can_read():
    system = [SystemMessage("Sort."), HumanMessage("?")]
    smart, named = smart_of(kind=Foreign), smart_of(name="triage")
    assert task_of(smart.invoke("?")) == "default"
    assert task_of(named.invoke("?")) == "triage"
    of_system, of_tools = (
        task_of(smart.invoke(system)),
        task_of(smart.bind_tools([Fact]).invoke("?")),
    )
    assert of_system.startswith("system message #")
    assert of_tools.startswith("Fact #")
    assert task_of(named.invoke(system)) == of_system.replace(
        "system message", "triage"
    )
    (batched,) = smart.batch([system])
    assert task_of(batched) == of_system


def answers(kind, item, task) -> str:
    """Return "yes" in another form from the candidate, for one task only."""
    return "YES!" if kind == "small" and task == "loud" else "yes"


SETTINGS = {
    "talk": {"pool": ["loud", "calm"], "max_disagreement": 0.2},
    "loud": {"equivalence": lambda left, right: left[:1].lower() == right[:1].lower()},
    "grave": {"strategy": "reference", "confidence": 0.99},
}


@pytest.mark.parametrize("verb", ["invoke", "batch"])
def test_tasks_have_settings_of_their_own_and_pools(verb):
    big, small = (
        Scripted(name=name, script=lambda text, _, name=name: answers(name, 0, text))
        for name in PRICES
    )
    models = {"reference": big, "candidates": [small], "prices": PRICES}
    smart = SmartChatModel(**models, tasks=SETTINGS)
    names = [("loud", "calm", "grave")[n % 3] for n in range(240)]
    configs = [{"metadata": {"smart_task": name}} for name in names]
    if verb == "batch":
        outputs = smart.batch(names, configs)
        promised = {
            each.task: (each.max_disagreement, each.confidence, each.strategy)
            for each in smart.report().certificates
        }
        assert promised["grave"] == (0.05, 0.99, "reference")
        assert promised["talk"] == (0.2, 0.95, "audit")
        assert len(smart.report().certificates) == 3  # a rule each
    else:
        outputs = [smart.invoke(*each) for each in zip(names, configs, strict=True)]
        (stream,) = smart.report().streams
        assert (stream.task, stream.answered) == ("talk", 160)
        assert (stream.max_disagreement, stream.found) == (0.2, 0)
    told = {name: set() for name in SETTINGS}
    for output in outputs:
        told[task_of(output)].add(output.response_metadata["smart"]["model"])
    assert told == {"talk": {"big", "small"}, "loud": set(), "grave": {"big"}}


def test_pooled_tasks_with_one_rule_are_one_session_of_a_batch():
    smart = smart_of(tasks={"all": {"pool": ["a", "b"]}})
    configs = [{"metadata": {"smart_task": "ab"[n % 2]}} for n in range(120)]
    outputs = smart.batch(ITEMS, configs)
    (certificate,) = smart.report().certificates
    assert (certificate.task, certificate.items) == ("all", 120)
    assert len(outputs) == 120


def test_a_misspelt_setting_of_a_task_is_an_error():
    with pytest.raises(InvalidInputError, match="did you mean max_disagreement"):
        smart_of(tasks={"mail": {"max_disagrement": 0.1}})
