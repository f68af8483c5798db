"""What a user sets for single tasks: what is refused, and what a pool promises."""

from __future__ import annotations

import threading

import pytest
from items import admitted

from smart_engine import Guarantee, Label, Normalized, Number, Outcome
from smart_engine.equivalence import Json
from smart_engine.errors import InvalidInputError
from smart_engine.serving.books import Books
from smart_engine.serving.checks import check
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.routing import single_item
from smart_engine.serving.tasks import read_tasks

MODELS = ("big", "small")


def config_of(tasks) -> ServingConfig:
    promise = Guarantee(0.2, 0.9)
    settings = {"seed": 5, "min_saving": 0.0, "tasks": read_tasks(tasks)}
    return ServingConfig(MODELS, promise, Normalized(), **settings)


REFUSED = {
    "tasks='text_qa': give settings by the task's name": "text_qa",
    r"tasks\['qa'\]=0.1: give settings by name": {"qa": 0.1},
    r"tasks\['qa'\]='equivalance': .*did you mean equivalence": {
        "qa": {"equivalance": Normalized()}
    },
    r"tasks\['qa'\].equivalence='exact'.*Normalized": {"qa": {"equivalence": "exact"}},
    r"tasks\['qa'\].max_disagreement=5": {"qa": {"max_disagreement": 5}},
    r"tasks\['qa'\].confidence=95": {"qa": {"confidence": 95}},
    r"tasks\['qa'\].strategy='cheap'": {"qa": {"strategy": "cheap"}},
    r"tasks\['qa'\].min_saving=2": {"qa": {"min_saving": 2}},
    r"tasks\['all'\].pool='qa': list names": {"all": {"pool": "qa"}},
    r"tasks\['all'\].pool=\[\]": {"all": {"pool": []}},
    r"tasks\['b'\].pool=.*qa is in the pool a already": {
        "a": {"pool": ["qa"]},
        "b": {"pool": ["qa"]},
    },
    r"tasks\['all'\].pool=.*of qa alone, set nothing but equivalence": {
        "all": {"pool": ["qa"]},
        "qa": {"confidence": 0.9},
    },
    r"tasks\['qa'\].pool=.*do not name the pool so": {"qa": {"pool": ["qa"]}},
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_cannot_be_used_is_named_with_its_task(problem):
    with pytest.raises(InvalidInputError, match=problem):
        check(config_of(REFUSED[problem]))


def test_a_task_has_its_own_settings_and_else_the_common_ones():
    rule = Label(["yes", "no"])
    config = config_of({"qa": {"max_disagreement": 0.1, "equivalence": rule}})
    check(config)
    own, other = config.of("qa"), config.of("summary")
    assert own.guarantee == Guarantee(0.1, 0.9)
    assert (own.rule, own.min_saving) == (rule, 0.0)
    assert (other.guarantee, other.rule) == (config.guarantee, config.rule)
    assert config.rule_of("qa") is rule


POOL = {
    "answers": {"pool": ["qa", "score", "facts"], "max_disagreement": 0.1},
    "score": {"equivalence": Number(absolute=0.1)},
    "facts": {"equivalence": Json()},
}
SAID = {  # task → what the models say of it
    "qa": ("Yes.", "yes"),
    "score": ("4.0", "4.05"),
    "facts": ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
}


@pytest.mark.parametrize("wrong_share", [0, 6])
def test_a_pool_is_one_stream_in_which_each_task_has_its_rule(wrong_share):
    config, books = config_of(POOL), Books(threading.Lock, MODELS)
    missed = 0
    for number in range(600):
        name = [*SAID][number % 3]
        wrong = bool(wrong_share) and number % wrong_share == 0
        pool = config.task_of(name)
        rule = config.rule_of(name)
        item = single_item(config.of(pool), books, rule, pool, lambda call: 1.0)
        with admitted(item):
            while calls := item.next_calls():
                for call in calls:
                    right, same = SAID[name]
                    said = {"big": right, "small": "9" if wrong else same}
                    cost = {"big": 1.0, "small": 0.01}
                    item.record(call, Outcome(said[call.tier], cost[call.tier]))
            item.settle()
        missed += wrong and item.mark["model"] == "small"
    (stream,) = books.report().streams
    assert (stream.task, stream.answered) == ("answers", 600)
    assert stream.equivalence == "Normalized(), Number(absolute=0.1), Json()"
    assert missed <= 0.1 * 600
    assert (stream.served["small"] > 300) is not bool(wrong_share)
